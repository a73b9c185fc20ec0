"""Attributes that a report states, by rules: findings with negation and doubt, sizes with units, grades and places.

Values: 1 present, 0 absent, -1 unmentioned, 2 uncertain; sizes are float mm or None; grades and poles are words or None.
"likely" and "probable" count as present, "possible" and "may represent" as uncertain. Over a report, present wins over
uncertain, uncertain over absent; "the kidneys are unremarkable" makes what the ontology's `normal` rule lists absent where
nothing else is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from medvl.text.ontology import Ontology, built_in, phrases
from medvl.text.report import StructuredReport, side_pieces, split_sentences
from medvl.text.scope import (
    ABSENT,
    PRESENT,
    UNCERTAIN,
    UNMENTIONED,
    Mention,
    at_home,
    implied_absent,
    mentions,
    place_marks,
    status_of,
)

WHOLE = "report"  # the region of ontologies that read findings and impression as they are
Value = float | int | str | None
_NUMBER = r"\d+(?:[.,]\d+)?"
_MEASURE = re.compile(
    rf"(?<![\w.])({_NUMBER}(?:\s*(?:mm|cm)?\s*(?:x|×|by|\*)\s*{_NUMBER}){{0,2}})[\s-]*(mm|cm|millimet\w+|centimet\w+)\b",
    re.IGNORECASE,
)
_MEASURE_LEADS = re.compile(
    r"(?:measur\w+|of|to|at|is|diameter|depth|thickness|size|spans?|[(,:])(?: (?:up|about|approximately|around|to))*\s*$",
    re.IGNORECASE,
)
CLAUSE = re.compile(
    r"\s*;\s*(?![^()]*\))|(?<!compatible)(?<!consistent)(?<!keeping),? (?:and|plus|as well as|with) "
    r"(?=(?:an?|another|there|several|multiple|two|three) )",
    re.IGNORECASE,
)


@dataclass
class Reading:
    """What has been gathered of one region so far."""

    status: dict[str, int] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    focus: str | None = None
    elsewhere: set[str] = field(default_factory=set)

    def add(self, key: str, status: int) -> None:
        """Present wins over uncertain, uncertain over absent."""
        rank = {UNMENTIONED: 0, ABSENT: 1, UNCERTAIN: 2, PRESENT: 3}
        if rank[status] > rank[self.status.get(key, UNMENTIONED)]:
            self.status[key] = status


def extract(report: StructuredReport, ontologies: Sequence[Ontology] | None = None) -> dict[str, dict[str, Value]]:
    """Attributes of each region of a report, from its words alone.

    Args:
        report: from `parse_report`.
        ontologies: what to look for; by default the built-in kidney and heart tables.

    Returns:
        Region name to attribute name to value; every attribute of the region's ontology is there.
    """
    tables = built_in() if ontologies is None else ontologies
    texts = report.regions | {WHOLE: report.said()}
    return {region: extract_text(texts.get(region, ""), o) for o in tables for region in o.regions}


def extract_text(text: str, ontology: Ontology) -> dict[str, Value]:
    """Attributes stated in the text of one region. See `extract` for the values."""
    reading = Reading()
    implied: set[str] = set()
    for sentence in split_sentences(text):
        implied |= implied_absent(sentence, ontology)
        for clause in CLAUSE.split(sentence):
            read_clause(clause, ontology, reading)
    for key in implied:
        for name in _sided(key, ontology):
            reading.add(name, ABSENT)
    return _finish(reading, ontology)


def _sided(key: str, ontology: Ontology) -> list[str]:
    return list(ontology.findings[key].get("sided", {"": key}).values())


def _finish(reading: Reading, ontology: Ontology) -> dict[str, Value]:
    """Every attribute, with what nobody mentioned filled in."""
    out: dict[str, Value] = {}
    for key, finding in ontology.findings.items():
        for name in _sided(key, ontology):
            out[name] = reading.status.get(name, UNMENTIONED)
        for extra in ("size", "grade"):
            if extra in finding:
                out[finding[extra]] = reading.values.get(finding[extra])
    rules = ontology.attributes
    if rules:
        exists = reading.status.get(rules["of"]) in {PRESENT, UNCERTAIN}
        large, size = rules["large"], out.get(rules["large"]["size"])
        out[large["key"]] = UNMENTIONED if not isinstance(size, float) else int(size >= large["at_least_mm"])
        out |= {key: reading.status.get(key, UNMENTIONED) if exists else UNMENTIONED for key in rules["flags"]}
        out |= {key: reading.values.get(key) if exists else None for key in rules["choice"]}
    return out | {key: reading.values.get(key) for key in ontology.measures}


def clauses_of(text: str, ontology: Ontology) -> Iterator[tuple[str, list[Mention]]]:
    """Every clause of a text and its mentions that speak of their own organ."""
    reading = Reading()
    for sentence in split_sentences(text):
        for clause in CLAUSE.split(sentence):
            yield clause, _placed(clause, ontology, reading)


def read_clause(clause: str, ontology: Ontology, reading: Reading) -> None:
    """Add what one clause states to a reading."""
    found = _placed(clause, ontology, reading)
    for mention in found:
        for name in _named(mention, clause, ontology):
            reading.add(name, mention.status)
        grade = ontology.findings[mention.finding].get("grade")
        if grade and mention.status == PRESENT:
            reading.values.setdefault(grade, _grade(clause, ontology.findings[mention.finding]["grades"]))
    lengths = _organ_measures(clause, ontology, found, reading)
    asserted = [m for m in found if m.status != ABSENT]
    _read_sizes(clause, asserted, ontology, reading, lengths)
    _read_attributes(clause, found, ontology, reading)
    if asserted:
        reading.focus = asserted[-1].finding


def _placed(clause: str, ontology: Ontology, reading: Reading) -> list[Mention]:
    """The clause's mentions that speak of their own organ; what it names last is kept for the clauses after it."""
    found = [
        m
        for m in mentions(clause, ontology)
        if at_home(m, clause, ontology.findings[m.finding], m.finding not in reading.elsewhere)
    ]
    for key, finding in ontology.findings.items():
        if "home" in finding:
            marks = place_marks(clause, tuple(finding["home"]), tuple(finding["elsewhere"]))
            if marks:
                (reading.elsewhere.discard if marks[-1][2] else reading.elsewhere.add)(key)
    return found


def _grade(clause: str, grades: Mapping[str, Sequence[str]]) -> str | None:
    return next((name for name, words in grades.items() if phrases(tuple(words)).search(clause)), None)


def _named(mention: Mention, clause: str, ontology: Ontology) -> list[str]:
    """Attribute names of a mention: itself, or one a side that the clause gives it."""
    sided: Mapping[str, str] = ontology.findings[mention.finding].get("sided", {})
    if not sided:
        return [mention.finding]
    offset = 0
    for side, piece in side_pieces(clause):
        at = clause.find(piece, offset)
        if at >= 0 and at <= mention.start < at + len(piece) + 1:
            return [sided[side]] if side is not None and side in sided else list(sided.values())
        offset = max(at, offset)
    return list(sided.values())


def measures(text: str) -> Iterator[tuple[int, int, float]]:
    """(start, end, largest diameter in mm) of each length in a text, such as "2.3 x 2.1 cm"."""
    for match in _MEASURE.finditer(text):
        factor = 10.0 if match.group(2).lower().startswith("c") else 1.0
        numbers = [float(n.replace(",", ".")) for n in re.findall(_NUMBER, match.group(1))]
        yield match.start(), match.end(), round(max(numbers) * factor, 3)


def _organ_measures(clause: str, ontology: Ontology, found: Sequence[Mention], reading: Reading) -> set[int]:
    """Lengths of the organ itself; returns where they start, so that no finding takes them."""
    used: set[int] = set()
    for key, rule in ontology.measures.items():
        if not phrases(tuple(rule["needs"])).search(clause):
            continue
        lead = re.compile(rf"(?:{'|'.join(rule['before'])})\s*$", re.IGNORECASE) if rule["before"] else None
        tail = re.compile(rf"\s*(?:{'|'.join(rule['after'])})(?!\w)", re.IGNORECASE) if rule["after"] else None
        for start, end, mm in measures(clause):
            low, high = rule["range_mm"]
            tailed = bool(tail and tail.match(clause, end)) and not any(m.start < start and m.status != ABSENT for m in found)
            led = bool(lead and lead.search(clause[:start])) and not (rule["after"] and any(m.status != ABSENT for m in found))
            if low <= mm <= high and (led or tailed):
                reading.values.setdefault(key, mm)
                used.add(start)
    return used


def _read_sizes(clause: str, asserted: Sequence[Mention], ontology: Ontology, reading: Reading, used: set[int]) -> None:
    """Give each remaining length to the finding it stands with."""
    for start, _, mm in measures(clause):
        owner = owner_of(clause, start, asserted)
        finding = owner.finding if owner else reading.focus
        if start in used or finding is None:
            continue
        key = ontology.findings[finding].get("size")
        if key is None:
            continue
        known = reading.values.get(key)
        if not isinstance(known, float) or (ontology.findings[finding].get("size_pick") == "largest" and mm > known):
            reading.values[key] = mm


def owner_of(clause: str, start: int, asserted: Sequence[Mention]) -> Mention | None:
    """The mention that a length at `start` of a clause belongs to; None without mentions."""
    before = [m for m in asserted if m.start < start]
    after = [m for m in asserted if m.start >= start]
    leading = max((m.end for m in before), default=0)
    if before and (not after or leading > start or _MEASURE_LEADS.search(clause[leading:start])):
        return before[-1]
    return after[0] if after else None


def _read_attributes(clause: str, found: Sequence[Mention], ontology: Ontology, reading: Reading) -> None:
    """Traits of the finding that the ontology's `attributes` describe, in its own clause or in one that goes on about it."""
    rules = ontology.attributes
    if not rules:
        return
    named = any(m.finding == rules["of"] and m.status != ABSENT for m in found)
    others = any(m.finding != rules["of"] for m in found)
    follows = reading.focus == rules["of"] and not others and (named or not any(m.status == ABSENT for m in found))
    if not (named or follows):
        return
    for key, flag in rules["flags"].items():
        for kind, value in (("present", PRESENT), ("absent", ABSENT)):
            for match in phrases(tuple(flag.get(kind, ()))).finditer(clause):
                status = status_of(clause, match.start(), match.end())
                flipped = {ABSENT: 1 - value, PRESENT: value, UNCERTAIN: UNCERTAIN}[status]
                reading.add(key, flipped)
    for key, options in rules["choice"].items():
        word = _grade(clause, options)
        if word is not None:
            reading.values.setdefault(key, word)
