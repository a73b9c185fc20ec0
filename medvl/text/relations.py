"""Which finding lies at which place, by rules: a graph of anatomy and finding for each region's text, and its matrix.

A finding stands at the nearest place its clause names among those where it can lie (`at` of the ontology), else at the first
of these; a finding named again without a place stands where it was said to be before. Traits of a mass stand with the mass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.text.clauses import NOWHERE, Said, binary_attributes, home, named_before, places_of, said
from medvl.text.labels import Value, extract_text
from medvl.text.ontology import Ontology, Side
from medvl.text.scope import ABSENT, PRESENT, UNCERTAIN, UNMENTIONED

Status = Literal["present", "absent", "uncertain"]
STATUS: Mapping[int, Status] = {PRESENT: "present", ABSENT: "absent", UNCERTAIN: "uncertain"}


@dataclass(frozen=True)
class Concept:
    """An anatomy or a finding: its key, what a person reads, the sentence a text encoder reads, and its side if it has one."""

    key: str
    label: str
    prompt: str
    side: Side = "none"


@dataclass(frozen=True)
class Concepts:
    """Rows and columns of a relation matrix, in order."""

    anatomies: tuple[Concept, ...]
    findings: tuple[Concept, ...]


@dataclass(frozen=True)
class Edge:
    """A statement: this finding has this status at this place, said in sentence number `sentence` of the region's text."""

    anatomy: str
    finding: str
    status: Status
    sentence: int
    size_mm: float | None = None


@dataclass(frozen=True)
class RelationGraph:
    """What the text of one region relates; `ontology` is the name of the one that its keys are from."""

    edges: tuple[Edge, ...]
    ontology: str = ""


def concepts(ontologies: Sequence[Ontology]) -> Concepts:
    """Places and findings of some ontologies.

    A key that two of them use with different prompts is written ``name.key`` for the later one.
    """
    places: dict[str, Concept] = {}
    found: dict[str, Concept] = {}
    for ontology in ontologies:
        for place in ontology.anatomies or (NOWHERE,):
            _insert(places, Concept(place.key, place.label, f"It is located at the {place.label}.", place.side), ontology)
        for key, side, rules in binary_attributes(ontology):
            words = {name: str(rules.get(name, "")).replace("{side}", side) for name in ("label", "definition")}
            label = words["label"] or key.replace("_", " ")
            concept = Concept(key, label, words["definition"] or f"There is {label}.", _side(side))
            _insert(found, concept, ontology)
    return Concepts(tuple(places.values()), tuple(found.values()))


def _insert(known: dict[str, Concept], concept: Concept, ontology: Ontology) -> None:
    if known.get(concept.key, concept) != concept:
        key = f"{ontology.name}.{concept.key}"
        concept = Concept(key, concept.label, concept.prompt, concept.side)
    known[concept.key] = concept


def _side(word: str) -> Side:
    return "left" if word == "left" else "right" if word == "right" else "none"


def relations(text: str, ontology: Ontology) -> RelationGraph:
    """What the text of one region says of which place. A finding is present in the graph just when its label is 1."""
    labels = extract_text(text, ontology)
    drafts: list[_Draft] = []
    for clause in said(text, ontology):
        named = places_of(clause, ontology)
        if clause.goes_on:
            _complete(drafts, clause, named, ontology)
        placed = {d.finding for d in drafts if d.place}
        new = _drafts(clause, named, placed, labels, ontology)
        drafts += [d for d in new if labels.get(d.finding, UNMENTIONED) != UNMENTIONED]
    edges = [Edge(_resolved(i, drafts, ontology), d.finding, STATUS[d.status], d.sentence, d.size) for i, d in enumerate(drafts)]
    return RelationGraph(tuple(edges), ontology.name)


@dataclass
class _Draft:
    """An edge whose place may not be known yet; traits stand where their `owner` stands."""

    finding: str
    place: str | None
    status: int
    sentence: int
    size: float | None
    owner: str


def _drafts(
    clause: Said, named: Mapping[str, str], placed: set[str], labels: Mapping[str, Value], ontology: Ontology
) -> Iterator[_Draft]:
    """The edges of one clause; "the mass" does not move a finding in `placed`, whose place is known."""
    traits = ontology.attributes.get("flags", {})
    for key, status in clause.status.items():
        length = _length(key, clause, ontology) if status != ABSENT else None
        owner = ontology.attributes["of"] if key in traits else key
        new = key not in traits and not (key in placed and named_before(clause, key, ontology))
        yield _Draft(key, named.get(key) if new else None, status, clause.sentence, length, owner)
    if ontology.attributes:
        rules = ontology.attributes["large"]
        size = clause.values.get(rules["size"])
        if isinstance(size, float) and size == labels[rules["size"]]:
            status = PRESENT if labels[rules["key"]] == PRESENT else ABSENT
            yield _Draft(rules["key"], None, status, clause.sentence, size, ontology.attributes["of"])


def _complete(drafts: Sequence[_Draft], clause: Said, named: Mapping[str, str], ontology: Ontology) -> None:
    """Give what a clause adds, a place or a size, to the finding that the clause before it in the same sentence named."""
    for draft in drafts:
        if draft.sentence == clause.sentence and draft.finding == draft.owner and draft.status != ABSENT:
            draft.place = draft.place or named.get(draft.finding)
            draft.size = draft.size or _length(draft.finding, clause, ontology)


def _length(key: str, clause: Said, ontology: Ontology) -> float | None:
    value = clause.values.get(ontology.findings.get(key, {}).get("size", ""))
    return value if isinstance(value, float) else None


def _resolved(index: int, drafts: Sequence[_Draft], ontology: Ontology) -> str:
    """Its own place, else where the same thing was last said to be, else where it is first said to be, else its home."""
    draft = drafts[index]
    if draft.place is None and (draft.status != ABSENT or draft.owner != draft.finding):
        same = [(i, d.place) for i, d in enumerate(drafts) if d.finding == draft.owner and d.place and d.status != ABSENT]
        draft_place = next((place for i, place in reversed(same) if i <= index), same[0][1] if same else None)
        return draft_place or home(draft.owner, ontology)
    return draft.place or home(draft.finding, ontology)


def relation_matrix(graph: RelationGraph, known: Concepts) -> NDArray[np.int8]:
    """(A, F) int8: 1 where any edge is present, else 0 where any is absent, else -1.

    Uncertain edges are left out, as in the MeDSLIP release, so a finding that is only uncertain reads as unmentioned.

    Raises:
        ConfigError: an edge names a place or a finding that `known` lacks.
    """
    rows = {c.key: i for i, c in enumerate(known.anatomies)}
    columns = {c.key: i for i, c in enumerate(known.findings)}
    matrix = np.full((len(rows), len(columns)), -1, np.int8)
    for edge in graph.edges:
        row, column = (
            table.get(f"{graph.ontology}.{key}", table.get(key)) for table, key in ((rows, edge.anatomy), (columns, edge.finding))
        )
        if row is None or column is None:
            raise ConfigError(f"the concepts lack {edge.anatomy} or {edge.finding}; build them from the graph's ontology too")
        if edge.status != "uncertain":
            matrix[row, column] = max(matrix[row, column], int(edge.status == "present"))
    return matrix


def existence(matrix: NDArray[np.int8]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Findings (F,) and anatomies (A,) of a relation matrix: 1 where any entry is 1, else 0 where any is 0, else -1."""
    if matrix.size == 0:
        raise ConfigError(f"a relation matrix of shape {matrix.shape} has no rows or columns; give at least one concept of each")
    return matrix.max(axis=0), matrix.max(axis=1)


def mirrored(known: Concepts) -> tuple[list[int], list[int]]:
    """Row and column order that swaps left and right, for a scan flipped left to right: ``matrix[rows][:, columns]``."""
    return _swapped(known.anatomies), _swapped(known.findings)


def _swapped(items: Sequence[Concept]) -> list[int]:
    other = {"left": "right", "right": "left"}
    keys = {c.key: i for i, c in enumerate(items)}
    order = []
    for i, concept in enumerate(items):
        twin = re.sub(r"left|right", lambda m: other[m.group()], concept.key) if concept.side != "none" else concept.key
        order.append(keys.get(twin, i))
    return order
