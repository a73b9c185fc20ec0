"""The default extractor: the rules of `medvl.text.labels` and `medvl.text.relations`."""

from __future__ import annotations

from collections.abc import Sequence

from medvl.text.extractors.base import Extracted, provenance, region_text
from medvl.text.labels import extract
from medvl.text.ontology import Ontology, built_in
from medvl.text.relations import relations
from medvl.text.report import StructuredReport


class RuleExtractor:
    """Labels and relations by rules; the same words always give the same answer."""

    name = "rules"
    version = "1"

    def __init__(self, ontologies: Sequence[Ontology] | None = None) -> None:
        self.ontologies = tuple(built_in() if ontologies is None else ontologies)

    def __call__(self, report: StructuredReport) -> Extracted:
        """Labels as `extract` gives them, and the relation graph of each region's text."""
        graphs = {region: relations(region_text(report, region), o) for o in self.ontologies for region in o.regions}
        return Extracted(extract(report, self.ontologies), graphs, provenance(self, self.ontologies))
