"""The R.E.N.A.L. nephrometry score of a renal mass (Kutikov and Uzzo, J Urol 2009) from the attributes of a report."""

from __future__ import annotations

from collections.abc import Mapping

from medvl.renal_score import COUNTING, RenalScore, no_score, radius_class, score_of
from medvl.text.labels import Value
from medvl.text.scope import PRESENT


def renal_score(labels: Mapping[str, Value]) -> RenalScore:
    """The score from the kidney attributes of `extract_text`. Nothing is guessed: a part that no words state is None.

    "Exophytic" without a share counts as half or more outside, as `mass_exophytic` does; a mass said not to be exophytic
    scores 2 or 3, so its part stays open unless the report says which.
    """
    if labels.get("renal_mass") != PRESENT:
        return no_score("no renal mass is stated")
    classes = {name: _word(labels.get(name)) for name in (*COUNTING, "mass_face")}
    size = labels.get("mass_size_mm")
    classes["renal_radius"] = None if size is None else radius_class(float(size))
    if classes["mass_growth"] is None and labels.get("mass_exophytic") == PRESENT:
        classes["mass_growth"] = "mostly_exophytic"
    touch = labels.get("mass_hilar")
    return score_of(classes, None if touch is None else touch == "hilar", "the report does not state")


def _word(value: Value) -> str | None:
    """A class name, or None where nothing is stated."""
    return value if isinstance(value, str) else None
