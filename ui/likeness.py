"""Why a case is like another, as far as findings tell: what the model says here against what is said there."""

from __future__ import annotations

from collections.abc import Mapping

from .study import Study
from .wording import finding_name


def likeness(study: Study, region: str, said: Mapping[str, int]) -> list[str]:
    """What the verdicts here and what is said there (1 present, 0 absent) have in common, and where they part."""
    here = {f.finding: f for f in study.findings if f.region == region and f.verdict != "undecided"}
    both = [finding_name(f) for key, f in here.items() if f.verdict == "present" and said.get(key) == 1]
    neither = sum(f.verdict == "absent" and said.get(key) == 0 for key, f in here.items())
    only_here = [finding_name(f) for key, f in here.items() if f.verdict == "present" and said.get(key) == 0]
    only_there = [finding_name(f) for key, f in here.items() if f.verdict == "absent" and said.get(key) == 1]
    out = [
        f"{title}: {', '.join(names)}"
        for title, names in (("In both", both), ("Only here", only_here), ("Only there", only_there))
        if names
    ]
    out += [f"Absent in both: {neither}"] if neither else []
    return out or ["Nothing is said there of the findings that are decided here."]
