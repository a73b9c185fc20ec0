"""Why a case is like another: what the model says of findings here and there, how alike each region is, and where."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import streamlit as st
from numpy.typing import ArrayLike, NDArray

from medvl.errors import MedvlError

from . import focus
from .embeddings import Vectors
from .extras import extras
from .maps import map_along
from .study import Study
from .wording import finding_name, plain, spoken


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


def cosines(here: Mapping[str, NDArray[np.float32]], there: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """Cosine of every region that both have, the most alike first."""
    found = {name: float(here[name] @ there[name]) for name in here if name in there and here[name].shape == there[name].shape}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def contributions(found: Mapping[str, float]) -> str:
    """What each region adds to the likeness of the two cases, which is the mean over their regions; empty for a single one."""
    if len(found) < 2:
        return ""
    parts = ", ".join(f"{spoken(name)} {value / len(found):+.3f}" for name, value in found.items())
    whole = sum(found.values()) / len(found)
    return f"Whole case {whole:.3f} = {parts}"


def show_where(study: Study, vectors: Vectors, region: str, case: str, vector: ArrayLike) -> None:
    """A button that lays over the image what makes a region like that of another case, whose unit vector (E,) is given."""
    if extras().bundle is None and extras().opened_bundle is None:
        return
    now = focus.asked_map(study)
    told = f"what makes the {spoken(region)} like that of {case}"
    drawn = now is not None and now[1] == told
    args = () if drawn else (study, vectors, region, np.asarray(vector, dtype=np.float64), told)
    st.button(
        "Hide where" if drawn else "Where",
        key=f"where_{case}_{region}",
        on_click=focus.hide_map if drawn else _draw,
        args=args,
        help="The places of the region that add most to its likeness",
    )


def _draw(study: Study, vectors: Vectors, region: str, vector: NDArray[np.float64], told: str) -> None:
    try:
        focus.show_map(study, map_along(study, vectors, region, vector, told), told)
    except MedvlError as error:
        st.session_state["similar_note"] = str(error)


def show_note() -> None:
    """Why the map asked for was not drawn."""
    if told := st.session_state.pop("similar_note", None):
        st.info(plain(told))
