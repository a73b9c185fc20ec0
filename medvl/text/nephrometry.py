"""The R.E.N.A.L. nephrometry score of a renal mass (Kutikov and Uzzo, J Urol 2009) from the attributes of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medvl.text.labels import Value
from medvl.text.ontology import built_in
from medvl.text.scope import PRESENT

SMALL_MM, LARGE_MM = 40.0, 70.0


@dataclass(frozen=True)
class RenalScore:
    """Parts and total; what the report leaves open is None.

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

    def __str__(self) -> str:
        return self.reason if self.total is None else f"{self.total}{self.face or ''}{'h' if self.hilar else ''}"


def radius_class(size_mm: float) -> str:
    """Class of `renal_radius` for a largest diameter in mm: 4 cm or less, 7 cm or more, or between."""
    if size_mm <= SMALL_MM:
        return "at_most_4_cm"
    return "between_4_and_7_cm" if size_mm < LARGE_MM else "at_least_7_cm"


def renal_score(labels: Mapping[str, Value]) -> RenalScore:
    """The score from the kidney attributes of `extract_text`. Nothing is guessed: a part that no words state is None.

    "Exophytic" without a share counts as half or more outside, as `mass_exophytic` does; a mass said not to be exophytic
    scores 2 or 3, so its part stays open unless the report says which.
    """
    if labels.get("renal_mass") != PRESENT:
        return RenalScore(None, None, None, None, None, None, None, "no renal mass is stated")
    size = labels.get("mass_size_mm")
    exophytic = _points("mass_growth", labels.get("mass_growth"))
    if exophytic is None and labels.get("mass_exophytic") == PRESENT:
        exophytic = 1
    parts = {
        "radius": None if size is None else _points("renal_radius", radius_class(float(size))),
        "exophytic": exophytic,
        "nearness": _points("mass_nearness", labels.get("mass_nearness")),
        "location": _points("mass_polar_lines", labels.get("mass_polar_lines")),
    }
    face, touch = _points("mass_face", labels.get("mass_face")), labels.get("mass_hilar")
    missing = [name for name, points in parts.items() if points is None]
    return RenalScore(
        **parts,
        face=face,
        hilar=None if touch is None else touch == "hilar",
        total=None if missing else sum(parts.values()),
        reason=f"the report does not state {', '.join(missing)}" if missing else "",
    )


def _points(attribute: str, value: Value) -> Any:
    """Points of a class in the kidney ontology's dictionary; None without a class."""
    return built_in()[0].dictionary[attribute]["points"].get(value)
