"""Whether a findings list can be asked of a bundle as it was meant: what is wrong with it, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from medvl.heads.answering import Answering
from medvl.heads.ways import Streams, Towers
from medvl.text.prompts import Finding, FindingList

_NO_LIMIT = 100_000


class Problem(NamedTuple):
    """What is wrong with a finding: an `error` makes the list unusable, a `warning` should be read."""

    level: Literal["error", "warning"]
    finding: str
    message: str


def check_list(findings: FindingList, kinds: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    """What can be seen without a model: unknown regions, contradictions, repetitions, sides.

    Args:
        findings: to be asked.
        kinds: regions by kind of the bundle.
    """
    problems = [problem for finding in findings.findings for problem in _one(finding, kinds)]
    asked: dict[tuple[str, tuple[str, ...], tuple[str, ...]], str] = {}
    for finding in findings.findings:
        present, absent = finding.prompts("x_left")
        what = (finding.region, tuple(sorted(set(present))), tuple(sorted(set(absent))))
        if what in asked:
            problems.append(Problem("error", finding.key, f"asks the very same as {asked[what]}; remove one of them"))
        asked.setdefault(what, finding.key)
    return problems


def _one(finding: Finding, kinds: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
    key = finding.key
    if finding.region not in kinds:
        yield Problem("error", key, f"region {finding.region} is not known; the bundle knows {', '.join(kinds)}")
        return
    if not finding.present or not finding.absent:
        yield Problem("error", key, "needs at least one present and one absent descriptor")
        return
    regions = kinds[finding.region]
    sided = len(regions) > 1 and all(name.endswith(("_left", "_right")) for name in regions)
    raw = [*finding.templates, *finding.present, *finding.absent]
    if not sided and any("{side}" in text for text in raw):
        yield Problem("error", key, f"uses {{side}}, but {finding.region} has no sides")
    if sided and not any("{side}" in text for text in raw):
        yield Problem("warning", key, "never says {side}: left and right are asked in the same words")
    for frame in finding.templates:
        if frame.count("{}") != 1:
            yield Problem("error", key, f"template {frame!r} needs exactly one {{}} for the descriptor")
    present, absent = finding.prompts(regions[0])
    both = sorted(set(present) & set(absent))
    if both:
        yield Problem("error", key, f"{both[0]!r} is both present and absent")
    left = next((text for text in (*present, *absent) if "{" in text or "}" in text), None)
    if left is not None and all(frame.count("{}") == 1 for frame in finding.templates):
        yield Problem("error", key, f"{left!r} still holds a brace; only {{}} and {{side}} are filled in")
    for name, side in (("present", present), ("absent", absent)):
        if len(set(side)) < len(side):
            yield Problem("warning", key, f"says the same {name} sentence twice")
        if len(set(side)) == 1:
            yield Problem("warning", key, f"has one {name} wording only: its spread over paraphrases says little")


def check_read(findings: FindingList, answering: Answering) -> list[Problem]:
    """What the model's reader makes of the prompts: sentences that would be cut, and words it has never seen."""
    if isinstance(answering, Streams):
        return [Problem("warning", "", "concept streams answer by their own queries; the prompts of the list are not read")]
    if not isinstance(answering, Towers):
        return []
    tower, problems = answering.system.clip.text, list[Problem]()
    for finding in findings.findings:
        texts = [text for region in answering.kinds[finding.region] for side in finding.prompts(region) for text in side]
        rows = tower.rows(texts, _NO_LIMIT)
        longest, text = max((len(ids), text) for (ids, _), text in zip(rows, texts, strict=True))
        if longest > tower.max_length:
            told = f"{text[:60]!r}... has {longest} tokens, the model reads {tower.max_length}; the rest would be cut"
            problems.append(Problem("error", finding.key, told))
        strange = next((text for (ids, _), text in zip(rows, texts, strict=True) if tower.unknown_id in ids), None)
        if tower.unknown_id is not None and strange is not None:
            problems.append(Problem("warning", finding.key, f"{strange[:60]!r} holds characters that the model has never seen"))
    return problems
