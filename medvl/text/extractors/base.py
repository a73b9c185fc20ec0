"""What every extractor takes and gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from medvl.text.labels import WHOLE, Value, extract_text
from medvl.text.ontology import Ontology
from medvl.text.relations import STATUS, Edge, RelationGraph
from medvl.text.report import StructuredReport
from medvl.text.scope import ABSENT, PRESENT, UNCERTAIN, UNMENTIONED


@dataclass(frozen=True)
class Provenance:
    """Where labels come from: extractor, its version, and the digest of each ontology by name."""

    extractor: str
    version: str
    ontologies: Mapping[str, str]


@dataclass(frozen=True)
class Extracted:
    """Labels and relations by region, and where they come from. Values are those of `medvl.text.labels.extract`."""

    labels: Mapping[str, Mapping[str, Value]]
    relations: Mapping[str, RelationGraph]
    provenance: Provenance

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)


class Extractor(Protocol):
    """Anything with a name and a version that reads reports."""

    name: str
    version: str

    def __call__(self, report: StructuredReport) -> Extracted:
        """Labels and relations of every region of its ontologies."""


def region_text(report: StructuredReport, region: str) -> str:
    """What a report says of a region; findings and impression as they are for ontologies that read whole reports."""
    return report.said() if region == WHOLE else report.regions.get(region, "")


def provenance(extractor: Extractor, ontologies: Sequence[Ontology]) -> Provenance:
    """The provenance of an extractor that reads with some ontologies."""
    return Provenance(extractor.name, extractor.version, {o.name: o.digest for o in ontologies})


def settled(edges: Iterable[Edge], values: Mapping[str, Value], ontology: Ontology) -> dict[str, Value]:
    """Labels of one region from edges and from sizes, grades and classes, under the rules that text labels obey.

    Present wins over uncertain, uncertain over absent; grades need a present finding, sizes one that is not absent, traits a
    mass, and the size class follows from the size.
    """
    labels = extract_text("", ontology)
    rank = {UNMENTIONED: 0, ABSENT: 1, UNCERTAIN: 2, PRESENT: 3}
    codes = {word: code for code, word in STATUS.items()}
    for edge in edges:
        code = codes[edge.status]
        if edge.finding in labels and rank[code] > rank[int(str(labels[edge.finding]))]:
            labels[edge.finding] = code
    labels |= {key: value for key, value in values.items() if key in labels and value is not None}
    for key, finding in ontology.findings.items():
        stated = {labels[name] for name in ontology.named(key)}
        dropped = [] if PRESENT in stated else ["grade"] if UNCERTAIN in stated else ["grade", "size"]
        labels |= {finding[extra]: None for extra in dropped if extra in finding}
    rules = ontology.attributes
    if rules:
        large, size = rules["large"], labels[rules["large"]["size"]]
        labels[large["key"]] = int(size >= large["at_least_mm"]) if isinstance(size, float) else UNMENTIONED
        if labels[rules["of"]] not in {PRESENT, UNCERTAIN}:
            labels |= dict.fromkeys(rules["flags"], UNMENTIONED) | dict.fromkeys(rules["choice"])
    return labels
