"""A region's text clause by clause: what each one states, by the same rules as the labels of the whole text, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from medvl.text.labels import CLAUSE, Reading, Value, read_clause
from medvl.text.ontology import Anatomy, Ontology, phrases
from medvl.text.report import split_sentences
from medvl.text.scope import ABSENT, implied_absent, mentions

NOWHERE = Anatomy("unspecified", "place not stated")
_KNOWN_ALREADY = re.compile(r"\b(?:the|this|that)\s+$", re.IGNORECASE)


@dataclass(frozen=True)
class Said:
    """One clause.

    Args:
        sentence: its number in the text; words: the clause.
        status: attributes that it names, with their status.
        values: sizes, grades and places that it gives.
        goes_on: the finding that it goes on about without naming any.
    """

    sentence: int
    words: str
    status: Mapping[str, int]
    values: Mapping[str, Value]
    goes_on: str | None = None


def said(text: str, ontology: Ontology) -> Iterator[Said]:
    """Every clause of a text, in order; what a normal statement rules out comes as a clause without words."""
    reading = Reading()
    for number, sentence in enumerate(split_sentences(text)):
        for words in CLAUSE.split(sentence):
            focus, reading = reading.focus, replace(reading, status={}, values={})
            read_clause(words, ontology, reading)
            yield Said(number, words, reading.status, reading.values, None if mentions(words, ontology) else focus)
        keys = implied_absent(sentence, ontology)
        implied = [name for key in ontology.findings if key in keys for name in ontology.named(key)]
        if implied:
            yield Said(number, "", dict.fromkeys(implied, ABSENT), {})


def binary_attributes(ontology: Ontology) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(key, side or "", rules) of each present-or-absent attribute, in order."""
    for key, rules in ontology.findings.items():
        for side, name in rules.get("sided", {"": key}).items():
            yield name, side, rules
    if ontology.attributes:
        yield ontology.attributes["large"]["key"], "", ontology.attributes["large"]
        for key, rules in ontology.attributes["flags"].items():
            yield key, "", rules


def allowed_at(key: str, ontology: Ontology) -> tuple[str, ...]:
    """Where an attribute can lie; empty for everywhere."""
    for name, side, rules in binary_attributes(ontology):
        if name == key:
            at = rules.get("at", ())
            return tuple(at[side] if isinstance(at, Mapping) else at)
    return ()


def home(key: str, ontology: Ontology) -> str:
    """Where an attribute stands when nothing is said of its place."""
    allowed = allowed_at(key, ontology)
    return allowed[0] if allowed else next((p.key for p in ontology.anatomies if not p.terms), NOWHERE.key)


def places_of(clause: Said, ontology: Ontology) -> dict[str, str]:
    """Place of each attribute that the clause names or goes on about, where it names a place fit for it.

    It is the nearest one with no finding of other status between. "The mass" with a place of its own tells no new place.
    """
    hits = [(m.start(), m.end(), p.key) for p in ontology.anatomies if p.terms for m in phrases(p.terms).finditer(clause.words)]
    if clause.goes_on:
        names = ontology.named(clause.goes_on)
        first = {name: [place for _, _, place in sorted(hits) if _fits(place, name, ontology)] for name in names}
        return {name: fitting[0] for name, fitting in first.items() if fitting}
    found = mentions(clause.words, ontology)
    places: dict[str, str] = {}
    for mention in found:
        others = [m.start for m in found if m.status != mention.status]
        near = [
            (max(start - mention.end, mention.start - end, 0), place)
            for start, end, place in hits
            if not any(min(end, mention.end) <= at < max(start, mention.start) for at in others)
        ]
        for name in ontology.named(mention.finding):
            fitting = [(gap, place) for gap, place in near if _fits(place, name, ontology)]
            if fitting:
                places.setdefault(name, min(fitting)[1])
    return places


def _fits(place: str, name: str, ontology: Ontology) -> bool:
    allowed = allowed_at(name, ontology)
    return not allowed or place in allowed


def named_before(clause: Said, key: str, ontology: Ontology) -> bool:
    """Whether every naming of a finding in the clause takes it as known: "the mass", "this cyst"."""
    starts = [m.start for m in mentions(clause.words, ontology) if m.finding == key]
    return bool(starts) and all(_KNOWN_ALREADY.search(clause.words[:start]) for start in starts)
