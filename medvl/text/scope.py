"""Which findings a clause names, and whether it says they are there: scope of negation and of doubt. Rules only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from medvl.text.ontology import Ontology, phrases, table

PRESENT, ABSENT, UNMENTIONED, UNCERTAIN = 1, 0, -1, 2
_REACH = 250  # how far behind a mention a cue may stand, in characters
_ASIDE = re.compile(  # what a sentence says of an earlier examination, or in passing, before it comes to its verb
    r", (?:which|that|who)\b[^,]*,"
    r"|\b(?:which |that )?(?:was |were )?(?:observed|described|seen|detected|defined|reported)"
    r"(?: \w+){0,2} (?:previous|prior|last|old)(?: \w+)?",
    re.IGNORECASE,
)
_LISTED_NORMAL = re.compile(r"\s*:\s*(?:normal|none|no|nil|unremarkable|negative|absent|clear)\b", re.IGNORECASE)
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
    for key, absent, terms, unless in _patterns(ontology):
        own = [(m.start(), m.end(), key, kind) for kind, p in ((True, absent), (False, terms)) for m in p.finditer(clause)]
        if own:
            blind = [m.span() for m in unless.finditer(clause)]
            hits += [hit for hit in own if not any(hit[0] < e and s < hit[1] for s, e in blind)]
    return sorted(hits, key=lambda h: (not h[3], h[0] - h[1], h[0]))


@lru_cache(maxsize=64)
def _patterns(ontology: Ontology) -> tuple[tuple[str, re.Pattern[str], re.Pattern[str], re.Pattern[str]], ...]:
    """(finding, absent wording, terms, wording that hides terms) of each finding."""
    kinds = ("absent", "terms", "unless")
    return tuple((key, *(phrases(tuple(f.get(kind, ()))) for kind in kinds)) for key, f in ontology.findings.items())  # type: ignore[misc]


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
    masked = _cue("pseudo_negation").sub(lambda m: "#" * len(m.group()), clause)
    stops = [m.end() for m in _cue("negation_stop", False).finditer(masked[:start])]
    before, after = masked[stops[-1] if stops else 0 : end], masked[end : end + _REACH]
    if _LISTED_NORMAL.match(after):
        return ABSENT
    if after.lstrip().startswith("?") or any(_near(after, m) for m in _cue("uncertain_after").finditer(after)):
        return UNCERTAIN
    if _cue("negation_before").search(before) or any(_near(after, m) for m in _cue("negation_after").finditer(after)):
        return ABSENT
    return UNCERTAIN if _cue("uncertain_before").search(before) else PRESENT


@cache
def _cue(name: str, edges: bool = True) -> re.Pattern[str]:
    return phrases(tuple(table("cues")[name]), edges)


def _near(after: str, cue: re.Match[str]) -> bool:
    """A cue that follows applies when no other statement lies between; its own verb does not count."""
    gap = re.sub(r"\b(?:is|are|was|were)\s*$", "", _ASIDE.sub(" ", after[: cue.start()]))
    return not _VERB.search(gap)
