"""Where voxels lie in the patient: the one place for axis order, left/right and superior/inferior signs.

Conventions, everywhere in medvl: arrays are (D, H, W) = slice, row, column; an affine maps that index to patient
millimetres in LPS (DICOM: x grows to the patient's Left, y to Posterior, z to Superior); axes are named by where D, H and W
grow, so ``"SPL"`` is a head-up stack whose rows run to the back and whose columns run to the patient's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))
_RAS_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Geometry:
    """A grid in the patient.

    Args:
        shape_dhw: voxels along D, H, W; each at least 1.
        affine_lps: (4, 4) float64, index (d, h, w, 1) to LPS mm at voxel centres; invertible.

    Raises:
        ValueError: the affine is singular, not finite, or the shape is not three positive numbers.
    """

    shape_dhw: tuple[int, int, int]
    affine_lps: Array

    def __post_init__(self) -> None:
        affine = np.array(self.affine_lps, dtype=np.float64)
        shape = tuple(int(n) for n in self.shape_dhw)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError(f"affine_lps must be a finite 4x4 matrix, got shape {affine.shape}")
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape_dhw must be three positive numbers, got {shape}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError(f"affine_lps is singular: {affine[:3, :3].tolist()}")
        affine.setflags(write=False)
        object.__setattr__(self, "affine_lps", affine)
        object.__setattr__(self, "shape_dhw", shape)

    def __eq__(self, other: object) -> bool:
        """Same shape and the same affine to 1e-4 mm."""
        if not isinstance(other, Geometry):
            return NotImplemented
        return self.shape_dhw == other.shape_dhw and bool(np.allclose(self.affine_lps, other.affine_lps, atol=1e-4))

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along D, H, W, in mm."""
        d, h, w = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(d), float(h), float(w)

    @cached_property
    def directions(self) -> Array:
        """(3, 3) float64; column k is the unit vector in LPS along which axis k of (D, H, W) grows."""
        return np.asarray(self.affine_lps[:3, :3] / np.array(self.spacing_mm))

    @cached_property
    def axes(self) -> str:
        """Nearest patient direction of growth of D, H and W, such as ``"SPL"``; each patient axis is named once."""
        strength = np.abs(self.directions)
        letters = ["", "", ""]
        for _ in range(3):
            world, index = np.unravel_index(int(np.argmax(strength)), (3, 3))
            letters[index] = _LETTERS[world][int(self.directions[world, index] > 0)]
            strength[world, :] = -1.0
            strength[:, index] = -1.0
        return "".join(letters)

    @cached_property
    def shear_deg(self) -> float:
        """Largest departure from a right angle between two axes, in degrees; 0 for an orthogonal grid."""
        cosines = self.directions.T @ self.directions - np.eye(3)
        return float(np.degrees(np.arcsin(min(1.0, float(np.abs(cosines).max())))))

    @cached_property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine_lps[:3, :3]))) / 1000.0

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Edge lengths along D, H, W in mm, voxel borders included."""
        d, h, w = (n * s for n, s in zip(self.shape_dhw, self.spacing_mm, strict=True))
        return d, h, w

    @property
    def center_lps(self) -> Array:
        """(3,) LPS mm of the middle of the grid."""
        return self.to_lps((np.array(self.shape_dhw) - 1) / 2)

    def to_lps(self, index_dhw: ArrayLike) -> Array:
        """(..., 3) LPS mm of (..., 3) voxel indices, which may be fractional."""
        index = np.asarray(index_dhw, dtype=np.float64)
        return index @ self.affine_lps[:3, :3].T + self.affine_lps[:3, 3]

    def to_index(self, lps_mm: ArrayLike) -> Array:
        """(..., 3) fractional voxel indices of (..., 3) LPS mm."""
        points = np.asarray(lps_mm, dtype=np.float64) - self.affine_lps[:3, 3]
        return points @ np.linalg.inv(self.affine_lps[:3, :3]).T

    def contains(self, lps_mm: ArrayLike) -> NDArray[np.bool_]:
        """(...) True where the (..., 3) LPS points lie inside the grid, voxel borders included."""
        index = self.to_index(lps_mm)
        return np.asarray(((index >= -0.5) & (index <= np.array(self.shape_dhw) - 0.5)).all(axis=-1))

    def crop(self, start_dhw: tuple[int, int, int], shape_dhw: tuple[int, int, int]) -> Geometry:
        """The grid that starts at voxel `start_dhw` of this one and has `shape_dhw` voxels; it may reach outside."""
        affine = self.affine_lps.copy()
        affine[:3, 3] = self.to_lps(start_dhw)
        return Geometry(shape_dhw, affine)

    @property
    def affine_ras_ijk(self) -> Array:
        """(4, 4) nibabel's affine, (i, j, k) = (column, row, slice) to RAS mm, of the array transposed to (W, H, D)."""
        return np.asarray(_RAS_FLIP @ self.affine_lps[:, [2, 1, 0, 3]])

    @classmethod
    def from_ras_ijk(cls, shape_ijk: tuple[int, int, int], affine_ras: ArrayLike) -> Geometry:
        """Geometry of the transpose to (K, J, I) of a nibabel array with its (4, 4) RAS affine."""
        affine = _RAS_FLIP @ np.asarray(affine_ras, dtype=np.float64)
        i, j, k = shape_ijk
        return cls((k, j, i), affine[:, [2, 1, 0, 3]])

    @classmethod
    def centered(cls, center_lps: ArrayLike, shape_dhw: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Geometry:
        """An upright SPL grid whose middle lies at `center_lps` (3,), in mm."""
        directions = np.zeros((3, 3))
        directions[2, 0] = directions[1, 1] = directions[0, 2] = 1.0
        affine = np.eye(4)
        affine[:3, :3] = directions * np.array(spacing_mm)
        affine[:3, 3] = np.asarray(center_lps) - affine[:3, :3] @ ((np.array(shape_dhw) - 1) / 2)
        return cls(shape_dhw, affine)
