"""Attributes as sentences of one grammar, "There is X at Y." and "There is no X at Y.", and as a vector of signs.

The sentences read back: `extract_text` of them gives the attributes they were made from. Phrases are the ontology's `say`;
a finding without one is called by its label, else by its key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.text.clauses import binary_attributes, home
from medvl.text.labels import Value
from medvl.text.ontology import Ontology
from medvl.text.scope import ABSENT, PRESENT, UNCERTAIN

_TRAIT = {PRESENT: "present", ABSENT: "absent", UNCERTAIN: "uncertain"}


def template_text(labels: Mapping[str, Value], ontology: Ontology) -> list[str]:
    """One sentence for each thing that the labels of one region state, sizes and grades kept; unmentioned ones give none."""
    sentences = [
        rules["say"].replace("{mm}", f"{labels[key]:g}")
        for key, rules in ontology.measures.items()
        if labels.get(key) is not None and "say" in rules
    ]
    for key, rules in ontology.findings.items():
        for side, name in rules.get("sided", {"": key}).items():
            status = labels.get(name)
            if status in _TRAIT:
                size, grade = labels.get(rules.get("size", "")), labels.get(rules.get("grade", ""))
                place = _place(labels, ontology) if key == ontology.attributes.get("of") else None
                phrase = _phrase(name, side, rules)
                sentences.append(_sentence(phrase, int(str(status)), place or home(name, ontology), ontology, size, grade))
            if key == ontology.attributes.get("of") and status in {PRESENT, UNCERTAIN}:
                sentences += _traits(labels, status == PRESENT, _phrase(name, side, rules), ontology)
    return sentences


def _phrase(name: str, side: str, rules: Mapping[str, Any]) -> str:
    return str(rules.get("say", rules.get("label", name.replace("_", " ")))).replace("{side}", side)


def _sentence(
    phrase: str, status: int, place: str, ontology: Ontology, size: Value = None, grade: Value = None, stated: bool = True
) -> str:
    """One statement on a finding; its place is left out where it is only the region as a whole without a name."""
    article, noun = (phrase.split(" ", 1)[0], phrase.split(" ", 1)[1]) if phrase.startswith(("a ", "an ")) else ("", phrase)
    labels = {p.key: p.label for p in ontology.anatomies}
    at = f" at the {labels[place]}" if place in labels and stated else ""
    if status == ABSENT:
        return f"There is no {noun}{at}."
    words = ["possible"] if status == UNCERTAIN else [str(grade)] if grade else []
    if article:
        words.insert(0, "an" if (words or [noun])[0][0] in "aeio" else "a")
    length = f" of {size:g} mm" if isinstance(size, float) else ""
    return f"There is {' '.join([*words, noun])}{length}{at}."


def _place(labels: Mapping[str, Value], ontology: Ontology) -> str | None:
    """The anatomy that an attribute with `places` gives."""
    for key, entry in ontology.dictionary.items():
        if labels.get(key) in entry.get("places", {}):
            return str(entry["places"][labels[key]])
    return None


def _traits(labels: Mapping[str, Value], certain: bool, phrase: str, ontology: Ontology) -> Iterator[str]:
    """What is said of the mass; of a doubtful one without naming it again, so that the doubt stays with it alone."""
    lead = f"There is {phrase}" if certain else "It is one"
    for key in ontology.attributes["choice"]:
        words = ontology.dictionary.get(key, {}).get("say", {}).get(labels.get(key))
        if words:
            yield f"{lead} {words}."
    for key, rules in ontology.attributes["flags"].items():
        status = labels.get(key)
        if status in _TRAIT and "say" in rules:
            yield f"{lead} {rules['say'][_TRAIT[int(str(status))]]}."


def prompt_pairs(ontology: Ontology) -> dict[str, tuple[str, str]]:
    """The present and the absent sentence of each present-or-absent attribute, for zero-shot questions."""
    pairs = {}
    flags, large = ontology.attributes.get("flags", {}), ontology.attributes.get("large", {}).get("key")
    owner = ontology.findings[ontology.attributes["of"]] if ontology.attributes else {}
    for name, side, rules in binary_attributes(ontology):
        if name in flags and "say" in rules:
            lead = f"There is {_phrase(name, side, owner)}"
            pairs[name] = (f"{lead} {rules['say']['present']}.", f"{lead} {rules['say']['absent']}.")
        elif name not in flags:
            place = home(ontology.attributes["of"] if name == large else name, ontology)
            phrase = _phrase(name, side, rules)
            pairs[name] = (_sentence(phrase, PRESENT, place, ontology), _sentence(phrase, ABSENT, place, ontology))
    return pairs


def pathology_vector(labels: Mapping[str, Value], names: Sequence[str]) -> NDArray[np.int8]:
    """(K,) int8 of one region's labels: 1 present, -1 absent, 0 unmentioned or uncertain.

    Raises:
        ConfigError: a name is no present-or-absent attribute of the labels.
    """
    odd = [name for name in names if labels.get(name) not in {PRESENT, ABSENT, UNCERTAIN, -1}]
    if odd:
        raise ConfigError(f"{odd} are not present-or-absent attributes of these labels; choose from {sorted(labels)}")
    sign = {PRESENT: 1, ABSENT: -1}
    return np.array([sign.get(int(str(labels[name])), 0) for name in names], np.int8)
