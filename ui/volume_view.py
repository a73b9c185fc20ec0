"""The volume viewer in the page: describes picture, evidence and cursor to the browser component, or says why it cannot."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from medvl.errors import InputError
from medvl.geometry import Geometry

from .results import FindingRecord, Study
from .station import IMAGE, TOKEN_SECONDS, station
from .transport import STATIC, picture_url, script_url
from .volumes import Picture, index_map
from .wording import plain

WINDOWS_HU: dict[str, tuple[int, int]] = {  # name: width, level
    "Abdomen": (400, 40),
    "Mediastinum": (350, 50),
    "Lung": (1500, -600),
    "Bone": (1800, 400),
}
_CHEST = ("chest", "heart", "lung", "aorta", "pleura")

_component = st.components.v2.component(
    "medvl_volume_view",
    css=(STATIC / "viewer.css").read_text(encoding="utf-8"),
    js=(STATIC / "boot.js").read_text(encoding="utf-8"),
)


def load_picture(study: Study) -> Picture | None:
    """The study's image; None, with a message on the page, when it cannot be shown."""
    try:
        with st.spinner("Reading images"):
            return station().picture(study.case_id, IMAGE)
    except InputError as error:
        st.info(plain(error.message), icon=":material/hide_image:")
        return None


def show(study: Study, picture: Picture, finding: FindingRecord | None, jump: str) -> bool:
    """Draw the component; False when the browser reported that it cannot run it.

    Args:
        study: the study on the page.
        picture: its image.
        finding: whose evidence is laid over the image; None for the image alone.
        jump: changes whenever the reader asks to be taken to the finding.
    """
    data = {
        "script": script_url(),
        "presets": [{"id": name, "label": name, "window": list(window)} for name, window in WINDOWS_HU.items()],
        "preset": default_window(study),
        "volume": {
            "id": f"{study.case_id}/{station().version(study.case_id, IMAGE)}",
            "url": _link(study.case_id, IMAGE),
            "shape": list(picture.geometry.shape_dhw),
            "axes": picture.geometry.axes,
            "toPatient": picture.geometry.affine_lps.ravel().tolist(),
        },
        "overlay": _overlay(study, picture.geometry, finding),
        "cursor": _cursor(study, picture.geometry, finding, jump),
    }
    result = _component(key="volume_view", data=data, on_failed_change=_ignore, on_renew_change=_renew)
    return not result.get("failed")


def default_window(study: Study) -> str:
    """Mediastinum when every region lies in the chest, else abdomen."""
    names = [region.name for region in study.regions]
    return "Mediastinum" if names and all(name.startswith(_CHEST) for name in names) else "Abdomen"


def evidence_problem(study: Study, finding: FindingRecord) -> str | None:
    """Why no evidence can be laid over the image; None when it can."""
    if finding.heatmap is None:
        return "No evidence map was made for this finding."
    try:
        station().picture(study.case_id, finding.heatmap)
    except InputError as error:
        return error.message
    return None


def _overlay(study: Study, image: Geometry, finding: FindingRecord | None) -> dict[str, Any] | None:
    if finding is None or finding.heatmap is None or evidence_problem(study, finding):
        return None
    heat = station().picture(study.case_id, finding.heatmap)
    return {
        "id": f"{study.case_id}/{finding.heatmap}/{station().version(study.case_id, finding.heatmap)}",
        "url": _link(study.case_id, finding.heatmap),
        "shape": list(heat.geometry.shape_dhw),
        "fromVolume": index_map(image, heat.geometry).ravel().tolist(),
    }


def target_lps(study: Study, finding: FindingRecord) -> tuple[float, float, float] | None:
    """Where a click on the finding leads, in LPS mm: the evidence's peak, else the middle of its region."""
    middle = next((region.center_lps for region in study.regions if region.name == finding.region), None)
    return finding.peak_lps or middle


def _cursor(study: Study, image: Geometry, finding: FindingRecord | None, jump: str) -> dict[str, Any] | None:
    point = target_lps(study, finding) if finding else None
    if point is None or not bool(image.contains(point)):
        return None
    return {"id": f"{study.case_id}/{jump}", "index": image.to_index(point).tolist()}


def _link(case_id: str, name: str) -> str:
    """A picture's URL, kept for half its life so that a rerun of the page sends the browser nothing new."""
    links: dict[tuple[str, str], tuple[str, float]] = st.session_state.setdefault("links", {})
    now = time.monotonic()
    url, made = links.get((case_id, name), ("", -TOKEN_SECONDS))
    if now - made > TOKEN_SECONDS / 2:
        url, made = picture_url(case_id, name), now
        links[case_id, name] = url, made
    return url


def _renew() -> None:
    st.session_state["links"] = {}


def _ignore() -> None:
    """Streamlit asks for a callback per state; the page reads the state itself."""
