"""Tables of names and cue words that report rules run on: YAML data compiled into regular expressions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from medvl.errors import ConfigError

BUILT_IN = ("kidney", "heart")
NAMED = (*BUILT_IN, "chest")


Side = Literal["left", "right", "none"]
_PROSE = frozenset({"label", "definition", "say", "dictionary"})


@dataclass(frozen=True)
class Anatomy:
    """A place in a region.

    Args:
        key: snake_case name; label: what a person reads; definition: one sentence on what it is.
        terms: wording that names it, as regular expressions; none for the place of what is said of no place.
        side: of a place that exists twice in its region.
    """

    key: str
    label: str
    definition: str = ""
    terms: tuple[str, ...] = ()
    side: Side = "none"


@dataclass(frozen=True, eq=False)
class Ontology:
    """The attributes that are read for some regions, with the wording that states them.

    Args:
        name: such as ``kidney``.
        regions: the region names it applies to.
        findings, attributes, measures: as in `ontologies/kidney.yaml`.
        normal: which subjects, called normal, imply which findings absent.
        anatomies: places that findings are related to, by key, in order; may be empty.
        dictionary: attribute to its label, definition, classes and source, for people and prompts; may be empty.
    """

    name: str
    regions: tuple[str, ...]
    findings: Mapping[str, Any]
    attributes: Mapping[str, Any]
    measures: Mapping[str, Any]
    normal: tuple[Mapping[str, Any], ...]
    anatomies: tuple[Anatomy, ...] = ()
    dictionary: Mapping[str, Any] = field(default_factory=dict)

    def named(self, key: str) -> tuple[str, ...]:
        """Attribute names of a finding: one a side for sided findings, else its own key."""
        return tuple(self.findings[key].get("sided", {"": key}).values())

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of everything the ontology says."""
        rest = [self.findings, self.attributes, self.measures, self.normal, [asdict(a) for a in self.anatomies], self.dictionary]
        said = json.dumps([self.name, self.regions, *rest], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]


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
    elif str(source) in NAMED:
        data, origin = table(str(source)), str(source)
    else:
        origin = Path(source).name
        try:
            data = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"ontology {origin} cannot be read ({type(error).__name__}); give a YAML file") from error
    known = {"name", "regions", "findings", "attributes", "measures", "normal", "anatomies", "dictionary"}
    if not isinstance(data, Mapping) or not {"name", "regions", "findings"} <= set(data) or set(data) - known:
        raise ConfigError(f"ontology {origin} needs name, regions and findings and may hold {sorted(known)} only")
    _compile_all(data, origin)
    _check_dictionary(data, origin)
    return Ontology(
        str(data["name"]),
        tuple(data["regions"]),
        data["findings"],
        data.get("attributes", {}),
        data.get("measures", {}),
        tuple(data.get("normal", ())),
        _anatomies(data.get("anatomies", ()), origin),
        data.get("dictionary", {}),
    )


def _check_dictionary(data: Mapping[str, Any], origin: str) -> None:
    """Attributes with worded classes must be explained with the same classes, where they are explained at all."""
    worded = data.get("attributes", {}).get("choice", {})
    for key, entry in data.get("dictionary", {}).items():
        classes = set(entry.get("classes", {}))
        if not classes or set(entry.get("points", classes)) != classes or (key in worded and set(worded[key]) != classes):
            raise ConfigError(f"ontology {origin}: the classes of {key} differ between dictionary, points and attributes.choice")


def _anatomies(rows: Iterable[Mapping[str, Any]], origin: str) -> tuple[Anatomy, ...]:
    """The places; exactly one has no terms, and takes what is said of no place."""
    places = []
    for row in rows:
        if not {"key", "label"} <= set(row) or set(row) - {f.name for f in fields(Anatomy)}:
            raise ConfigError(
                f"ontology {origin}: anatomy {row!r} needs key and label, and may hold definition, terms, side only"
            )
        if row.get("side", "none") not in {"left", "right", "none"}:
            raise ConfigError(f"ontology {origin}: anatomy {row['key']} has side {row['side']!r}; give left, right or none")
        places.append(Anatomy(**{**row, "terms": tuple(row.get("terms", ()))}))
    if places and sum(not place.terms for place in places) != 1:
        raise ConfigError(f"ontology {origin}: exactly one anatomy must have no terms: the place of what is said of no place")
    if len({place.key for place in places}) < len(places):
        raise ConfigError(f"ontology {origin}: two anatomies share a key")
    return tuple(places)


def _compile_all(node: Any, origin: str) -> None:
    """Refuse a table with a broken pattern before it is used."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key not in _PROSE:
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
