"""The volume viewer in the page: describes picture, evidence and cursor to the browser component, or says why it cannot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import streamlit as st

from medvl.errors import InputError
from medvl.geometry import Geometry

from .pictures import Picture
from .station import IMAGE, TOKEN_SECONDS, station
from .study import FindingRecord, Study
from .transport import STATIC, picture_url, script_url
from .volumes import index_map
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


class Listed(Protocol):
    """A line of the worklist."""

    @property
    def case_id(self) -> str:
        """Which study."""

    @property
    def status(self) -> str:
        """What became of it."""


def read_ahead(studies: Sequence[Listed], study: Study) -> None:
    """Read the image of the next study of the worklist in the background, so that it opens at once."""
    readable = [other.case_id for other in studies if other.status == "done"]
    after = readable[readable.index(study.case_id) + 1 :] if study.case_id in readable else readable
    station().ahead.wish(after[:1])


def show(study: Study, picture: Picture, finding: FindingRecord | None, jump: str) -> bool:
    """Draw the component; False when the browser reported that it cannot run it.

    Args:
        study: the study on the page.
        picture: its image.
        finding: whose evidence is laid over the image; None for the image alone.
        jump: changes whenever the reader asks to be taken to the finding.
    """
    return _draw("volume_view", _described(study, picture, finding, target_lps(study, finding) if finding else None, jump))


@dataclass(frozen=True, eq=False)
class Side:
    """One of two studies beside each other.

    Args:
        title: short heading; plain text.
        study: the study, of the open results folder.
        picture: its image.
        finding: whose evidence is laid over it; None for the image alone.
        anchor_lps: the place that corresponds to the other side's, in LPS mm of this patient; both sides open there and keep
            the same distance from it, in mm along the patient's axes. None: the same share of the scanned length.
    """

    title: str
    study: Study
    picture: Picture
    finding: FindingRecord | None = None
    anchor_lps: tuple[float, float, float] | None = None


def show_pair(left: Side, right: Side, *, jump: str, key: str = "pair") -> bool:
    """Draw two studies with linked cursor, scrolling and window; False when the browser reported that it cannot.

    Args:
        left: the study being read.
        right: the study it is compared with.
        jump: changes whenever the reader asks to be taken to the anchors.
        key: name of the pair; two pairs on one page need two.
    """
    drawn = []
    for column, side, name in zip(st.columns(2, gap="small"), (left, right), ("left", "right"), strict=True):
        data = _described(side.study, side.picture, side.finding, side.anchor_lps, jump)
        anchor = None if side.anchor_lps is None else list(side.anchor_lps)
        data |= {"title": side.title, "preset": default_window(left.study), "link": {"group": key, "anchor": anchor}}
        with column:
            drawn.append(_draw(f"{key}_{name}", data))
    return all(drawn)


def _described(
    study: Study, picture: Picture, finding: FindingRecord | None, point: tuple[float, float, float] | None, jump: str
) -> dict[str, Any]:
    """What the component is told of one study; `point` is where it opens."""
    return {
        "script": script_url(),
        "presets": [{"id": name, "label": name, "window": list(window)} for name, window in WINDOWS_HU.items()],
        "preset": default_window(study),
        "volume": {
            "id": f"{study.case_id}/{station().version(study.case_id, IMAGE)}",
            "url": _link(study.case_id, IMAGE),
            "shape": list(picture.geometry.shape_dhw),
            "axes": picture.geometry.axes,
            "toPatient": picture.geometry.affine_lps.ravel().tolist(),
            "fromPatient": np.linalg.inv(picture.geometry.affine_lps).ravel().tolist(),
        },
        "overlay": _overlay(study, picture.geometry, finding),
        "cursor": _cursor(study, picture.geometry, point, jump),
    }


def _draw(key: str, data: dict[str, Any]) -> bool:
    told = _component(key=key, data=data, on_failed_change=_ignore, on_renew_change=_renew).get("failed")
    return told not in ("viewer", data["volume"]["id"])  # else another study failed before


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


def _cursor(study: Study, image: Geometry, point: tuple[float, float, float] | None, jump: str) -> dict[str, Any] | None:
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
