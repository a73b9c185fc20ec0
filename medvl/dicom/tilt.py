"""Gantry tilt: sheared stacks to orthogonal grids, each voxel at its true place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.geometry import Geometry

OUTSIDE_HU = -1024


def upright(stored: Geometry) -> Geometry:
    """The orthogonal grid that keeps the planes of a sheared one: same rows, columns and slice planes, larger by the drift."""
    shift = _drift(stored)
    low, high = _margins(stored, shift)
    affine = stored.affine_lps.copy()
    normal = np.cross(affine[:3, 2], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    affine[:3, 0] = normal * float(affine[:3, 0] @ normal)
    affine[:3, 3] -= affine[:3, 1] * low[0] + affine[:3, 2] * low[1]
    d, h, w = stored.shape_dhw
    return Geometry((d, h + low[0] + high[0], w + low[1] + high[1]), affine)


def straighten(values: NDArray[Any], stored: Geometry) -> NDArray[Any]:
    """The values of a sheared stack on the grid of `upright(stored)`.

    Each slice stays in its plane and is shifted along rows and columns by linear interpolation; where a neighbour lies
    outside the slice the value is `OUTSIDE_HU`.

    Args:
        values: (D, H, W) int16 or float32 on the grid `stored`.
        stored: the sheared grid.

    Returns:
        (D, H', W') of the same dtype; integers are rounded.
    """
    shift = _drift(stored)
    low, _ = _margins(stored, shift)
    result = np.full(upright(stored).shape_dhw, OUTSIDE_HU, values.dtype)
    for d in range(values.shape[0]):
        offset = np.round(d * shift + np.array(low), 9)
        moved = _shift_rows(values[d].astype(np.float32), float(offset[0] % 1.0))
        moved = _shift_rows(moved.T, float(offset[1] % 1.0)).T
        top, left = int(np.floor(offset[0])), int(np.floor(offset[1]))
        known = np.isfinite(moved)
        window = result[d, top : top + moved.shape[0], left : left + moved.shape[1]]
        moved = np.rint(moved) if values.dtype.kind == "i" else moved
        window[known] = moved[known].astype(values.dtype)
    return result


def _drift(stored: Geometry) -> NDArray[np.float64]:
    """(2,) rows and columns by which each slice lies further than the one below it."""
    rows, columns = stored.affine_lps[:3, 1], stored.affine_lps[:3, 2]
    step = stored.affine_lps[:3, 0]
    drift = np.array([step @ rows / (rows @ rows), step @ columns / (columns @ columns)])
    drift[np.abs(drift) * (stored.shape_dhw[0] - 1) < 1e-3] = 0.0
    return drift


def _margins(stored: Geometry, shift: NDArray[np.float64]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns to add before and behind so that every slice fits."""
    total = shift * (stored.shape_dhw[0] - 1)
    low = np.ceil(np.maximum(0, -total) - 1e-6).astype(int)
    high = np.ceil(np.maximum(0, total) - 1e-6).astype(int)
    return (int(low[0]), int(low[1])), (int(high[0]), int(high[1]))


def _shift_rows(plane: NDArray[np.float32], fraction: float) -> NDArray[np.float32]:
    """(H, W) to (H, W) or (H + 1, W): row k becomes the value at k - fraction; NaN where a neighbour is missing."""
    if fraction < 1e-6:
        return plane
    result = np.full((plane.shape[0] + 1, plane.shape[1]), np.nan, np.float32)
    result[1:-1] = plane[1:] + (plane[:-1] - plane[1:]) * np.float32(fraction)
    return result
