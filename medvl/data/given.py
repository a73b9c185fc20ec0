"""Labels that somebody gave, above those that rules read from a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medvl.text.labels import Value
from medvl.text.ontology import Ontology, built_in
from medvl.text.scope import PRESENT, UNMENTIONED

GIVEN_VALUES = (0, 1, 2)


def with_given(read: Mapping[str, Mapping[str, Value]], given: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, Value]]:
    """`read` as `extract` tells it, with what was `given` (1 present, 0 absent, 2 uncertain) in its place.

    Where a finding is not present after all, what the report says of it further (size, grade, and for a mass its form) goes:
    it spoke of something that is not there. Regions and attributes that no report rule knows are added.
    """
    out = {region: dict(values) for region, values in read.items()}
    for region, labels in given.items():
        mine = out.setdefault(region, {})
        for name, value in labels.items():
            if mine.get(name) == PRESENT and value != PRESENT:
                mine.update(_forgotten(name, region))
        mine.update(labels)
    return out


def _forgotten(name: str, region: str) -> dict[str, Any]:
    """What is no longer known of a finding that is not present."""
    ontology = next((o for o in built_in() if region in o.regions), None)
    return {} if ontology is None else {**_extras(name, ontology), **_form(name, ontology)}


def _extras(name: str, ontology: Ontology) -> dict[str, Any]:
    key = next((key for key in ontology.findings if name in ontology.named(key)), None)
    finding = ontology.findings[key] if key is not None else {}
    return {finding[extra]: None for extra in ("size", "grade") if extra in finding}


def _form(name: str, ontology: Ontology) -> dict[str, Any]:
    rules = ontology.attributes
    if not rules or rules["of"] != name:
        return {}
    return dict.fromkeys((rules["large"]["key"], *rules["flags"]), UNMENTIONED) | dict.fromkeys(rules["choice"])
