"""Painting soft-edged solids into a CT grid: coverage of each voxel by a shape, so that partial volume comes out right.

Large shapes use the signed distance to their surface and the width of the voxel (slab thickness along D) along the surface
normal; small ones (diameter below four voxels) are averaged over sub-voxel samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.geometry import Geometry

F32 = NDArray[np.float32]
Window = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Canvas:
    """An upright grid (axes S/I, P/A, L/R) being painted, in the body's own frame, which is turned about z.

    Args:
        hu: (D, H, W) float32, painted in place.
        x, y: (1, H, W) float32 body coordinates in mm; z: (D, 1, 1) float32.
        voxel_mm: sampling widths along x, y, z; along z the slab thickness.
    """

    hu: F32
    x: F32
    y: F32
    z: F32
    voxel_mm: tuple[float, float, float]

    @classmethod
    def over(cls, geometry: Geometry, thickness_mm: float, turn_deg: float, background_hu: float = -1000.0) -> Canvas:
        """An empty canvas on `geometry`, whose axes must be parallel to the patient's.

        Raises:
            ValueError: the grid is oblique or its axes are permuted.
        """
        affine = geometry.affine_lps
        matrix = affine[:3, :3][[2, 1, 0]]
        if np.abs(matrix - np.diag(np.diag(matrix))).max() > 1e-6:
            raise ValueError(f"the phantom is painted on upright grids only, got axes {geometry.axes} with an oblique affine")
        d, h, w = geometry.shape_dhw
        z = affine[2, 3] + affine[2, 0] * np.arange(d)
        y = (affine[1, 3] + affine[1, 1] * np.arange(h))[:, None]
        x = (affine[0, 3] + affine[0, 2] * np.arange(w))[None, :]
        cos, sin = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
        _, sh, sw = geometry.spacing_mm
        return cls(
            np.full(geometry.shape_dhw, background_hu, np.float32),
            (cos * x + sin * y)[None].astype(np.float32),
            (-sin * x + cos * y)[None].astype(np.float32),
            z[:, None, None].astype(np.float32),
            (sw, sh, thickness_mm),
        )

    def window(self, center: ArrayLike, reach_mm: float) -> Window | None:
        """The part of the grid within `reach_mm` of `center` (x, y, z), or None when it lies outside."""
        cx, cy, cz = np.asarray(center, dtype=np.float64)
        near_z = np.flatnonzero(np.abs(self.z[:, 0, 0] - cz) <= reach_mm + self.voxel_mm[2])
        near = (np.abs(self.x[0] - cx) <= reach_mm + self.voxel_mm[0]) & (np.abs(self.y[0] - cy) <= reach_mm + self.voxel_mm[1])
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        if not (len(near_z) and len(rows) and len(columns)):
            return None
        return slice(near_z[0], near_z[-1] + 1), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def above(self, z_mm: float) -> Canvas | None:
        """The slices whose centres lie above `z_mm`, as a canvas that paints into this one; None when there are none."""
        near = np.flatnonzero(self.z[:, 0, 0] > z_mm)
        if not len(near):
            return None
        part = slice(near[0], near[-1] + 1)
        return replace(self, hu=self.hu[part], z=self.z[part])

    def touched(self, coverage: F32) -> Window | None:
        """The smallest part of the grid, in all slices, that holds every nonzero of a (1, H, W) `coverage`; None if all are 0."""
        rows, columns = np.flatnonzero(coverage[0].any(axis=1)), np.flatnonzero(coverage[0].any(axis=0))
        if not len(rows):
            return None
        return slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def blend(self, window: Window, coverage: F32, hu: float | F32) -> None:
        """Mix `hu` into the voxels of `window` by their `coverage` in [0, 1]."""
        part = self.hu[window]
        part += coverage * (hu - part)


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """An ellipsoid, in body mm.

    Args:
        center: (3,) x, y, z; radii: (3,) along the columns of `turn`, a (3, 3) rotation (identity if None).
    """

    center: NDArray[np.float64]
    radii: NDArray[np.float64]
    turn: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, center: ArrayLike, radii: ArrayLike, turn: NDArray[np.float64] | None = None) -> Ellipsoid:
        """From plain sequences; one radius makes a ball."""
        wide = np.broadcast_to(np.asarray(radii, dtype=np.float64), (3,))
        return cls(np.asarray(center, dtype=np.float64), np.array(wide), turn)

    def grown(self, mm: float) -> Ellipsoid:
        """The same with every radius longer by `mm` (shorter if negative, never below half a millimetre)."""
        return Ellipsoid(self.center, np.maximum(self.radii + mm, 0.5), self.turn)

    def coverage(self, canvas: Canvas) -> tuple[Window, F32] | None:
        """The window it touches and the (D, H, W) share of each voxel inside it, or None when out of view."""
        window = canvas.window(self.center, float(self.radii.max()))
        if window is None:
            return None
        if 2 * self.radii.min() < 4 * max(canvas.voxel_mm):
            return window, self._sampled(canvas, window)
        return window, self._edged(canvas, window)

    def _local(self, canvas: Canvas, window: Window) -> tuple[F32, F32, F32]:
        x = canvas.x[:, window[1], window[2]] - np.float32(self.center[0])
        y = canvas.y[:, window[1], window[2]] - np.float32(self.center[1])
        z = canvas.z[window[0]] - np.float32(self.center[2])
        return x, y, z

    def _scaled(self, x: F32, y: F32, z: F32) -> tuple[F32, F32, F32]:
        if self.turn is None:
            return tuple((p / np.float32(r)) for p, r in zip((x, y, z), self.radii, strict=True))  # type: ignore[return-value]
        m = (self.turn.T / self.radii[:, None]).astype(np.float32)
        return tuple(m[k, 0] * x + m[k, 1] * y + m[k, 2] * z for k in range(3))  # type: ignore[return-value]

    def _edged(self, canvas: Canvas, window: Window) -> F32:
        """Distance to the surface over the voxel's width along the normal, worked out only where it can be below one half."""
        whole = self._scaled(*self._local(canvas, window))
        level = np.sqrt(whole[0] ** 2 + whole[1] ** 2 + whole[2] ** 2)
        out: F32 = (level < 1).astype(np.float32)
        band = np.nonzero(np.abs(level - 1) <= 1e-4 + 0.5 * np.linalg.norm(canvas.voxel_mm) / self.radii.min())
        u = [np.broadcast_to(p, level.shape)[band] for p in whole]
        near = np.maximum(level[band], np.float32(1e-6))  # 0 at the very centre has no normal
        g = [p / np.float32(r) for p, r in zip(u, self.radii, strict=True)]
        if self.turn is not None:
            t = self.turn.astype(np.float32)
            g = [t[k, 0] * g[0] + t[k, 1] * g[1] + t[k, 2] * g[2] for k in range(3)]
        norm = np.sqrt(g[0] ** 2 + g[1] ** 2 + g[2] ** 2) + np.float32(1e-9)
        width = sum(np.abs(p) * np.float32(v) for p, v in zip(g, canvas.voxel_mm, strict=True)) / norm
        distance = near * (near - 1) / norm
        out[band] = np.clip(0.5 - distance / (width + np.float32(1e-6)), 0, 1)
        return out

    def _sampled(self, canvas: Canvas, window: Window) -> F32:
        x, y, z = self._local(canvas, window)
        vx, vy, vz = canvas.voxel_mm
        n = [int(np.clip(np.ceil(v / max(0.5, self.radii.min() / 2)), 1, 5)) for v in (vx, vy, vz)]
        offsets = [(np.arange(k) + 0.5) / k - 0.5 for k in n]
        if self.turn is None:
            steps = zip((x, y, z), offsets, (vx, vy, vz), self.radii, strict=True)
            squares = [((p + (o * v).astype(np.float32)[:, None, None, None]) / np.float32(r)) ** 2 for p, o, v, r in steps]
            inside = (squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None]) <= 1
            return np.asarray(np.count_nonzero(inside, axis=(0, 1, 2)) / np.float32(n[0] * n[1] * n[2]), dtype=np.float32)
        total = np.zeros(np.broadcast_shapes(x.shape, z.shape), np.float32)
        for dx in offsets[0]:
            for dy in offsets[1]:
                for dz in offsets[2]:
                    u = self._scaled(x + np.float32(dx * vx), y + np.float32(dy * vy), z + np.float32(dz * vz))
                    total += (u[0] ** 2 + u[1] ** 2 + u[2] ** 2) <= 1
        return total / np.float32(n[0] * n[1] * n[2])


def ramp(distance_mm: NDArray[np.floating], width_mm: float) -> F32:
    """Coverage in [0, 1] from a signed distance (negative inside) blurred over `width_mm`."""
    return np.asarray(np.clip(0.5 - distance_mm / np.float32(width_mm), 0, 1), dtype=np.float32)


def rotation(axis: int, degrees: float) -> NDArray[np.float64]:
    """(3, 3) rotation about body axis 0 = x, 1 = y, 2 = z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix
