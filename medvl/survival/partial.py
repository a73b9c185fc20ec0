"""Cox's log partial likelihood with its gradient and information, in numpy, stratum by stratum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.objectives.cox import Ties
from medvl.survival.steps import Baseline, checked

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Stratum:
    """Patients of one stratum in rising order of time.

    Args:
        x: (N, P); time: (N,); event: (N,) bool; weights: (N,).
        deaths: (D,) rows with an event; first: (D,) first row of each death's risk set.
        tie: (D,) number of the tie a death belongs to, rising with time; share: (D,) of the tie's deaths that are taken out
            of its risk set (0 everywhere for Breslow); mean: (D,) mean weight of the tie's deaths.
    """

    x: Array
    time: Array
    event: NDArray[np.bool_]
    weights: Array
    deaths: Index
    first: Index
    tie: Index
    share: Array
    mean: Array

    def risk_sums(self, beta: Array) -> tuple[Array, Array, float]:
        """(N,) weighted exp(risk - top); (D,) what every death is compared with, on the same scale; and top."""
        risk = self.x @ beta
        top = float(risk.max(initial=0.0))
        size = self.weights * np.exp(risk - top)
        at_risk = np.cumsum(size[::-1])[::-1][self.first]
        died = np.bincount(self.tie, size[self.deaths])[self.tie] if len(self.tie) else np.zeros(0)
        return size, at_risk - self.share * died, top

    def baseline(self, beta: Array) -> Baseline:
        """Cumulative hazard at x = 0: Breslow's, or the one that belongs to Efron's ties."""
        _, compared, top = self.risk_sums(beta)
        moments = self.time[self.deaths]
        steps = self.mean / compared * np.exp(-top)
        times, index = np.unique(moments, return_inverse=True)
        total = np.cumsum(np.bincount(index, steps, len(times)), dtype=np.float64)
        return Baseline(times, total, float(self.time.max()))


@dataclass(frozen=True, eq=False)
class Data:
    """Checked input of a fit: centred x (N, P), standard deviations, strata."""

    x: Array
    center: Array
    scale: Array
    time: Array
    event: NDArray[np.bool_]
    weights: Array
    names: tuple[str, ...]
    rows: tuple[Index, ...]
    ties: Ties

    @property
    def mass(self) -> float:
        """Weighted number of events."""
        return float(self.weights[self.event].sum())

    def strata_rows(self, x: Array) -> list[Stratum]:
        """Strata over the columns `x`, which has the rows of this."""
        return [_stratum(x[r], self.time[r], self.event[r], self.weights[r], self.ties) for r in self.rows]


def prepare(
    x: ArrayLike, time: ArrayLike, event: ArrayLike, strata: ArrayLike | None, weights: ArrayLike | None, ties: Ties
) -> Data:
    """Check and centre.

    Raises:
        ConfigError: shapes differ, values are not finite or out of range, or there is no event.
    """
    t, e = checked(time, event)
    rows = np.asarray(x, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(t) or not np.isfinite(rows).all():
        raise ConfigError(f"features {rows.shape} must be finite rows for {len(t)} patients; fill in what is missing first")
    if ties not in ("breslow", "efron"):
        raise ConfigError(f"ties are handled by breslow or efron, not {ties}")
    if not e.any():
        raise ConfigError(f"none of {len(t)} patients has an event: there is nothing to fit")
    w = np.ones(len(t)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != t.shape or not (np.isfinite(w).all() and (w > 0).all()):
        raise ConfigError(f"case weights {w.shape} must be positive, one for each of {len(t)} patients")
    labels = np.array(["all"] * len(t)) if strata is None else np.asarray(strata).astype(str)
    if labels.shape != t.shape:
        raise ConfigError(f"{labels.shape} strata for {len(t)} patients")
    names = tuple(str(s) for s in np.unique(labels))
    center = np.average(rows, axis=0, weights=w) if rows.shape[1] else np.zeros(0)
    spread = np.sqrt(np.average((rows - center) ** 2, axis=0, weights=w)) if rows.shape[1] else np.zeros(0)
    scale = np.where(spread > 1e-12 * np.maximum(1.0, np.abs(center)), spread, 0.0)
    places = tuple(np.flatnonzero(labels == s) for s in names)
    return Data(rows - center, center, scale, t, e, w, names, places, ties)


def _stratum(x: Array, time: Array, event: NDArray[np.bool_], weights: Array, ties: Ties) -> Stratum:
    order = np.argsort(time, kind="stable")
    x, time, event, weights = x[order], time[order], event[order], weights[order]
    deaths = np.flatnonzero(event)
    _, start, tie, count = np.unique(time[deaths], return_index=True, return_inverse=True, return_counts=True)
    share = (np.arange(len(deaths)) - start[tie]) / count[tie]
    mean = (np.bincount(tie, weights[deaths]) / count)[tie] if len(deaths) else np.zeros(0)
    first = np.searchsorted(time, time[deaths], side="left")
    if ties == "breslow":
        share, mean = np.zeros(len(deaths)), weights[deaths]
    return Stratum(x, time, event, weights, deaths, first, tie, share, mean)


def likelihood(part: Stratum, beta: Array) -> float:
    """Log partial likelihood of a stratum; minus infinity where risks lie so far apart that a risk set counts for nothing."""
    _, compared, top = part.risk_sums(beta)
    if not (compared > 0).all():
        return -np.inf
    return float(part.weights[part.deaths] @ (part.x[part.deaths] @ beta) - part.mean @ (np.log(compared) + top))


def information(parts: Sequence[Stratum], beta: Array) -> tuple[Array, Array]:
    """(P,) gradient and (P, P) observed information, in time N P^2 and memory N P.

    A risk set's second moment is a sum over its patients, so over all deaths it is X' diag(a) X, where a patient's a is its
    exp(risk) times the sum of 1 / S0 over the deaths whose risk set it is in; what remains is an outer product of means.
    """
    gradient, curvature = np.zeros(len(beta)), np.zeros((len(beta), len(beta)))
    for part in parts:
        if not len(part.deaths):
            continue
        size, compared, _ = part.risk_sums(beta)
        inverse = part.mean / compared
        # every death's 1 / S0 counts for all from its risk set's first row on, less the share of its tie's own deaths
        over = np.cumsum(np.bincount(part.first, inverse, len(size)))
        over[part.deaths] -= np.bincount(part.tie, inverse * part.share)[part.tie]
        curvature += (part.x * (size * over)[:, None]).T @ part.x
        moved = part.x * size[:, None]
        sums = np.cumsum(moved[::-1], axis=0)[::-1][part.first]
        ties = np.zeros((int(part.tie[-1]) + 1, len(beta)))
        np.add.at(ties, part.tie, moved[part.deaths])
        means = (sums - part.share[:, None] * ties[part.tie]) / compared[:, None]
        gradient += part.weights[part.deaths] @ part.x[part.deaths] - part.mean @ means
        curvature -= (means * part.mean[:, None]).T @ means
    return gradient, curvature
