"""Two bundles on the same patients, number by number: what each says, the gain of the new one, and what may be concluded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medvl.evaluation.estimates import interval
from medvl.evaluation.intervals import Draws
from medvl.evaluation.metrics import auroc_of, average_of
from medvl.evaluation.reliability import error_of

Array = NDArray[np.float64]
Verdict = Literal["better", "not worse", "inconclusive", "worse", "not assessed"]
Rule = Literal["shown", "estimate", "fail", "tell", "harm"]


@dataclass(frozen=True)
class Check:
    """One number of the gate. A gain above zero is always for the better.

    Args:
        part: ``primary``, ``finding``, ``retrieval``, ``survival``, ``calibration``, ``answers`` or ``subgroup``.
        what: the finding, direction, group; metric: its name; n: rows or patients; present: of them, where labels are.
        before, after: of the two bundles; gain, low, high: after minus before, or the reverse where less is better.
        margin: loss that is too much; verdict: what the interval says of it; rule: how the verdict is judged.
        failed: whether it stops the bundle; note: why it was not assessed.
    """

    part: str
    what: str
    metric: str
    n: int = 0
    present: int | None = None
    before: float | None = None
    after: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    verdict: Verdict = "not assessed"
    rule: Rule = "tell"
    failed: bool = False
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, numbers to six places."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Pair:
    """What both bundles say of one finding on the same n regions.

    Args:
        key: of the finding; labels: (n,) 0 or 1; patients: (n,).
        before, after: (n,) calibrated probabilities.
        said_before, said_after: (n,) verdicts, ``present``, ``absent`` or ``undecided``.
    """

    key: str
    labels: NDArray[np.int64]
    patients: NDArray[np.str_]
    before: Array
    after: Array
    said_before: NDArray[np.str_]
    said_after: NDArray[np.str_]

    @property
    def present(self) -> int:
        """How many regions have the finding."""
        return int(self.labels.sum())

    def enough(self, present: int, absent: int) -> bool:
        """Whether there are so many of both."""
        return self.present >= present and len(self.labels) - self.present >= absent

    def take(self, chosen: NDArray[np.bool_]) -> Pair:
        """Some of the regions."""
        parts = (getattr(self, k)[chosen] for k in ("labels", "patients", "before", "after", "said_before", "said_after"))
        return Pair(self.key, *parts)


@dataclass(frozen=True)
class Judge:
    """How numbers become verdicts.

    Args:
        draws: of patients, shared by all; level: of intervals.
    """

    draws: Draws
    level: float

    def check(
        self, told: Check, values: tuple[Array, Array], margin: float, rule: Rule, *, lower: bool = False, basic: bool = False
    ) -> Check:
        """`told` with its numbers and its verdict.

        Args:
            told: part, what, metric and counts.
            values: (B + 1,) of the old and the new bundle, the cohort's own first.
            margin: loss that is too much.
            rule: ``shown`` fails unless shown not to be worse by the margin; ``harm`` fails where shown to be worse by more;
                the others are those of a policy for what is inconclusive.
            lower: less is better.
            basic: reflect the interval, for statistics that are never negative and so too high in draws.
        """
        before, after = (float(v[0]) for v in values)
        gains = values[0] - values[1] if lower else values[1] - values[0]
        span = interval(gains[1:], self.level)
        if span is None or not np.isfinite(gains[0]):
            return replace(told, margin=margin, rule=rule, note="not defined in most draws of patients")
        gain = float(gains[0])
        low, high = (2 * gain - span[1], 2 * gain - span[0]) if basic else span
        verdict = verdict_of(low, high, margin)
        failed = fails(verdict, gain, margin, rule)
        told = replace(told, before=before, after=after, gain=gain, low=low, high=high)
        return replace(told, margin=margin, verdict=verdict, rule=rule, failed=failed)

    def aurocs(self, pair: Pair) -> tuple[Array, Array]:
        """(B + 1,) AUROC of both."""
        first, second = (self.draws.values(auroc_of(pair.labels, scores), pair.patients) for scores in (pair.before, pair.after))
        return first, second

    def mean_aurocs(self, pairs: Sequence[Pair]) -> tuple[Array, Array]:
        """(B + 1,) mean AUROC over findings, of both."""
        return self.mean([self.aurocs(pair) for pair in pairs])

    @staticmethod
    def mean(found: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
        """(B + 1,) mean over findings, of both."""
        return np.mean([f[0] for f in found], 0), np.mean([f[1] for f in found], 0)

    def briers(self, pair: Pair) -> tuple[Array, Array]:
        """(B + 1,) Brier score of both."""
        first, second = (self._average((p - pair.labels) ** 2, pair) for p in (pair.before, pair.after))
        return first, second

    def gaps(self, pair: Pair) -> tuple[Array, Array]:
        """(B + 1,) distance of mean probability and prevalence, of both."""
        first, second = (np.abs(self._average(p - pair.labels, pair)) for p in (pair.before, pair.after))
        return first, second

    def errors(self, pair: Pair, bins: int) -> tuple[Array, Array]:
        """(B + 1,) expected calibration error of both, in equally filled bins."""
        first, second = (self.draws.values(error_of(pair.labels, p, bins), pair.patients) for p in (pair.before, pair.after))
        return first, second

    def undecided(self, pair: Pair) -> tuple[Array, Array]:
        """(B + 1,) share left undecided, of both."""
        first, second = (self._average(s == "undecided", pair) for s in (pair.said_before, pair.said_after))
        return first, second

    def accuracies(self, pair: Pair) -> tuple[Array, Array]:
        """(B + 1,) mean of the shares of present and of absent that were called so, an undecided one counted as half, of both."""
        first, second = (self._balanced(pair, said) for said in (pair.said_before, pair.said_after))
        return first, second

    def _balanced(self, pair: Pair, said: NDArray[np.str_]) -> Array:
        right = np.where(said == np.where(pair.labels == 1, "present", "absent"), 1.0, np.where(said == "undecided", 0.5, 0.0))
        return np.asarray(np.mean([self._average(np.where(pair.labels == k, right, np.nan), pair) for k in (0, 1)], 0))

    def _average(self, values: Any, pair: Pair) -> Array:
        return self.draws.values(average_of(values), pair.patients)


def verdict_of(low: float, high: float, margin: float) -> Verdict:
    """What an interval of a gain says of a loss of `margin`."""
    if low > -margin:
        return "better" if low > 0 else "not worse"
    return "worse" if high < -margin else "inconclusive"


def fails(verdict: Verdict, gain: float, margin: float, rule: Rule) -> bool:
    """Whether a check stops a bundle."""
    if verdict == "worse":
        return True
    if rule == "shown":
        return verdict not in ("better", "not worse")
    return verdict == "inconclusive" and (rule == "fail" or (rule == "estimate" and gain <= -margin))


def counts(pair: Pair) -> Mapping[str, Any]:
    """`n` and `present` of a check."""
    return {"n": len(pair.labels), "present": pair.present}
