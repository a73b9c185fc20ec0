"""Tables of names and cue words that report rules run on: YAML data compiled into regular expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from medvl.errors import ConfigError

BUILT_IN = ("kidney", "heart")


@dataclass(frozen=True, eq=False)
class Ontology:
    """The attributes that are read for some regions, with the wording that states them.

    Args:
        name: such as ``kidney``.
        regions: the region names it applies to.
        findings, attributes, measures: as in `ontologies/kidney.yaml`.
        normal: which subjects, called normal, imply which findings absent.
    """

    name: str
    regions: tuple[str, ...]
    findings: Mapping[str, Any]
    attributes: Mapping[str, Any]
    measures: Mapping[str, Any]
    normal: tuple[Mapping[str, Any], ...]


def any_of(patterns: Iterable[str], edges: bool = True) -> re.Pattern[str]:
    """One case-blind pattern for any of `patterns`, longest first; with `edges` it matches whole words only."""
    body = "|".join(sorted(patterns, key=len, reverse=True)) or r"(?!)"
    return re.compile(rf"(?<!\w)(?:{body})(?!\w)" if edges else f"(?:{body})", re.IGNORECASE)


@cache
def phrases(patterns: tuple[str, ...], edges: bool = True) -> re.Pattern[str]:
    """`any_of`, kept for the next call."""
    return any_of(patterns, edges)


@cache
def table(name: str) -> Mapping[str, Any]:
    """A built-in table, ``report`` (sections, topics, sides) or ``cues`` (negation, doubt, normality)."""
    text = resources.files("medvl.text").joinpath("ontologies", f"{name}.yaml").read_text(encoding="utf-8")
    data: Mapping[str, Any] = yaml.safe_load(text)
    return data


def load_ontology(source: str | Path | Mapping[str, Any]) -> Ontology:
    """The ontology in a mapping, in a YAML file, or a built-in one by name.

    Raises:
        ConfigError: the file cannot be read, a key is missing or unknown, or a pattern is not a regular expression.
    """
    if isinstance(source, Mapping):
        data, origin = source, "the mapping"
    elif str(source) in BUILT_IN:
        data, origin = table(str(source)), str(source)
    else:
        origin = Path(source).name
        try:
            data = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"ontology {origin} cannot be read ({type(error).__name__}); give a YAML file") from error
    known = {"name", "regions", "findings", "attributes", "measures", "normal"}
    if not isinstance(data, Mapping) or not {"name", "regions", "findings"} <= set(data) or set(data) - known:
        raise ConfigError(f"ontology {origin} needs name, regions and findings and may hold {sorted(known)} only")
    _compile_all(data, origin)
    return Ontology(
        str(data["name"]),
        tuple(data["regions"]),
        data["findings"],
        data.get("attributes", {}),
        data.get("measures", {}),
        tuple(data.get("normal", ())),
    )


def _compile_all(node: Any, origin: str) -> None:
    """Refuse a table with a broken pattern before it is used."""
    if isinstance(node, Mapping):
        for value in node.values():
            _compile_all(value, origin)
    elif isinstance(node, list):
        for value in node:
            _compile_all(value, origin)
    elif isinstance(node, str):
        try:
            re.compile(node)
        except re.error as error:
            raise ConfigError(f"ontology {origin}: {node!r} is not a regular expression: {error}") from error


@cache
def built_in() -> tuple[Ontology, ...]:
    """The kidney and heart ontologies that come with medvl."""
    return tuple(load_ontology(name) for name in BUILT_IN)
