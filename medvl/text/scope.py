"""Which findings a clause names, and whether it says they are there: scope of negation and of doubt. Rules only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from medvl.text.ontology import Ontology, phrases, table

PRESENT, ABSENT, UNMENTIONED, UNCERTAIN = 1, 0, -1, 2
_REACH = 250  # how far behind a mention a cue may stand, in characters
_ASIDE = re.compile(
    r", (?:which|that|who)\b[^,]*,"
    r"|\b(?:which |that )?(?:was |were )?(?:observed|described|seen|detected|defined|reported)(?: \w+){0,2} (?:previous|prior|last|old)(?: \w+)?",
    re.IGNORECASE,
)
_PRESUPPOSED = re.compile(r"\b(?:within|inside|in|of) (?:the|this|that) (?:(?!kidney)\w+ ){0,2}$", re.IGNORECASE)
_VERB = re.compile(r"\b(?:is|are|was|were|seen|with|measur\w+|shows?|contains?)\b|[;:.]", re.IGNORECASE)


@dataclass(frozen=True)
class Mention:
    """One naming of a finding: its key, where in the sentence, and whether it is asserted."""

    finding: str
    start: int
    end: int
    status: int


def implied_absent(sentence: str, ontology: Ontology) -> set[str]:
    """Findings that a normal statement on their organ rules out."""
    keys: set[str] = set()
    normal = phrases(tuple(table("cues")["normal"]))
    for clause in re.split(r"[;.]|,(?! (?:and )?\w+ (?:is|are))|\bapart from\b|\bexcept\b", sentence):
        word = normal.search(clause)
        if word and not re.search(r"\bnot (?:\w+ )?$", clause[: word.start()], re.IGNORECASE):
            for rule in ontology.normal:
                if phrases(tuple(rule["subjects"])).search(clause):
                    keys |= set(rule["absent"])
    return keys


@lru_cache(maxsize=1 << 15)
def mentions(clause: str, ontology: Ontology) -> tuple[Mention, ...]:
    """Findings that a clause names, in order, with their status; each stretch of text is used once, bar by `shares`."""
    found: list[Mention] = []
    taken: list[tuple[int, int, str]] = []
    for start, end, key, absent in _hits(clause, ontology):
        shares = ontology.findings[key].get("shares", False)
        if not any(start < e and s < end and (not shares or k == key) for s, e, k in taken):
            taken.append((start, end, key))
            found.append(Mention(key, start, end, ABSENT if absent else _stated(clause, start, end, key, ontology)))
    if not any(m.status != ABSENT for m in found):
        for key, finding in ontology.findings.items():
            for m in phrases(tuple(finding.get("weak", ()))).finditer(clause):
                if not any(m.start() < e and s < m.end() for s, e, _ in taken):
                    found.append(Mention(key, m.start(), m.end(), _stated(clause, m.start(), m.end(), key, ontology)))
    return tuple(sorted(found, key=lambda m: m.start))


def _hits(clause: str, ontology: Ontology) -> list[tuple[int, int, str, bool]]:
    """(start, end, finding, called absent by its own wording) of every term in a clause; absent wording and long ones first."""
    hits: list[tuple[int, int, str, bool]] = []
    for key, finding in ontology.findings.items():
        blind = [m.span() for m in phrases(tuple(finding.get("unless", ()))).finditer(clause)]
        for kind in ("absent", "terms"):
            for m in phrases(tuple(finding.get(kind, ()))).finditer(clause):
                if not any(m.start() < e and s < m.end() for s, e in blind):
                    hits.append((m.start(), m.end(), key, kind == "absent"))
    return sorted(hits, key=lambda h: (not h[3], h[0] - h[1], h[0]))


def at_home(mention: Mention, clause: str, finding: Mapping[str, Any], last: bool) -> bool:
    """Whether a mention speaks of the finding's own organ: by the nearest place the clause names, else by the last one before."""
    marks = place_marks(clause, tuple(finding.get("home", ())), tuple(finding.get("elsewhere", ())))
    if not marks:
        return last
    return min(marks, key=lambda mark: max(mark[0] - mention.end, mention.start - mark[1]))[2]


@lru_cache(maxsize=1 << 12)
def place_marks(clause: str, home: tuple[str, ...], elsewhere: tuple[str, ...]) -> tuple[tuple[int, int, bool], ...]:
    """(start, end, is home) of the places in a clause, in order."""
    marks = [
        (m.start(), m.end(), kind) for kind, words in ((True, home), (False, elsewhere)) for m in phrases(words).finditer(clause)
    ]
    return tuple(sorted(marks))


def _stated(clause: str, start: int, end: int, key: str, ontology: Ontology) -> int:
    """`_status`, except that "no necrosis within the mass" takes the mass for granted."""
    if key == ontology.attributes.get("of") and _PRESUPPOSED.search(clause[:start]):
        return PRESENT
    return status_of(clause, start, end)


def status_of(clause: str, start: int, end: int) -> int:
    """Present, absent or uncertain, for the words at `start`:`end` of a clause."""
    cues = {name: tuple(words) for name, words in table("cues").items()}
    masked = phrases(cues["pseudo_negation"]).sub(lambda m: "#" * len(m.group()), clause)
    stops = [m.end() for m in phrases(cues["negation_stop"], False).finditer(masked[:start])]
    before, after = masked[stops[-1] if stops else 0 : end], masked[end : end + _REACH]
    if after.lstrip().startswith("?") or any(_near(after, m) for m in phrases(cues["uncertain_after"]).finditer(after)):
        return UNCERTAIN
    if phrases(cues["negation_before"]).search(before) or any(
        _near(after, m) for m in phrases(cues["negation_after"]).finditer(after)
    ):
        return ABSENT
    return UNCERTAIN if phrases(cues["uncertain_before"]).search(before) else PRESENT


def _near(after: str, cue: re.Match[str]) -> bool:
    """A cue that follows applies when no other statement lies between; its own verb does not count."""
    gap = re.sub(r"\b(?:is|are|was|were)\s*$", "", _ASIDE.sub(" ", after[: cue.start()]))
    return not _VERB.search(gap)
