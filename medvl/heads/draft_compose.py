"""Drafts from verdicts: what is present in a sentence of a like report, what is absent in one, what is open with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numpy.typing import ArrayLike

from medvl.heads.draft_library import SIZE_MARK, Lookup, ReportLibrary, Taken, states_exactly
from medvl.heads.draft_statements import Stated, linked, ontology_for, parents_of, phrases_of, statements_of
from medvl.heads.drafts import DraftSentence, Source, Verdict, title
from medvl.text.ontology import Ontology
from medvl.text.scope import ABSENT, PRESENT

NEIGHBOURS = 50


def by_region(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Verdict]]:
    """Region to attribute to verdict."""
    out: dict[str, dict[str, Verdict]] = {}
    for verdict in verdicts:
        out.setdefault(verdict.region, {})[verdict.attribute] = verdict
    return out


def grounded_draft(
    verdicts: Sequence[Verdict],
    library: ReportLibrary | None = None,
    embeddings: Mapping[str, ArrayLike] | None = None,
    *,
    exclude: Sequence[str] = (),
    neighbours: int = NEIGHBOURS,
) -> tuple[DraftSentence, ...]:
    """A draft that says what the verdicts say and no more.

    Args:
        verdicts: of all regions.
        library: training reports; without it every sentence is a template.
        embeddings: unit image embedding of each usable region.
        exclude: patients whose reports are not taken, such as the same one.
        neighbours: nearest reports that are looked through for each region.
    """
    out: list[DraftSentence] = []
    for region, own in by_region(verdicts).items():
        taken = Lookup()
        if library is not None and embeddings is not None and region in embeddings:
            taken = Lookup(library.sentences(*library.nearest(embeddings[region], region, neighbours, exclude=exclude)))
        out += _region(region, own, taken)
    return tuple(out)


def captioned_draft(
    verdicts: Sequence[Verdict], texts: Mapping[str, tuple[str, float]], source: Source = "generated"
) -> tuple[DraftSentence, ...]:
    """A captioner's texts, each sentence checked against the verdicts.

    Args:
        verdicts: of all regions.
        texts: by region, with the mean log probability of a token.
        source: of the sentences, where they are no captioner's.
    """
    found = by_region(verdicts)
    return tuple(
        linked(stated, region, source, found.get(region, {}), log_probability=round(score, 4))
        for region, (text, score) in texts.items()
        for stated in statements_of(text, ontology_for(region))
    )


def _region(region: str, own: Mapping[str, Verdict], taken: Lookup) -> list[DraftSentence]:
    if all(v.region_wide for v in own.values()):
        reason = next((r for v in own.values() for r in v.reasons), "it was not usable")
        return [_open(f"{title(region)} not assessed: {reason}.", region, list(own.values()))]
    ontology = ontology_for(region)
    parents = parents_of(ontology)
    out: list[DraftSentence] = []
    for attribute, verdict in own.items():
        if verdict.verdict == "present" and attribute not in parents:
            first, rest = _present(attribute, own, taken, ontology)
            if first is not None:
                out.append(linked(first.stated, region, "retrieved", own, (first.neighbour,)))
            out += [linked(stated, region, "template", own) for stated in rest]
    absent = [v for key, v in own.items() if v.verdict == "absent" and key not in parents]
    out += [linked(stated, region, "template", own) for stated in _absent(absent, region, ontology)]
    phrases = phrases_of(ontology)
    for key, verdict in own.items():
        parent = own.get(parents.get(key, ""))
        if verdict.verdict == "undecided" and (parent is None or parent.verdict != "undecided"):
            reason = "; ".join(verdict.reasons) or "the score is near the threshold"
            called = _bare(phrases.get(key, verdict.label))
            out.append(_open(f"Possible {called}{_at(region)}; this cannot be decided: {reason}.", region, [verdict]))
    return out


def _present(attribute: str, own: Mapping[str, Verdict], taken: Lookup, ontology: Ontology) -> tuple[Taken | None, list[Stated]]:
    """A present finding in the words of the nearest report that says just that, if any, and templates for what is left to say."""
    traits, say = parents_of(ontology), _sayings(ontology)
    fitting = next((t for t in taken if states_exactly(t.stated, attribute, own, traits)), None)
    told = f"There is {phrases_of(ontology)[attribute]}{_at(own[attribute].region)}"
    unsaid = {
        key: verdict.verdict
        for key, verdict in own.items()
        if traits.get(key) == attribute
        and key in say
        and verdict.verdict != "undecided"
        and not (fitting and key in fitting.stated.status)
    }
    if not unsaid:
        return fitting, [] if fitting else [_read(f"{told}.", ontology)]
    ordered = sorted(unsaid, key=lambda key: unsaid[key] == "absent")
    together = _read(f"{told} {', '.join(say[key][unsaid[key]] for key in ordered)}.", ontology)
    means = {key: PRESENT if v == "present" else ABSENT for key, v in unsaid.items() if key in ontology.attributes["flags"]}
    if dict(together.status) == {attribute: PRESENT, **means}:
        return fitting, [together]
    return fitting, [_read(f"{told} {say[key][unsaid[key]]}.", ontology) for key in ordered]


def _sayings(ontology: Ontology) -> dict[str, Mapping[str, str]]:
    """Trait to how it is told of its finding, present or absent; how large it is without a number, which nobody measured."""
    if not ontology.attributes:
        return {}
    flags = {key: rules["say"] for key, rules in ontology.attributes["flags"].items() if "say" in rules}
    large = {"present": f"of large size {SIZE_MARK}", "absent": f"of smaller size {SIZE_MARK}"}
    return {ontology.attributes["large"]["key"]: large, **flags}


def _absent(absent: Sequence[Verdict], region: str, ontology: Ontology) -> list[Stated]:
    """One sentence that denies all of them, or one each where our own reader would miss a part of the list."""
    phrases = phrases_of(ontology)
    named = [_bare(phrases.get(v.attribute, v.label)) for v in absent]
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} or {named[-1]}" if named else ""
    together = _read(f"No {listed}{_at(region)}.", ontology)
    if dict(together.status) == dict.fromkeys((v.attribute for v in absent), ABSENT):
        return [together] if absent else []
    return [_read(f"No {name}{_at(region)}.", ontology) for name in named]


def _bare(phrase: str) -> str:
    return phrase.removeprefix("an ").removeprefix("a ")


def _at(region: str) -> str:
    side = region.partition("_")[2]
    return f" in the {side} {region.partition('_')[0]}" if side else ""


def _read(text: str, ontology: Ontology) -> Stated:
    return statements_of(text, ontology)[0]


def _open(text: str, region: str, verdicts: Sequence[Verdict]) -> DraftSentence:
    """A sentence on what is not known: supported by there being no verdict."""
    peaks = {v.finding: v.peak_lps for v in verdicts if v.peak_lps is not None}
    scores = {v.finding: v.probability for v in verdicts}
    return DraftSentence(
        text, tuple(v.finding for v in verdicts), region, "template", "supported", probabilities=scores, peaks_lps=peaks
    )
