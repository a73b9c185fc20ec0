"""Which patient is in which split: given, held out by site, or drawn from a hash; those who may be one patient stay together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from medvl.data.table import SPLITS
from medvl.dataset.leaks import Pair
from medvl.imaging.phantom.write import split_of

Policy = Literal["refuse", "allow", "join"]
_STRICT = {"test": 2, "validation": 1, "train": 0}


@dataclass(frozen=True)
class Who:
    """What decides on a case's split: its patient, the split that the table gives (or empty), and its site."""

    patient: str
    split: str
    site: str


@dataclass(frozen=True)
class Splits:
    """Who is where.

    Args:
        of: split of each case.
        conflicts: pairs of cases of one patient to whom the table gives different splits.
        moved: patients whose given split was changed, by why: held_out, joined.
        both_sites: patients seen at a held-out site and at another; all of them are in test.
        largest: patients in the largest group that was kept together.
    """

    of: tuple[str, ...]
    conflicts: tuple[Pair, ...] = ()
    moved: Mapping[str, int] = field(default_factory=dict)
    both_sites: int = 0
    largest: int = 1


def assign(
    cases: Sequence[Who], pairs: Iterable[Pair], *, seed: int = 0, held_out: Sequence[str] = (), policy: Policy = "refuse"
) -> Splits:
    """The split of every case.

    Where splits are drawn, patients of a pair are drawn together, whatever the policy: nothing is lost by it. Where the table
    gives splits that part a pair, ``join`` moves all to the strictest of them (test before validation before train), and
    ``refuse`` and ``allow`` leave them.

    Args:
        cases: in order.
        pairs: cases that may be one patient.
        seed: of the draw.
        held_out: sites whose patients are for testing, all of them.
        policy: what to do with given splits that part a pair.
    """
    given: dict[str, list[str]] = {}
    for case in cases:
        if case.split:
            given.setdefault(case.patient, []).append(case.split)
    first = {patient: splits[0] for patient, splits in given.items()}
    conflicts = [] if policy == "join" else _conflicts(cases, first)
    wanted = {p: max(s, key=_STRICT.__getitem__) if policy == "join" else s[0] for p, s in given.items()}
    at_site = {case.patient for case in cases if case.site in held_out}
    both = {case.patient for case in cases if case.patient in at_site and case.site not in held_out}
    moved = {"held_out": sum(wanted.get(p, "test") != "test" for p in at_site)}
    wanted |= dict.fromkeys(at_site, "test")
    groups = _groups([case.patient for case in cases], pairs, cases)
    out: dict[str, str] = {}
    for group in groups:
        told = [wanted[p] for p in group if p in wanted]
        together = max(told, key=_STRICT.__getitem__) if told else split_of(seed, min(group))
        out |= {p: together if policy == "join" else wanted.get(p, together) for p in group}
    moved["joined"] = sum(out[p] != split for p, split in first.items() if p not in at_site)
    rows = tuple(out[c.patient] if policy == "join" or c.patient in at_site else c.split or out[c.patient] for c in cases)
    return Splits(rows, tuple(conflicts), {k: n for k, n in moved.items() if n}, len(both), max(map(len, groups), default=1))


def _conflicts(cases: Sequence[Who], first: Mapping[str, str]) -> list[Pair]:
    """Rows of a patient in another split than the patient's first row that has one."""
    lead: dict[str, int] = {}
    found = []
    for k, case in enumerate(cases):
        if case.split:
            start = lead.setdefault(case.patient, k)
            if case.split != first[case.patient]:
                found.append(Pair(start, k, "patient", 1.0))
    return found


def _groups(patients: Sequence[str], pairs: Iterable[Pair], cases: Sequence[Who]) -> list[list[str]]:
    """Patients who are linked by pairs, in any number of steps."""
    root = {patient: patient for patient in patients}

    def find(patient: str) -> str:
        while root[patient] != patient:
            root[patient] = root[root[patient]]
            patient = root[patient]
        return patient

    for pair in pairs:
        a, b = find(cases[pair.first].patient), find(cases[pair.second].patient)
        root[max(a, b)] = min(a, b)
    out: dict[str, list[str]] = {}
    for patient in root:
        out.setdefault(find(patient), []).append(patient)
    return list(out.values())


def counts(splits: Iterable[str]) -> dict[str, int]:
    """How many in each split, all splits named."""
    found = list(splits)
    return {split: found.count(split) for split in SPLITS}
