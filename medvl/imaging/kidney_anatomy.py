"""What R.E.N.A.L. scores are read from: a kidney's outline without its tumour, its sinus and its own axes, out of a mask.

Outline and sinus are **proxies**, defined in `docs/explanation/nephrometry.md` with how stable they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, distance_transform_edt
from scipy.spatial import ConvexHull

from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.mask_shape import KIDNEY, KidneyMask, parts

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_MEDIAL = {"left": -1.0, "right": 1.0}


@dataclass(frozen=True)
class Rules:
    """Definitions that the published score leaves to the reader's eye.

    Args:
        grid_mm: edge of the cubes in which everything but R is computed.
        rim_mm: parenchyma thinner than twice this does not make the outline: the lip stretched over a tumour, and the rim
            that label maps leave around one.
        outline: the kidney without its tumour: convex hull of the parenchyma, or its closing by a ball.
        closing_mm: radius of that ball.
        opening_mm: slits thinner than twice this are no sinus.
        min_sinus_ml: the least concavity that is taken for the renal sinus.
        min_kidney_ml: with less parenchyma left there is no outline to speak of.
        endophytic: share outside up to which the tumour counts as entirely endophytic.
        negligible: share by the polar lines and the midline that counts as none (partial volume at the border).
        face_share: share on one side of the coronal plane from which the tumour is anterior or posterior.
        polar_tail: share of the sinus beyond either polar line.
        min_elongation: ratio of the kidney's first to second principal standard deviation below which it has no long axis.

    Raises:
        ConfigError: a length or volume that is not positive, or a share outside its range.
    """

    grid_mm: float = 1.5
    rim_mm: float = 3.0
    outline: Literal["hull", "closing"] = "hull"
    closing_mm: float = 20.0
    opening_mm: float = 2.0
    min_sinus_ml: float = 0.5
    min_kidney_ml: float = 20.0
    endophytic: float = 0.1
    negligible: float = 0.02
    face_share: float = 2 / 3
    polar_tail: float = 0.02
    min_elongation: float = 1.1

    def __post_init__(self) -> None:
        for name in ("grid_mm", "rim_mm", "closing_mm", "opening_mm", "min_sinus_ml", "min_kidney_ml"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it should be above 0")
        small = (self.endophytic, self.negligible, self.polar_tail)
        if not (all(0 <= share < 0.5 for share in small) and 0.5 < self.face_share <= 1):
            raise ConfigError("endophytic, negligible and polar_tail should lie in [0, 0.5), face_share in (0.5, 1]")


DEFAULT = Rules()


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One kidney on an upright cubic grid: masks (D, H, W), and its own axes.

    Args:
        geometry: of the grid, axes SPL.
        kidney, tumour: parenchyma and the scored tumour.
        outline: the kidney as it is thought to have been, solid.
        sinus: the proxy of the renal sinus, None where no concavity is large enough.
        center_lps: (3,) of the outline.
        axes: (3, 3) unit rows in LPS: along the kidney to its upper pole, from its middle to the sinus, and to its front.
        elongation: ratio of the first two principal standard deviations of the outline.
    """

    geometry: Geometry
    kidney: Mask
    tumour: Mask
    outline: Mask
    sinus: Mask | None
    center_lps: Array
    axes: Array
    elongation: float


def anatomy(kidney: KidneyMask, tumour: Mask, rules: Rules = DEFAULT) -> Anatomy:
    """Kidney, outline, sinus proxy and axes on a cubic grid; `tumour` is a mask on ``kidney.geometry``."""
    grid = _grid(kidney, rules.grid_mm)
    parenchyma = _on_grid(kidney.labels == KIDNEY, kidney.geometry, grid)
    mass = _on_grid(tumour, kidney.geometry, grid)
    filled = _on_grid(kidney.labels > 0, kidney.geometry, grid) | parenchyma | mass
    bulk = _opening(parenchyma, rules.rim_mm / rules.grid_mm)
    bulk = bulk if bulk.any() else parenchyma
    outline = hull(bulk) if rules.outline == "hull" else _closing(bulk, rules.closing_mm / rules.grid_mm)
    center = grid.to_lps(np.argwhere(outline).mean(0))
    medial = None if kidney.side is None else np.array([_MEDIAL[kidney.side], 0.0, 0.0])
    sinus = _sinus(outline & ~filled, grid, center, medial, rules)
    axes, elongation = _own_axes(outline, sinus, grid, medial)
    return Anatomy(grid, parenchyma, mass, outline, sinus, center, axes, elongation)


def hull(mask: Mask) -> Mask:
    """Voxels of (D, H, W) `mask` whose centres lie in the convex hull of its centres, widened by half a voxel.

    Each line along D is cut by the hull's half-spaces, so the cost is lines times faces, not voxels times faces.
    """
    planes = ConvexHull(np.argwhere(mask)).equations
    h, w = (np.arange(n, dtype=float) for n in mask.shape[1:])
    rest = planes[:, 1, None, None] * h[:, None] + planes[:, 2, None, None] * w + (planes[:, 3] - 0.5)[:, None, None]
    slope = planes[:, 0, None, None]
    level = np.abs(slope) < 1e-12
    at = -rest / np.where(level, 1.0, slope)
    top = np.where(~level & (slope > 0), at, np.inf).min(0)
    bottom = np.where(~level & (slope < 0), at, -np.inf).max(0)
    inside = ~(level & (rest > 0)).any(0)
    d = np.arange(mask.shape[0], dtype=float)[:, None, None]
    return np.asarray(inside & (d >= bottom) & (d <= top))


def _grid(kidney: KidneyMask, edge_mm: float) -> Geometry:
    """An upright cubic grid around all labels, centred on their bounding box in the patient."""
    points = kidney.geometry.to_lps(np.argwhere(kidney.labels > 0))
    low, high = points.min(0), points.max(0)
    margin = max(kidney.geometry.spacing_mm) + 2 * edge_mm
    w, h, d = (int(2 * np.ceil((size / 2 + margin) / edge_mm)) for size in high - low)
    return Geometry.centered((low + high) / 2, (d, h, w), (edge_mm, edge_mm, edge_mm))


def _on_grid(mask: Mask, source: Geometry, grid: Geometry) -> Mask:
    """`mask` on `grid`: the linear interpolation of the signed distance to its border is positive."""
    if not mask.any():
        return np.zeros(grid.shape_dhw, dtype=bool)
    wide = np.pad(mask, 1)
    distance = distance_transform_edt(wide, source.spacing_mm) - distance_transform_edt(~wide, source.spacing_mm)
    turn = np.linalg.inv(source.affine_lps[:3, :3]) @ grid.affine_lps[:3, :3]
    start = source.to_index(grid.to_lps((0, 0, 0))) + 1
    return np.asarray(affine_transform(distance, turn, start, grid.shape_dhw, order=1, mode="constant", cval=-1.0) > 0)


def _opening(mask: Mask, radius: float) -> Mask:
    """Erosion then dilation by a ball of `radius` voxels; what lies beyond the array is background."""
    core = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1] > radius
    return np.asarray(distance_transform_edt(~core) <= radius) if core.any() else core


def _closing(mask: Mask, radius: float) -> Mask:
    """Dilation then erosion by a ball of `radius` voxels."""
    n = int(np.ceil(radius)) + 1
    wide = distance_transform_edt(~np.pad(mask, n)) <= radius
    return np.asarray(distance_transform_edt(wide)[n:-n, n:-n, n:-n] > radius)


def _sinus(concave: Mask, grid: Geometry, center: Array, medial: Array | None, rules: Rules) -> Mask | None:
    """The largest concavity after opening, on the half that faces the midline where the side is known."""
    if medial is not None:
        concave = concave & ((grid.to_lps(np.moveaxis(np.indices(concave.shape), 0, -1)) - center) @ medial > 0)
    found = parts(_opening(concave, rules.opening_mm / rules.grid_mm), grid, rules.min_sinus_ml)
    return found[0] if found else None


def _own_axes(outline: Mask, sinus: Mask | None, grid: Geometry, medial: Array | None) -> tuple[Array, float]:
    """Rows up, to the sinus (else the midline, else the thinnest axis) and to the front, and the elongation."""
    points = grid.to_lps(np.argwhere(outline))
    center = points.mean(0)
    spread, vectors = np.linalg.eigh(np.cov((points - center).T))
    up = vectors[:, 2] * (1 if vectors[2, 2] > 0 else -1)
    to_sinus = vectors[:, 0] if medial is None else medial
    if sinus is not None:
        to_sinus = grid.to_lps(np.argwhere(sinus)).mean(0) - center
    to_sinus = to_sinus - (to_sinus @ up) * up
    to_sinus /= np.linalg.norm(to_sinus)
    front = np.cross(up, to_sinus)
    front *= 1 if front[1] < 0 else -1
    return np.stack([up, to_sinus, front]), float(np.sqrt(spread[2] / spread[1]))
