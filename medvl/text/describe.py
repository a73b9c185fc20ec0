"""Every naming of a finding in a text with what goes with it: status, side, lobe and sizes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medvl.text.labels import clauses_of, measures, owner_of
from medvl.text.ontology import Ontology, phrases, table
from medvl.text.report import Where, side_of
from medvl.text.scope import ABSENT, Mention

_EARLIER_SIZE = re.compile(r"(?:previously|formerly|compared (?:with|to)|from|was)(?: \w+){0,2} $", re.IGNORECASE)
_EARLIER_TAIL = re.compile(r"[^,;()]{0,12}\b(?:in|on) the (?:previous|prior|last|old)\b", re.IGNORECASE)
_SIDE = re.compile(r"\b(right|left|bilateral\w*|both|bibas\w+|biapical)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Described:
    """One naming of a finding.

    Args:
        finding: its key in the ontology; status: PRESENT, ABSENT or UNCERTAIN of `medvl.text.scope`.
        side: left, right, both or None; lobe: ``upper``, ``middle`` or ``lower``, or None.
        sizes_mm: largest diameter in mm of each size it is given, without those of an earlier examination.
        words: the clause.
    """

    finding: str
    status: int
    side: Where | None
    lobe: str | None
    sizes_mm: tuple[float, ...]
    words: str


def describe(text: str, ontology: Ontology) -> list[Described]:
    """Every naming of one of the ontology's findings, in order. Places are those of the same clause, the nearest first."""
    found: list[Described] = []
    for clause, named in clauses_of(text, ontology):
        asserted = [m for m in named if m.status != ABSENT]
        sizes: dict[int, list[float]] = {}
        for start, end, mm in measures(clause):
            owner = owner_of(clause, start, asserted)
            if owner and not (_EARLIER_SIZE.search(clause[:start]) or _EARLIER_TAIL.match(clause, end)):
                sizes.setdefault(owner.start, []).append(mm)
        for m in named:
            given = tuple(sizes.get(m.start, ())) if m.status != ABSENT else ()
            found.append(Described(m.finding, m.status, _side(clause, m, len(named) == 1), _lobe(clause, m), given, clause))
    return found


def _side(clause: str, mention: Mention, alone: bool) -> Where | None:
    """The side the clause gives, the nearest to the mention of several; one finding with both sides named is on both."""
    marks = [(_distance(m, mention, clause), side_of(m.group()) or "both") for m in _SIDE.finditer(clause)]
    if alone and {"left", "right"} <= {side for _, side in marks}:
        return "both"
    return min(marks)[1] if marks else None


def _lobe(clause: str, mention: Mention) -> str | None:
    marks = [
        (_distance(m, mention, clause), name)
        for name, words in table("report")["lobes"].items()
        for m in phrases(tuple(words)).finditer(clause)
    ]
    return min(marks)[1] if marks else None


def _distance(mark: re.Match[str], mention: Mention, clause: str) -> int:
    """Characters between, a comma between them counting for thirty."""
    low, high = min(mark.end(), mention.end), max(mark.start(), mention.start)
    return max(high - low, 0) + 30 * clause[low:high].count(",")
