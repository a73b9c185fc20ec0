"""Ways from a report to labels and relations: by rules, from RadGraph files, or by a local language model."""

from medvl.text.extractors.base import Extracted, Extractor, Provenance
from medvl.text.extractors.radgraph import RadGraphExtractor
from medvl.text.extractors.rules import RuleExtractor

__all__ = ["Extracted", "Extractor", "Provenance", "RadGraphExtractor", "RuleExtractor"]
