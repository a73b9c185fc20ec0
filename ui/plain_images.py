"""Single slices as plain pictures: the way out when the browser cannot run the viewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from medvl.errors import InputError

from .pictures import Picture
from .study import FindingRecord, Study
from .volume_view import WINDOWS_HU, default_window, target_lps
from .wording import plain

PLANES = {"Axial": (0, 1, 2, False), "Coronal": (1, 0, 2, True), "Sagittal": (2, 0, 1, True)}  # normal, row, column, rows upward
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "I": "S", "S": "I"}


def grey_slice(picture: Picture, plane: str, at: int, window: tuple[int, int]) -> NDArray[np.uint8]:
    """(rows, columns) uint8 greys of slice `at` under a (width, level) window in HU: patient right on the left, head up."""
    normal, _, _, upward = PLANES[plane]
    cut: NDArray[Any] = np.take(picture.voxels, at, axis=normal).astype(np.float32)
    width, level = window
    grey = np.clip((cut - (level - width / 2)) / width, 0.0, 1.0) * 255
    return np.asarray(np.rint(grey[::-1] if upward else grey), dtype=np.uint8)


def side_letters(picture: Picture, plane: str) -> str:
    """Which patient side lies on the picture's left, right, top and bottom."""
    _, row, column, upward = PLANES[plane]
    across, down = picture.geometry.axes[column], picture.geometry.axes[row]
    down = _OPPOSITE[down] if upward else down
    return f"left {_OPPOSITE[across]}, right {across}, top {_OPPOSITE[down]}, bottom {down}"


def show(study: Study, picture: Picture, finding: FindingRecord | None) -> None:
    """Draw the slice that the reader's controls name; a finding moves them to its place."""
    from PIL import Image

    try:
        picture.voxels  # noqa: B018 - waits for them
    except InputError as error:
        st.info(plain(error.message), icon=":material/hide_image:")
        return
    st.caption("Plain images, without evidence maps: the interactive viewer is off or did not start in this browser.")
    left, middle, right = st.columns(3)
    plane = left.selectbox("Plane", list(PLANES), key="plain_plane")
    preset = middle.selectbox("Window", list(WINDOWS_HU), index=list(WINDOWS_HU).index(default_window(study)), key="plain_window")
    normal, row, column, _ = PLANES[plane]
    shape, spacing = picture.geometry.shape_dhw, picture.geometry.spacing_mm
    point = target_lps(study, finding) if finding else None
    start = shape[normal] // 2 if point is None else round(float(picture.geometry.to_index(point)[normal]))
    start, last = min(max(start, 0), shape[normal] - 1), shape[normal] - 1
    place = f"plain_{study.case_id}_{plane}_{finding.key if finding else ''}"
    at = right.slider("Slice", 0, last, start, key=place) if last else 0
    image = Image.fromarray(grey_slice(picture, plane, at, WINDOWS_HU[preset]))
    scale = 640 / max(shape[column] * spacing[column], shape[row] * spacing[row])
    size = (max(1, round(shape[column] * spacing[column] * scale)), max(1, round(shape[row] * spacing[row] * scale)))
    st.image(image.resize(size, Image.Resampling.BILINEAR), caption=f"{plane}: {side_letters(picture, plane)}")
