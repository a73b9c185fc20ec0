"""How well a mask agrees with a reference: Dice, IoU, volumes, and distances between surfaces in mm.

Empty masks: where both are empty nothing was to be found and nothing was, so every agreement is NaN (not 1: a cohort of healthy
people would else make any silent model perfect). Where one is empty, Dice and IoU are 0 and distances infinite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from medvl.geometry import Geometry

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
MAX_SHEAR_DEG = 0.1


@dataclass(frozen=True)
class Agreement:
    """One mask against its reference.

    Args:
        dice, iou: in [0, 1].
        volume_ml, reference_ml: of both.
        surface_mm: mean distance from every surface voxel of either to the surface of the other (ASSD).
        hd95_mm: the larger of both directions' 95th percentile of those distances.
    """

    dice: float
    iou: float
    volume_ml: float
    reference_ml: float
    surface_mm: float
    hd95_mm: float

    @property
    def error_ml(self) -> float:
        """Volume less reference volume."""
        return self.volume_ml - self.reference_ml


def dice(mask: ArrayLike, reference: ArrayLike) -> float:
    """2 |A and B| / (|A| + |B|) of two masks on one grid; NaN where both are empty.

    Raises:
        ValueError: different shapes.
    """
    a, b = _pair(mask, reference)
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def iou(mask: ArrayLike, reference: ArrayLike) -> float:
    """|A and B| / |A or B| of two masks on one grid; NaN where both are empty.

    Raises:
        ValueError: different shapes.
    """
    a, b = _pair(mask, reference)
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else float("nan")


def surface_distances(mask: ArrayLike, reference: ArrayLike, spacing_mm: Sequence[float]) -> tuple[Array, Array]:
    """Distances in mm from each surface voxel of the mask to the nearest of the reference, and the other way round.

    A surface voxel has one of its six neighbours outside the mask or beyond the array. Distances run between voxel centres.

    Args:
        mask: (D, H, W) bool.
        reference: on the same grid.
        spacing_mm: along D, H, W, at right angles.

    Raises:
        ValueError: different shapes, or an empty mask: it has no surface.
    """
    a, b = _pair(mask, reference)
    if not (a.any() and b.any()):
        raise ValueError("an empty mask has no surface; distances to it are infinite")
    where = np.argwhere(a | b)
    box = tuple(slice(low, high + 1) for low, high in zip(where.min(0), where.max(0), strict=True))
    first, second = (_surface(m[box]) for m in (a, b))
    to_second, to_first = (distance_transform_edt(~m, sampling=tuple(spacing_mm)) for m in (second, first))
    return np.asarray(to_second[first], dtype=np.float64), np.asarray(to_first[second], dtype=np.float64)


def compare(mask: ArrayLike, reference: ArrayLike, geometry: Geometry) -> Agreement:
    """Every measure of a mask against its reference.

    Args:
        mask: (D, H, W) bool.
        reference: on the same grid.
        geometry: the grid; its axes at right angles.

    Raises:
        ValueError: shapes differ, or the grid is sheared.
    """
    a, b = _pair(mask, reference)
    if a.shape != geometry.shape_dhw:
        raise ValueError(f"masks {a.shape} do not lie on a grid of {geometry.shape_dhw}")
    if geometry.shear_deg > MAX_SHEAR_DEG:
        raise ValueError(f"the grid's axes are {geometry.shear_deg:.1f} degrees off a right angle; resample both masks first")
    surface = hd95 = float("inf") if a.any() or b.any() else float("nan")
    if a.any() and b.any():
        there, back = surface_distances(a, b, geometry.spacing_mm)
        surface = float(np.concatenate([there, back]).mean())
        hd95 = float(max(np.percentile(there, 95), np.percentile(back, 95)))
    volumes = [float(m.sum() * geometry.voxel_ml) for m in (a, b)]
    return Agreement(dice(a, b), iou(a, b), volumes[0], volumes[1], surface, hd95)


def pooled_dice(masks: Sequence[ArrayLike], references: Sequence[ArrayLike]) -> float:
    """Dice of all voxels of all cases together, so that marks on empty references count against a model; NaN if all are empty.

    Raises:
        ValueError: shapes differ within a pair.
    """
    both = total = 0
    for mask, reference in zip(masks, references, strict=True):
        a, b = _pair(mask, reference)
        both, total = both + int((a & b).sum()), total + int(a.sum()) + int(b.sum())
    return 2 * both / total if total else float("nan")


def pooled_threshold(maps: Sequence[ArrayLike], references: Sequence[ArrayLike], levels: ArrayLike) -> float:
    """The level whose masks, map >= level, have the best `pooled_dice`; meant for validation patients, to be applied to others.

    Args:
        maps: N (D, H, W) finite.
        references: as many masks, empty ones among them.
        levels: candidates; of equally good ones the highest is taken.

    Raises:
        ValueError: no level, every reference is empty, or a map that is not finite.
    """
    order = np.unique(np.asarray(levels, dtype=np.float64))
    if not len(order):
        raise ValueError("no level to choose from")
    hits, marked, size = np.zeros(len(order)), np.zeros(len(order)), 0
    for heat, reference in zip(maps, references, strict=True):
        values, inside = np.asarray(heat, dtype=np.float64), np.asarray(reference, dtype=bool)
        if values.shape != inside.shape or not np.isfinite(values).all():
            raise ValueError(f"map {values.shape} and mask {inside.shape} differ in shape, or the map is not finite")
        size += int(inside.sum())
        passed = np.searchsorted(order, values, side="right")
        marked += _at_least(passed, len(order))
        hits += _at_least(passed[inside], len(order))
    if not size:
        raise ValueError(f"no finding to choose a threshold on: all {len(maps)} masks are empty")
    scores = 2 * hits / (marked + size)
    return float(order[len(order) - 1 - int(scores[::-1].argmax())])


def _at_least(passed: NDArray[np.int64], n: int) -> Array:
    """How many values passed each of n levels, from how many levels each of them passed."""
    counts = np.bincount(passed.ravel(), minlength=n + 1)
    return np.asarray(counts[::-1].cumsum()[::-1][1:], dtype=np.float64)


def _surface(mask: Mask) -> Mask:
    return np.asarray(mask & ~binary_erosion(mask))


def _pair(mask: ArrayLike, reference: ArrayLike) -> tuple[Mask, Mask]:
    a, b = np.asarray(mask, dtype=bool), np.asarray(reference, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"mask {a.shape} and reference {b.shape} lie on different grids; resample one to the other first")
    return a, b
