"""Pictures of a scan: upright planes through the peaks of heat maps, as a radiologist holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from medvl.delivery.told import Answer, Told
from medvl.geometry import Geometry
from medvl.records import Volume

MAX_VIEWS = 3
WINDOW_HU = (-160.0, 240.0)
_AIR_HU = -1024.0
_FINEST_MM = 0.7
_LARGEST_PIXELS = 640
_RANK = {"present": 0, "undecided": 1, "absent": 2}
Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Plane:
    """One upright plane.

    Args:
        grey: (rows, columns) float32 in [0, 1], the window applied.
        heat: (rows, columns) float32 in [0, 1], 0 outside the heat map; None without one.
        extent_mm: left, right, bottom, top: of the picture, in LPS mm along its own axes.
        point_mm: where the peak is in those axes.
        edges: letters of left, right, top and bottom.
    """

    grey: NDArray[np.float32] = field(repr=False)
    heat: NDArray[np.float32] | None = field(repr=False)
    extent_mm: tuple[float, float, float, float]
    point_mm: tuple[float, float]
    edges: tuple[str, str, str, str]


@dataclass(frozen=True, eq=False)
class View:
    """Axial and coronal plane through one point.

    Args:
        answer: what is shown; None for a place without a heat map.
        title: what a person reads above it.
        where: the place in words and mm.
    """

    answer: Answer | None
    title: str
    where: str
    axial: Plane
    coronal: Plane


def ranked(answers: Sequence[Answer]) -> list[Answer]:
    """Answers in the order in which they matter: present, undecided, absent; by falling score, what hangs on another last."""

    def weight(answer: Answer) -> tuple[int, bool, float]:
        hangs = any(reason.code == "depends_on_undecided" for reason in answer.reasons)
        return _RANK[answer.verdict], hangs, -(answer.score if answer.score is not None else -1.0)

    return sorted(answers, key=weight)


def views(told: Told, volume: Volume) -> tuple[View, ...]:
    """Planes through the peaks of the answers that matter most; through the regions' centres where no answer has a heat map.

    Args:
        told: answers.
        volume: the scan that they are about.

    Returns:
        At most three views.
    """
    shown = [a for a in ranked(told.answers) if a.heat is not None and a.peak_lps is not None][:MAX_VIEWS]
    if shown:
        return tuple(_view(volume, a.peak_lps, a, f"{a.label}, {a.place}") for a in shown if a.peak_lps is not None)
    found = [r for r in told.regions if r["found"] and r["center_lps"]][:MAX_VIEWS]
    places = [(str(r["name"]).replace("_", " ").capitalize(), tuple(map(float, r["center_lps"]))) for r in found]
    if not places:
        places = [("Middle of the scan", tuple(map(float, volume.geometry.center_lps)))]
    return tuple(_view(volume, (p[0], p[1], p[2]), None, f"{name} (no heat map)") for name, p in places)


def _view(volume: Volume, point: Point, answer: Answer | None, title: str) -> View:
    x, y, z = point
    grid = volume.geometry
    start = {"S": "feet", "I": "head"}.get(grid.axes[0])
    where = f"x {x:.0f}, y {y:.0f}, z {z:.0f} mm (LPS)"
    if start:
        where += f"; slice {round(float(grid.to_index(point)[0])) + 1} of {grid.shape_dhw[0]} from the {start}"
    return View(answer, title, where, _plane(volume, answer, point, axial=True), _plane(volume, answer, point, axial=False))


def _plane(volume: Volume, answer: Answer | None, point: Point, *, axial: bool) -> Plane:
    """Columns run to the patient's left; rows run to the back in an axial plane, to the feet in a coronal one."""
    low, high = _box(volume.geometry)
    down = 1 if axial else 2
    step = max(_FINEST_MM, float(max(high - low)) / _LARGEST_PIXELS)
    across = np.arange(low[0], high[0] + step / 2, step)
    along = np.arange(low[down], high[down] + step / 2, step)
    along = along if axial else along[::-1]
    points = np.empty((len(along), len(across), 3))
    points[...] = point
    points[..., 0] = across[None, :]
    points[..., down] = along[:, None]
    hu = _sampled(volume.hu, volume.geometry, points, _AIR_HU)
    grey = np.clip((hu - WINDOW_HU[0]) / (WINDOW_HU[1] - WINDOW_HU[0]), 0, 1).astype(np.float32)
    heat = None
    if answer is not None and answer.heat is not None and answer.grid is not None:
        heat = np.clip(_sampled(answer.heat, answer.grid, points, 0.0), 0, 1)
    half = step / 2
    bottom = along[-1] + half if axial else along[-1] - half
    top = along[0] - half if axial else along[0] + half
    edges = ("R", "L", "A", "P") if axial else ("R", "L", "H", "F")
    extent = (float(across[0] - half), float(across[-1] + half), float(bottom), float(top))
    return Plane(grey, heat, extent, (point[0], point[down]), edges)


def _box(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest LPS coordinates (3,) of the voxel centres."""
    ends = np.array(geometry.shape_dhw) - 1.0
    corners = geometry.to_lps(np.array(np.meshgrid(*[(0.0, end) for end in ends])).reshape(3, -1).T)
    return corners.min(axis=0), corners.max(axis=0)


def _sampled(values: NDArray[np.generic], grid: Geometry, points: NDArray[np.float64], outside: float) -> NDArray[np.float32]:
    """(...) float32 of an array on `grid` at (..., 3) LPS points, linear, `outside` beyond its voxel centres."""
    index = np.moveaxis(grid.to_index(points), -1, 0)
    index = np.where(np.abs(index - np.round(index)) < 1e-6, np.round(index), index)
    sampled = map_coordinates(values, index, output=np.float32, order=1, mode="constant", cval=outside)
    return np.asarray(sampled, dtype=np.float32)
