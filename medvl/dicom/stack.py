"""Do these planes make a volume? Pure geometry: order along the normal, steps, gaps, repeats, tilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvl.geometry import Geometry
from medvl.records import Reason

Array = NDArray[np.float64]
SAME_PLACE_MM = 0.01
STEP_TOLERANCE = 0.02
ROUNDING_MM = 0.06
TILT_DEG = 0.2
STACK_GAP_STEPS = 8


@dataclass(frozen=True)
class Planes:
    """Parallel planes of equal size.

    Args:
        positions: (N, 3) LPS mm of the first voxel of each plane.
        row: (3,) unit vector along which columns are counted; `column` (3,) along which rows are counted.
        spacing: mm between rows, mm between columns.
        shape: rows, columns.
        thickness: nominal slice thickness in mm, None when absent; `tagged_step` and `tilt_tag` likewise.
    """

    positions: Array
    row: Array
    column: Array
    spacing: tuple[float, float]
    shape: tuple[int, int]
    thickness: float | None = None
    tagged_step: float | None = None
    tilt_tag: float | None = None

    @property
    def normal(self) -> Array:
        """(3,) unit vector, row x column."""
        cross = np.cross(self.row, self.column)
        return np.asarray(cross / np.linalg.norm(cross))


@dataclass(frozen=True, eq=False)
class Stack:
    """What the planes make.

    Args:
        order: indices of the planes, ascending along the normal.
        stored: grid of the planes as they are, sheared under gantry tilt; None when they make no grid.
        refused: why they are no volume.
        warnings: what was noticed on planes that are one.
    """

    order: tuple[int, ...]
    stored: Geometry | None
    refused: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()

    @property
    def sheared(self) -> bool:
        """True when the stacking direction is not the normal of the planes."""
        return any(reason.code == "tilt_resampled" for reason in self.warnings)


def places_along(normal: Array, positions: Array) -> Array:
    """(N,) mm of each (N, 3) position along the normal."""
    return np.asarray(positions @ normal)


def place_groups(places: Array) -> list[list[int]]:
    """Indices of planes that share a place, in ascending order of place."""
    order = np.argsort(places, kind="stable")
    groups: list[list[int]] = []
    for index in order:
        if groups and places[index] - places[groups[-1][0]] < SAME_PLACE_MM:
            groups[-1].append(int(index))
        else:
            groups.append([int(index)])
    return groups


def assess(planes: Planes) -> Stack:
    """The verdict on planes at places that may repeat, jump or drift sideways."""
    places = places_along(planes.normal, planes.positions)
    order = tuple(int(k) for k in np.argsort(places, kind="stable"))
    n = len(order)
    if n == 1:
        return Stack(order, _single(planes), (Reason("too_few_slices", "one slice makes no volume; send the whole series"),))
    groups = place_groups(places)
    if len(groups) == 1:
        message = f"all {n} images lie at the same place (bolus monitoring or perfusion); they are not a volume"
        return Stack(order, None, (Reason("same_position", message),))
    if len(groups) < n:
        repeats = n - len(groups)
        message = (
            f"{repeats} of {n} images share a place with a different image and no tag tells the stacks apart; export one stack"
        )
        return Stack(order, None, (Reason("conflicting_slices", message),))
    sorted_places = places[list(order)]
    refused = _irregular(sorted_places)
    if refused is not None:
        return Stack(order, None, (refused,))
    return _grid(planes, order, sorted_places)


def _single(planes: Planes) -> Geometry | None:
    """The grid of one plane when its thickness is known; a thickness is never invented."""
    if not planes.thickness or planes.thickness <= 0:
        return None
    return _geometry(planes, planes.positions[0], planes.normal * planes.thickness, 1)


def _geometry(planes: Planes, origin: Array, step: Array, n: int) -> Geometry:
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 3] = step, origin
    affine[:3, 1], affine[:3, 2] = planes.column * planes.spacing[0], planes.row * planes.spacing[1]
    return Geometry((n, *planes.shape), affine)


def _irregular(places: Array) -> Reason | None:
    """Why the steps are not equal, None when they are.

    Positions are often written to a tenth of a millimetre, so a place may be off the even grid by that rounding.
    """
    gaps = np.diff(places)
    n = len(places)
    index = np.arange(n) - (n - 1) / 2
    even = places.mean() + index * float((index * places).sum() / (index * index).sum())
    step = float(np.median(gaps))
    tolerance = max(STEP_TOLERANCE * step, min(ROUNDING_MM, 0.2 * step))
    if np.abs(places - even).max() <= tolerance and np.abs(gaps - step).max() <= 2 * tolerance:
        return None
    step = float(np.median(gaps[gaps < 1.5 * gaps.min()])) if gaps.min() > 0.5 * step else step
    multiples = np.maximum(1, np.rint(gaps / step))
    wide = multiples > 1
    at = ", ".join(f"{place:.1f}" for place in places[:-1][wide][:3])
    if multiples.max() > STACK_GAP_STEPS and multiples.max() - 1 > 0.5 * n:
        groups = int(wide.sum()) + 1
        message = f"{groups} groups of slices up to {gaps.max():.1f} mm apart, with steps of {step:.2f} mm; export one stack"
        return Reason("several_stacks", message)
    if wide.any() and np.abs(gaps - multiples * step).max() <= 2 * tolerance + STEP_TOLERANCE * multiples.max() * step:
        missing = int((multiples - 1).sum())
        message = (
            f"{int((~wide).sum())} gaps of {step:.2f} mm and {int(wide.sum())} of up to {gaps.max():.2f} mm after {at} mm along "
            f"the normal; {missing} slice{'s are' if missing > 1 else ' is'} missing; export the series again"
        )
        return Reason("missing_slice", message)
    message = f"steps between slices run from {gaps.min():.2f} to {gaps.max():.2f} mm (median {step:.2f}); no regular grid fits"
    return Reason("irregular_spacing", message)


def _grid(planes: Planes, order: Sequence[int], places: Array) -> Stack:
    """The grid of evenly spaced planes, with its shear, and what the tags say otherwise."""
    n = len(order)
    positions = planes.positions[list(order)]
    step = (positions[-1] - positions[0]) / (n - 1)
    along = float((places[-1] - places[0]) / (n - 1))
    line = positions[0] + np.arange(n)[:, None] * step
    sideways = np.linalg.norm((positions - line) - np.outer((positions - line) @ planes.normal, planes.normal), axis=1).max()
    if sideways > max(0.5 * min(planes.spacing), 2 * ROUNDING_MM):
        message = f"slices are shifted sideways by up to {sideways:.1f} mm against each other; reconstruct them with one centre"
        return Stack(tuple(order), None, (Reason("shifted_slices", message),))
    drift = step - along * planes.normal
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(drift), along)))
    sheared = tilt > TILT_DEG and float(np.linalg.norm(drift)) * (n - 1) > max(0.25 * min(planes.spacing), ROUNDING_MM)
    if tilt > 60:
        message = f"the stacking direction lies {tilt:.0f} degrees off the normal of the slices; this is not a tilted gantry"
        return Stack(tuple(order), None, (Reason("shifted_slices", message),))
    if not sheared:
        step = along * planes.normal
    stored = _geometry(planes, positions[0], step, n)
    return Stack(tuple(order), stored, (), tuple(_tag_warnings(planes, along, tilt if sheared else 0.0)))


def _tag_warnings(planes: Planes, step: float, tilt: float) -> list[Reason]:
    """Where the geometry and the tags disagree; the geometry is believed."""
    found = []
    if tilt:
        tagged = planes.tilt_tag is not None and abs(abs(planes.tilt_tag) - tilt) < 0.5
        source = "as tagged" if tagged else "seen in the positions only, not in the tag"
        message = (
            f"gantry tilt of {tilt:.1f} degrees, {source}; slices were shifted by linear interpolation to an orthogonal grid at "
            "their true places, outside filled with -1024"
        )
        found.append(Reason("tilt_resampled", message))
    elif planes.tilt_tag is not None and abs(planes.tilt_tag) > TILT_DEG:
        message = (
            f"the tag says gantry tilt {planes.tilt_tag:.1f} degrees, the positions stack straight; the positions are believed"
        )
        found.append(Reason("tilt_tag_ignored", message))
    tagged_step = planes.tagged_step
    if tagged_step is not None and tagged_step > 0 and min(abs(tagged_step - s) for s in _steps(step, tilt)) > 0.05 * step:
        message = f"the tag says {tagged_step:.2f} mm between slices, the positions say {step:.2f} mm; the positions are believed"
        found.append(Reason("spacing_tag_ignored", message))
    thickness = planes.thickness
    if thickness is not None and thickness > 0 and thickness > 1.05 * step / max(0.2, np.cos(np.radians(tilt))):
        found.append(
            Reason("overlapping_slices", f"slices {thickness:.2f} mm thick every {step:.2f} mm overlap; positions give the step")
        )
    elif thickness is not None and 0 < thickness < 0.95 * step:
        found.append(
            Reason("gaps_between_slices", f"slices {thickness:.2f} mm thick every {step:.2f} mm leave tissue between them unseen")
        )
    return found


def _steps(step: float, tilt: float) -> tuple[float, float]:
    """The step along the normal and along the table: scanners write either."""
    return step, step / float(np.cos(np.radians(tilt)))
