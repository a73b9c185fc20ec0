"""R.E.N.A.L. nephrometry: the classes, cuts and points that texts and masks share.

Source: Kutikov A, Uzzo RG, J Urol 2009;182:844-853. R, E, N and L score 1 to 3 points each; the face (a, p, x) and the hilar
suffix (h) score none. The class names are those of the kidney ontology's dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SMALL_MM, LARGE_MM = 40.0, 70.0
CLOSE_MM, FAR_MM = 4.0, 7.0
COUNTING = {
    "renal_radius": ("at_most_4_cm", "between_4_and_7_cm", "at_least_7_cm"),
    "mass_growth": ("mostly_exophytic", "partly_exophytic", "endophytic"),
    "mass_nearness": ("at_least_7_mm", "between_4_and_7_mm", "at_most_4_mm"),
    "mass_polar_lines": ("outside", "crosses", "between"),
}
FACES = {"anterior": "a", "posterior": "p", "neither": "x"}
_PART_NAMES = {
    "renal_radius": "radius",
    "mass_growth": "exophytic",
    "mass_nearness": "nearness",
    "mass_polar_lines": "location",
}

Complexity = Literal["low", "moderate", "high"]


@dataclass(frozen=True)
class RenalScore:
    """Parts and total; what is not known is None.

    Args:
        radius, exophytic, nearness, location: 1 to 3 points.
        face: ``a`` anterior, ``p`` posterior, ``x`` neither; hilar: touches the main renal artery or vein. Neither counts.
        total: 4 to 12, None unless all four counting parts are known.
        reason: why there is no total; empty when there is one.
    """

    radius: int | None
    exophytic: int | None
    nearness: int | None
    face: str | None
    location: int | None
    hilar: bool | None
    total: int | None
    reason: str

    @property
    def complexity(self) -> Complexity | None:
        """Low for 4 to 6 points, moderate for 7 to 9, high for 10 to 12; None without a total."""
        if self.total is None:
            return None
        return "low" if self.total <= 6 else "moderate" if self.total <= 9 else "high"

    def __str__(self) -> str:
        return self.reason if self.total is None else f"{self.total}{self.face or ''}{'h' if self.hilar else ''}"


def score_of(classes: Mapping[str, str | None], hilar: bool | None, unknown: str) -> RenalScore:
    """The score of attribute classes.

    Args:
        classes: class of each of `COUNTING` and of ``mass_face``; a missing, None or foreign class is unknown.
        hilar: touches the main renal artery or vein, None if not known.
        unknown: how the reason of a missing total begins, such as "the report does not state"; the parts follow.
    """
    parts = {_PART_NAMES[name]: points(name, classes.get(name)) for name in COUNTING}
    missing = [name for name, found in parts.items() if found is None]
    return RenalScore(
        **parts,
        face=FACES.get(classes.get("mass_face") or ""),
        hilar=hilar,
        total=None if missing else sum(found for found in parts.values() if found is not None),
        reason=f"{unknown} {', '.join(missing)}" if missing else "",
    )


def no_score(reason: str) -> RenalScore:
    """A score of which nothing is known, and why."""
    return RenalScore(None, None, None, None, None, None, None, reason)


def points(attribute: str, value: str | None) -> int | None:
    """1 to 3 for a class of one of the `COUNTING` attributes; None for any other value."""
    classes = COUNTING[attribute]
    return classes.index(value) + 1 if value in classes else None


def radius_class(size_mm: float) -> str:
    """Class of `renal_radius` for a largest diameter in mm: 4 cm or less, 7 cm or more, or between."""
    if size_mm <= SMALL_MM:
        return "at_most_4_cm"
    return "between_4_and_7_cm" if size_mm < LARGE_MM else "at_least_7_cm"


def growth_class(share_outside: float, negligible: float = 0.0) -> str:
    """Class of `mass_growth` for the share outside the kidney, 0 to 1; up to `negligible` counts as none."""
    if share_outside >= 0.5:
        return "mostly_exophytic"
    return "partly_exophytic" if share_outside > negligible else "endophytic"


def nearness_class(distance_mm: float) -> str:
    """Class of `mass_nearness` for the distance to the sinus or collecting system in mm: 4 or less, 7 or more, or between."""
    if distance_mm <= CLOSE_MM:
        return "at_most_4_mm"
    return "between_4_and_7_mm" if distance_mm < FAR_MM else "at_least_7_mm"


def polar_class(share_between: float, crosses_midline: bool, negligible: float = 0.0) -> str:
    """Class of `mass_polar_lines` for the share between the polar lines, 0 to 1; up to `negligible` counts as none."""
    if share_between > 0.5 or crosses_midline:
        return "between"
    return "crosses" if share_between > negligible else "outside"
