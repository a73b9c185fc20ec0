"""What each sentence of a text states, by our own extractor, and whether a model's verdicts bear it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from medvl.errors import ConfigError
from medvl.heads.drafts import DraftSentence, Source, Support, Verdict
from medvl.text.clauses import binary_attributes, home, named_before, places_of, said
from medvl.text.ontology import Ontology, built_in
from medvl.text.report import split_sentences
from medvl.text.scope import ABSENT, PRESENT, UNCERTAIN

_MEANS = {PRESENT: "present", ABSENT: "absent", UNCERTAIN: "undecided"}


@dataclass(frozen=True)
class Stated:
    """One sentence in its context.

    Args:
        text: the sentence.
        status: attribute to PRESENT, ABSENT or UNCERTAIN of `medvl.text.scope`.
        extra: sizes, grades, measures and places it gives, by attribute.
        refers: it names a finding as known already: "the mass".
    """

    text: str
    status: Mapping[str, int]
    extra: tuple[str, ...]
    refers: bool


def ontology_for(region: str, ontologies: Sequence[Ontology] | None = None) -> Ontology:
    """The ontology that reads a region.

    Raises:
        ConfigError: none does.
    """
    for ontology in built_in() if ontologies is None else ontologies:
        if region in ontology.regions:
            return ontology
    raise ConfigError(f"no ontology reads the region {region}; give one that lists it under regions")


@lru_cache(maxsize=1 << 14)
def statements_of(text: str, ontology: Ontology) -> tuple[Stated, ...]:
    """Every sentence of a region's text with what it states; later sentences go on about what earlier ones named."""
    sentences = split_sentences(text)
    status: list[dict[str, int]] = [{} for _ in sentences]
    extra: list[set[str]] = [set() for _ in sentences]
    refers = [False] * len(sentences)
    rank = {ABSENT: 1, UNCERTAIN: 2, PRESENT: 3}
    rules = ontology.attributes.get("large") if ontology.attributes else None
    for clause in said(text, ontology):
        at = clause.sentence
        found = dict(clause.status)
        size = clause.values.get(rules["size"]) if rules else None
        if rules and isinstance(size, float):
            found[rules["key"]] = int(size >= rules["at_least_mm"])
        for key, value in found.items():
            if rank[value] > rank.get(status[at].get(key, -1), 0):
                status[at][key] = value
        extra[at] |= {key for key, value in clause.values.items() if value is not None}
        extra[at] |= {f"{key}: {place}" for key, place in places_of(clause, ontology).items() if place != home(key, ontology)}
        refers[at] |= any(named_before(clause, key, ontology) for key in ontology.findings) or clause.goes_on is not None
    return tuple(Stated(*row) for row in zip(sentences, status, map(tuple, map(sorted, extra)), refers, strict=True))


def linked(
    stated: Stated,
    region: str,
    source: Source,
    verdicts: Mapping[str, Verdict],
    neighbours: tuple[str, ...] = (),
    log_probability: float | None = None,
) -> DraftSentence:
    """A sentence tied to the findings it states and to their verdicts, which are given by attribute."""
    support, against = support_of(stated.status, verdicts, parents_of(ontology_for(region)))
    own = [verdicts[key] for key in stated.status if key in verdicts]
    unasked = [key for key in stated.status if key not in verdicts and key not in against]
    return DraftSentence(
        text=stated.text,
        findings=tuple(v.finding for v in own),
        region=region,
        source=source,
        support=support,
        against=against,
        unverified=(*stated.extra, *unasked),
        probabilities={v.finding: v.probability for v in own},
        peaks_lps={v.finding: v.peak_lps for v in own if v.peak_lps is not None},
        neighbours=neighbours,
        log_probability=log_probability,
    )


def support_of(
    status: Mapping[str, int], verdicts: Mapping[str, Verdict], parents: Mapping[str, str]
) -> tuple[Support, tuple[str, ...]]:
    """Whether all that is stated agrees with the verdicts, and which attributes do not.

    What is undecided supports only a doubt. A trait of a finding that is absent is contradicted with it; `parents` says of what
    finding each trait is.
    """
    against, backed = [], False
    for key, value in status.items():
        verdict, parent = verdicts.get(key), verdicts.get(parents.get(key, ""))
        if parent is not None and parent.verdict == "absent":
            against.append(key)
        elif verdict is not None:
            against += [key] * (verdict.verdict != _MEANS[value])
            backed |= verdict.verdict == _MEANS[value]
    if against:
        return "not supported", tuple(against)
    return ("supported" if backed else "not checked"), ()


def parents_of(ontology: Ontology) -> dict[str, str]:
    """Finding that each trait belongs to, by attribute."""
    rules = ontology.attributes
    return dict.fromkeys((*rules["flags"], rules["large"]["key"]), rules["of"]) if rules else {}


def phrases_of(ontology: Ontology) -> dict[str, str]:
    """What each present-or-absent attribute is called in a sentence, such as ``a left pleural effusion``."""
    out = {}
    for name, side, rules in binary_attributes(ontology):
        label = str(rules.get("label", name.replace("_", " ")))
        said = rules.get("say", label)
        out[name] = (said if isinstance(said, str) else label).replace("{side}", side)
    return out
