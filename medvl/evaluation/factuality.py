"""Does a draft say what the report says? Presence, side, traits and sizes of findings, read from both by our own extractor.

Every number is F1 = 2 TP / (2 TP + FP + FN) over statements that something is **present**: what a draft leaves open or does not
mention is no statement, so it costs recall, and what the reference does not assert costs precision. Intervals resample patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.text.labels import extract_text
from medvl.text.ontology import Ontology, built_in
from medvl.text.report import parse_report
from medvl.text.scope import ABSENT, PRESENT

ASPECTS = ("presence", "side", "trait", "size")
SIZE_SHARE, SIZE_MM = 0.2, 3.0
Interval = tuple[float, float, float]
Counted = dict[str, dict[str, NDArray[np.int64]]]


@dataclass(frozen=True)
class Facts:
    """What one text states of one patient.

    Args:
        present: findings, whatever their side; sided: (finding, side) of those that have one.
        traits: (trait, side) such as a mass being cystic.
        sizes: (finding, side) to mm.
        absent: (finding or trait, side) said not to be there.
        stated: (finding or trait, side) said to be there.
    """

    present: frozenset[str]
    sided: frozenset[tuple[str, str]]
    traits: frozenset[tuple[str, str]]
    sizes: Mapping[tuple[str, str], float]
    absent: frozenset[tuple[str, str]]
    stated: frozenset[tuple[str, str]]


def facts_of(regions: Mapping[str, str], ontologies: Sequence[Ontology] | None = None) -> Facts:
    """Facts of a text given by region, such as kidney_left; regions that no ontology reads are left out."""
    present, sided, traits, absent, stated = (set() for _ in range(5))  # type: ignore[var-annotated]
    sizes: dict[tuple[str, str], float] = {}
    for ontology in built_in() if ontologies is None else ontologies:
        for region in ontology.regions:
            labels = extract_text(regions.get(region, ""), ontology)
            for kind, finding, side, name in _asked(ontology, region):
                if labels.get(name) == PRESENT:
                    stated.add((finding, side))
                    if kind == "finding":
                        present.add(finding)
                    if kind == "trait":
                        traits.add((finding, side))
                    elif side:
                        sided.add((finding, side))
                elif labels.get(name) == ABSENT:
                    absent.add((finding, side))
            for key, rules in ontology.findings.items():
                size = labels.get(rules.get("size", ""))
                if isinstance(size, float):
                    sizes[key, _side(region)] = size
    return Facts(frozenset(present), frozenset(sided), frozenset(traits), sizes, frozenset(absent), frozenset(stated))


def facts_of_report(text: str, ontologies: Sequence[Ontology] | None = None) -> Facts:
    """Facts of a whole report, whose sentences are given to regions by `parse_report`."""
    return facts_of(parse_report(text).regions, ontologies)


def _asked(ontology: Ontology, region: str) -> Iterator[tuple[str, str, str, str]]:
    """(finding or trait, key, side or "", attribute name) of all that a region may state."""
    own = _side(region)
    for key, rules in ontology.findings.items():
        for side, name in rules.get("sided", {own: key}).items():
            yield "finding", key, side, name
    if ontology.attributes:
        for key in (ontology.attributes["large"]["key"], *ontology.attributes["flags"]):
            yield "trait", key, own, key


def _side(region: str) -> str:
    side = region.rpartition("_")[2]
    return side if side in {"left", "right"} else ""


def compare(draft: Facts, reference: Facts, *, share: float = SIZE_SHARE, mm: float = SIZE_MM) -> dict[str, dict[str, list[int]]]:
    """Aspect to finding to [TP, FP, FN].

    A size is right within `share` of the reference's or `mm`, whichever is more; a wrong one is an FP and an FN.
    """
    out: dict[str, dict[str, list[int]]] = {aspect: {} for aspect in ASPECTS}
    pairs = (
        ("presence", {(k, "") for k in draft.present}, {(k, "") for k in reference.present}),
        ("side", set(draft.sided), set(reference.sided)),
        ("trait", set(draft.traits), set(reference.traits)),
    )
    for aspect, said, true in pairs:
        for fact in said | true:
            counts = out[aspect].setdefault(fact[0], [0, 0, 0])
            counts[0 if fact in said & true else 1 if fact in said else 2] += 1
    for place in draft.sizes.keys() | reference.sizes.keys():
        counts = out["size"].setdefault(place[0], [0, 0, 0])
        a, b = draft.sizes.get(place), reference.sizes.get(place)
        near = a is not None and b is not None and abs(a - b) <= max(share * b, mm)
        counts[0] += near
        counts[1] += a is not None and not near
        counts[2] += b is not None and not near
    return out


def contradictions(draft: Facts, reference: Facts) -> tuple[int, int]:
    """How many of a draft's statements, present or absent, the reference contradicts; and how many it makes."""
    wrong = len(draft.stated & reference.absent) + len(draft.absent & reference.stated)
    return wrong, len(draft.stated) + len(draft.absent)


@dataclass(frozen=True, eq=False)
class Factuality:
    """Counts of a set of drafts, a patient a row.

    Args:
        patients: (P,) ids, sorted; counts: aspect to finding to (P, 3) TP, FP, FN.
        wrong: (P, 2) contradicted statements, statements.
    """

    patients: tuple[str, ...]
    counts: Counted
    wrong: NDArray[np.int64]

    def scores(self, *, draws: int = 1000, seed: int = 0) -> dict[str, Interval]:
        """Micro and macro F1 of each aspect as ``presence micro``, and ``contradicted``: value with its 95 % interval by patient.

        An aspect of which neither the drafts nor the reports state anything is NaN. Macro is the mean over findings that a report
        states somewhere; in a draw where one is nowhere stated, over the others.
        """
        rows = resamples(len(self.patients), draws, seed)
        every = np.concatenate([np.arange(len(self.patients))[None], rows])
        return {name: _interval(values) for name, values in self.values(every).items()}

    def values(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """(D,) of every score, for (D, P) picks of patients."""
        times = np.stack([np.bincount(row, minlength=len(self.patients)) for row in rows])
        out: dict[str, NDArray[np.float64]] = {}
        for aspect, findings in self.counts.items():
            told = {key: times @ table for key, table in findings.items()}
            stated = [f1(sums) for key, sums in told.items() if findings[key][:, [0, 2]].sum()]
            zero = np.zeros((len(rows), 3), np.int64)
            out[f"{aspect} micro"] = f1(sum(told.values(), zero))
            with np.errstate(invalid="ignore"):
                table = np.array(stated).reshape(len(stated), len(rows))
                known = np.isfinite(table)
                out[f"{aspect} macro"] = np.where(known, table, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
        wrong = times @ self.wrong
        out["contradicted"] = wrong[:, 0] / np.where(wrong[:, 1] > 0, wrong[:, 1], np.nan)
        return out

    def less(self, other: Factuality, *, draws: int = 1000, seed: int = 0) -> dict[str, Interval]:
        """This one's scores less another's on the same patients, with paired 95 % intervals.

        Raises:
            ConfigError: other patients.
        """
        if self.patients != other.patients:
            raise ConfigError("factuality can be compared on the same patients only")
        n = len(self.patients)
        every = np.concatenate([np.arange(n)[None], resamples(n, draws, seed)])
        mine, theirs = self.values(every), other.values(every)
        return {name: _interval(mine[name] - theirs[name]) for name in mine}


def factuality(
    drafts: Sequence[Mapping[str, str]],
    references: Sequence[Mapping[str, str]],
    patients: Sequence[str],
    ontologies: Sequence[Ontology] | None = None,
) -> Factuality:
    """Counts over drafts and reference reports.

    Args:
        drafts: region to text of each.
        references: region to text of each report.
        patients: whose each is; several of one patient are added up.
        ontologies: of the extractor; by default the built-in ones.

    Raises:
        ConfigError: no drafts, or lengths that differ.
    """
    if not drafts or not len(drafts) == len(references) == len(patients):
        raise ConfigError(f"{len(drafts)} drafts, {len(references)} reports and {len(patients)} patients; give one of each")
    names, row = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    counts: Counted = {aspect: {} for aspect in ASPECTS}
    wrong = np.zeros((len(names), 2), np.int64)
    for place, draft, reference in zip(row, drafts, references, strict=True):
        said, true = facts_of(draft, ontologies), facts_of(reference, ontologies)
        wrong[place] += contradictions(said, true)
        for aspect, findings in compare(said, true).items():
            for key, three in findings.items():
                counts[aspect].setdefault(key, np.zeros((len(names), 3), np.int64))[place] += three
    return Factuality(tuple(map(str, names)), counts, wrong)


def f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(...,) F1 of TP, FP, FN in the last axis; NaN where there is none of them."""
    tp, fp, fn = np.moveaxis(counts.astype(np.float64), -1, 0)
    below = 2 * tp + fp + fn
    return np.asarray(2 * tp / np.where(below > 0, below, np.nan))


def resamples(n: int, draws: int, seed: int) -> NDArray[np.int64]:
    """(draws, n) patients drawn with replacement."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(n, size=n) for _ in range(draws)])


def _interval(values: NDArray[np.float64]) -> Interval:
    """The first value with the middle 95 % of the rest."""
    rest = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(rest, [0.025, 0.975]) if len(rest) else (np.nan, np.nan)
    return float(values[0]), float(low), float(high)
