"""How the report of another hospital is built: phrases, names of sides and places, headings and their order. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Words = tuple[str, ...]


@dataclass(frozen=True)
class Style:
    """One voice.

    Args:
        say: phrases by what they state; slots with a capital are written with one.
        sides, poles, grades, gradely: words for them; short: name of each kidney where letters are saved.
        places: where in which kidney; headed_places: where, below a heading that names the kidney.
        amounts: of pleural fluid, from 0, 20 and 45 mm; scans, timings: what was done, by coverage and by phase.
        headers: of the sections, one choice a report; orders: which sections there are, and their order.
        impression_only, headed, centimetres, tight: shares of reports without findings, of reports with a heading for each
            kidney, of reports in centimetres, and of lengths without a space before the unit.
        joints: before the first trait of a mass, and before the last; blocks: headings of chest and of other organs.
    """

    say: Mapping[str, Words]
    sides: Mapping[str, Words]
    short: Mapping[str, str]
    poles: Mapping[str, Words]
    places: Words
    headed_places: Words
    grades: Mapping[str, Words]
    gradely: Mapping[str, Words]
    amounts: tuple[str, str, str]
    scans: Mapping[str, Words]
    timings: Mapping[str, Words]
    headers: tuple[Mapping[str, str], ...]
    orders: tuple[Words, ...]
    impression_only: float
    headed: float
    centimetres: float
    tight: float
    joints: tuple[str, str]
    blocks: Mapping[str, Words]
