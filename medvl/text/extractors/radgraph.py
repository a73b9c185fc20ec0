"""RadGraph annotations in: entities and relations, as published or as the radgraph package writes them, to our concepts.

One observation with its modifiers and its anatomy makes one short phrase, in the report's own word order, which the ontology's
wording then reads; the entity's label decides whether it is present (DP), absent (DA) or uncertain (U).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medvl.errors import ConfigError
from medvl.text.extractors.base import Extracted, provenance, settled
from medvl.text.labels import Value, extract_text
from medvl.text.ontology import Ontology, built_in
from medvl.text.relations import Edge, RelationGraph, Status, relations
from medvl.text.report import StructuredReport, side_of

ANATOMY = "ANAT-DP"
STATUSES: Mapping[str, Status] = {"OBS-DP": "present", "OBS-DA": "absent", "OBS-U": "uncertain"}
_LONG = {
    "Anatomy::definitely present": ANATOMY,
    "Observation::definitely present": "OBS-DP",
    "Observation::definitely absent": "OBS-DA",
    "Observation::uncertain": "OBS-U",
}


class RadGraphExtractor:
    """Reads reports by their RadGraph annotation.

    Args:
        documents: annotation of each report, with `text` and `entities`, in a list or by any key.
        ontologies: whose concepts to map to; by default the built-in ones.

    Raises:
        ConfigError: an annotation is not of RadGraph's shape.
    """

    name = "radgraph"
    version = "1"

    def __init__(
        self, documents: Mapping[str, Any] | Sequence[Mapping[str, Any]], ontologies: Sequence[Ontology] | None = None
    ) -> None:
        self.ontologies = tuple(built_in() if ontologies is None else ontologies)
        rows = documents.values() if isinstance(documents, Mapping) else documents
        self._by_words = {_words(document["text"]): document for document in map(_checked, rows)}

    @classmethod
    def load(cls, path: Path, ontologies: Sequence[Ontology] | None = None) -> RadGraphExtractor:
        """From a JSON file of annotations.

        Raises:
            ConfigError: the file cannot be read or is not of RadGraph's shape.
        """
        try:
            documents = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path.name} is no readable JSON ({type(error).__name__}); give a RadGraph annotation file"
            ) from error
        return cls(documents, ontologies)

    def __call__(self, report: StructuredReport) -> Extracted:
        """By the annotation whose text has the words of the report's findings and impression, and perhaps headers around them.

        Raises:
            ConfigError: no annotation has these words.
        """
        parts = [w for name in ("findings", "impression") if (w := _words(report.sections.get(name, "")))]
        document = self._by_words.get(" ".join(parts))
        if document is None and parts:
            document = next((d for words, d in self._by_words.items() if all(part in words for part in parts)), None)
        if document is None:
            raise ConfigError(f"no RadGraph annotation has the words of the report {report.said()[:40]!r}...; annotate it first")
        return self.read(document)

    def read(self, document: Mapping[str, Any]) -> Extracted:
        """Labels and relations of one annotation."""
        document = _checked(document)
        labels, graphs = {}, {}
        for ontology in self.ontologies:
            for region in ontology.regions:
                edges, values = _region(document, region, ontology)
                labels[region] = settled(edges, values, ontology)
                graphs[region] = RelationGraph(edges, ontology.name)
        return Extracted(labels, graphs, provenance(self, self.ontologies))


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _checked(document: Any) -> dict[str, Any]:
    """The annotation with short entity labels; refused where a part is missing or a label is unknown."""
    try:
        entities = {
            str(key): entity | {"label": _LONG.get(entity["label"], entity["label"]), "relations": list(entity["relations"])}
            for key, entity in document["entities"].items()
        }
        text = str(document["text"])
        odd = {e["label"] for e in entities.values()} - {ANATOMY, *STATUSES}
        known = all(str(to) in entities for e in entities.values() for _, to in e["relations"])
        placed = all(isinstance(e["start_ix"], int) and isinstance(e["tokens"], str) for e in entities.values())
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"a RadGraph annotation lacks text or entities with tokens, label, start_ix, relations: {error}"
        ) from error
    if odd or not known or not placed:
        raise ConfigError(f"a RadGraph annotation has unknown labels {sorted(odd)}, or relations or positions that lead nowhere")
    return {"text": text, "entities": entities}


def _region(document: Mapping[str, Any], region: str, ontology: Ontology) -> tuple[tuple[Edge, ...], dict[str, Value]]:
    """Edges of one region, and the sizes, grades and classes of what is present there."""
    edges: list[Edge] = []
    values: dict[str, Value] = {}
    tokens = document["text"].split()
    side = region.rpartition("_")[2]
    sides = {side, "both", None} if side in {"left", "right"} else {"left", "right", "both", None}
    for head, phrases in _phrases(document["entities"]):
        entity = document["entities"][head]
        status, sentence = STATUSES[entity["label"]], tokens[: entity["start_ix"]].count(".")
        for phrase in phrases:
            found = relations(phrase, ontology).edges if side_of(phrase) in sides else ()
            if status != "present":
                found = tuple(e for e in found if e.finding in _findings(ontology))
            if found:
                edges += [replace(e, status=_joint(status, e.status), sentence=sentence) for e in found]
                if status == "present":
                    for key, value in extract_text(phrase, ontology).items():
                        if isinstance(value, float | str):
                            values.setdefault(key, value)
                break
    return tuple(edges), values


def _findings(ontology: Ontology) -> set[str]:
    return {name for key in ontology.findings for name in ontology.named(key)}


def _joint(entity: Status, wording: Status) -> Status:
    """What an entity of some status says with words of some status: "dilated" absent is absent, and so is "normal" present."""
    return wording if entity == "present" else entity


def _phrases(entities: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each observation that modifies no other, with wordings of it: in the report's order, then anatomy first, then last."""
    for key, entity in entities.items():
        to = [(kind, str(target)) for kind, target in entity["relations"]]
        if entity["label"] == ANATOMY or any(kind == "modify" and entities[t]["label"] != ANATOMY for kind, t in to):
            continue
        own = _with_modifiers(key, entities)
        places = _places(key, entities)
        for place in places or [set()]:
            said, where = _joined(own, entities), _joined(place, entities)
            yield key, [_joined(own | place, entities), *([f"{where} {said}", f"{said} of the {where}"] if where else [])]


def _places(key: str, entities: Mapping[str, Any]) -> list[set[str]]:
    """Entities of each anatomy an observation is located at or modifies, else those of what suggests it."""
    targets = [
        str(t) for kind, t in entities[key]["relations"] if kind != "suggestive_of" and entities[str(t)]["label"] == ANATOMY
    ]
    if not targets:
        causes = [k for k, e in entities.items() if ["suggestive_of", key] in [[kind, str(t)] for kind, t in e["relations"]]]
        targets = [str(t) for k in causes for kind, t in entities[k]["relations"] if kind == "located_at"]
    return [_with_modifiers(target, entities) for target in targets]


def _with_modifiers(key: str, entities: Mapping[str, Any]) -> set[str]:
    """An entity and those that modify it, of its own kind, by any number of steps."""
    members, anatomy = {key}, entities[key]["label"] == ANATOMY
    while True:
        more = {
            k
            for k, e in entities.items()
            if (e["label"] == ANATOMY) == anatomy and any(kind == "modify" and str(t) in members for kind, t in e["relations"])
        }
        if more <= members:
            return members
        members |= more


def _joined(keys: set[str], entities: Mapping[str, Any]) -> str:
    """Their tokens in the report's order."""
    return " ".join(entities[k]["tokens"] for k in sorted(keys, key=lambda k: entities[k]["start_ix"]))
