"""Where the peak of a heat map lies in the patient, and how far from the lesion.

Maps live on token grids: `grid_over` says where their cells lie, so that a peak has a place in mm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from medvl.geometry import Geometry

NEAR_MM = 5.0
Array = NDArray[np.float64]


def grid_over(geometry: Geometry, shape_dhw: tuple[int, int, int]) -> Geometry:
    """The grid of `shape_dhw` cells that fills the same box as `geometry`: where the tokens of a region lie in the patient."""
    ratios = np.array(geometry.shape_dhw) / np.array(shape_dhw)
    affine = geometry.affine_lps.copy()
    affine[:3, :3] *= ratios
    affine[:3, 3] = geometry.to_lps((ratios - 1) / 2)
    return Geometry(shape_dhw, affine)


def peak_lps(heat: ArrayLike, geometry: Geometry) -> Array:
    """(3,) LPS mm of the middle of the highest cell of a map on `geometry`.

    Raises:
        ValueError: the map lies on another grid.
    """
    values = np.asarray(heat)
    if values.shape != geometry.shape_dhw:
        raise ValueError(f"map {values.shape} does not lie on a grid of {geometry.shape_dhw}")
    return geometry.to_lps(np.unravel_index(int(values.argmax()), values.shape))


def peak_distance_mm(heat: ArrayLike, mask: ArrayLike, geometry: Geometry) -> float:
    """Distance in mm from the highest cell to the nearest cell of the mask, 0 inside it; NaN for an empty mask.

    Raises:
        ValueError: different grids.
    """
    values, inside = np.asarray(heat), np.asarray(mask, dtype=bool)
    if values.shape != inside.shape:
        raise ValueError(f"map {values.shape} and mask {inside.shape} lie on different grids; resample one to the other first")
    if not inside.any():
        return float("nan")
    return float(np.linalg.norm(geometry.to_lps(np.argwhere(inside)) - peak_lps(values, geometry), axis=1).min())


def share_near(mask: ArrayLike, geometry: Geometry) -> float:
    """Share of cells within `NEAR_MM` of a mask on a grid with axes at right angles; 0 for an empty one."""
    inside = np.asarray(mask, dtype=bool)
    if not inside.any():
        return 0.0
    return float((distance_transform_edt(~inside, sampling=geometry.spacing_mm) <= NEAR_MM).mean())
