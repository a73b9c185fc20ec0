"""R.E.N.A.L. nephrometry (Kutikov and Uzzo, J Urol 2009) computed from a mask of one kidney and its tumour.

A reader judges R.E.N.A.L. on images, where the renal sinus, the collecting system and the outline that the kidney had before the
tumour can be seen. Masks of kidney and tumour hold neither: the outline and the sinus here are **proxies**, defined in
`docs/explanation/nephrometry.md` with how stable they are. A part that cannot be computed is None with its reason, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, distance_transform_edt
from scipy.spatial import ConvexHull

from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.mask_shape import KIDNEY, TUMOUR, KidneyMask, mask_shape, parts
from medvl.renal_score import RenalScore, growth_class, nearness_class, no_score, polar_class, radius_class, score_of

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


@dataclass(frozen=True, eq=False)
class Nephrometry:
    """R.E.N.A.L. of the largest tumour of one kidney; what is not known is None.

    Args:
        score: points, total and reason, as read from text; `hilar` is always None, since vessels are not in the mask.
        classes: class of each attribute of the kidney ontology's dictionary.
        unknown: attribute to the reason why it has no class.
        diameter_mm: `MaskShape.diameter_mm` of the tumour.
        share_outside: share of the tumour outside the kidney's outline.
        sinus_mm: least distance from the tumour's surface to the sinus proxy, 0 where they touch.
        share_anterior: share of the tumour in front of the kidney's mid-coronal plane.
        share_between: share of the tumour between the polar lines.
        crosses_midline: part of the tumour lies on either side of the middle of the kidney's long axis.
        n_tumours: components of the tumour label; the largest is scored.
        kidney_ml, sinus_ml: parenchyma left, and the sinus proxy.
    """

    score: RenalScore
    classes: Mapping[str, str | None]
    unknown: Mapping[str, str]
    diameter_mm: float | None = None
    share_outside: float | None = None
    sinus_mm: float | None = None
    share_anterior: float | None = None
    share_between: float | None = None
    crosses_midline: bool | None = None
    n_tumours: int = 0
    kidney_ml: float = 0.0
    sinus_ml: float | None = None


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


def nephrometry(kidney: KidneyMask, rules: Rules = Rules()) -> Nephrometry:
    """R.E.N.A.L. parts, classes and points of the largest tumour of `kidney`, with a reason for each that is missing."""
    tumours = parts(kidney.labels == TUMOUR, kidney.geometry)
    kidney_ml = float((kidney.labels == KIDNEY).sum()) * kidney.geometry.voxel_ml
    if not tumours:
        return Nephrometry(no_score("no tumour is in the mask"), {}, {}, kidney_ml=kidney_ml)
    unknown = _unfit(kidney, kidney_ml, rules)
    diameter = None if "renal_radius" in unknown else mask_shape(tumours[0], kidney.geometry).diameter_mm
    classes: dict[str, str | None] = {"renal_radius": None if diameter is None else radius_class(diameter)}
    found: dict[str, float | bool | None] = {}
    if "mass_growth" not in unknown:
        found = _measure(anatomy(kidney, tumours[0], rules), rules, unknown)
        classes |= _classes(found, rules)
    score = score_of(classes, None, "the mask does not give")
    return Nephrometry(score, classes, unknown, diameter, n_tumours=len(tumours), kidney_ml=kidney_ml, **found)  # type: ignore[arg-type]


def anatomy(kidney: KidneyMask, tumour: Mask, rules: Rules = Rules()) -> Anatomy:
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


def _unfit(kidney: KidneyMask, kidney_ml: float, rules: Rules) -> dict[str, str]:
    """Attributes that this mask cannot give, with the reason."""
    rest = ("mass_growth", "mass_nearness", "mass_face", "mass_polar_lines")
    if kidney.tumour_touches_edge:
        return dict.fromkeys(("renal_radius", *rest), "the tumour reaches the edge of the image")
    if kidney.touches_edge:
        return dict.fromkeys(rest, "the kidney reaches the edge of the image")
    if kidney.joined:
        return dict.fromkeys(rest, "the kidneys are joined, by a bridge or by the tumour")
    if kidney_ml < rules.min_kidney_ml:
        return dict.fromkeys(rest, f"{kidney_ml:.0f} mL of kidney are left, fewer than {rules.min_kidney_ml:g}")
    return {}


def _measure(found: Anatomy, rules: Rules, unknown: dict[str, str]) -> dict[str, float | bool | None]:
    """The measured fields of `Nephrometry`; what is missing is added to `unknown`."""
    points = found.geometry.to_lps(np.argwhere(found.tumour)) - found.center_lps
    up, _, front = (points @ axis for axis in found.axes)
    shape = found.geometry.to_lps(np.argwhere(found.outline)) - found.center_lps
    middle = float(np.mean([(shape @ found.axes[0]).min(), (shape @ found.axes[0]).max()]))
    got: dict[str, float | bool | None] = {"share_outside": 1 - float(found.outline[found.tumour].mean())}
    if found.elongation >= rules.min_elongation:
        got["share_anterior"] = float((front > 0).mean())
        above = float((up > middle).mean())
        got["crosses_midline"] = min(above, 1 - above) > rules.negligible
    else:
        unknown |= dict.fromkeys(("mass_face", "mass_polar_lines"), f"the kidney has no long axis ({found.elongation:.2f})")
    if found.sinus is None:
        why = f"no concavity of {rules.min_sinus_ml:g} mL is left to take for the sinus"
        return got | _also(unknown, {"mass_nearness": why, "mass_polar_lines": why})
    got["sinus_ml"] = float(found.sinus.sum()) * found.geometry.voxel_ml
    reach = distance_transform_edt(~found.sinus)[found.tumour].min() - 1
    got["sinus_mm"] = max(0.0, float(reach)) * rules.grid_mm
    if "mass_polar_lines" not in unknown:
        along = (found.geometry.to_lps(np.argwhere(found.sinus)) - found.center_lps) @ found.axes[0]
        low, high = np.quantile(along, [rules.polar_tail, 1 - rules.polar_tail])
        got["share_between"] = float(((up >= low) & (up <= high)).mean())
    return got


def _also(unknown: dict[str, str], more: dict[str, str]) -> dict[str, float | bool | None]:
    """Nothing measured; `more` reasons added where none stands yet."""
    for name, why in more.items():
        unknown.setdefault(name, why)
    return {}


def _classes(found: Mapping[str, float | bool | None], rules: Rules) -> dict[str, str | None]:
    """Class of each attribute but the radius from the measured fields."""
    outside, sinus, front, between = (found.get(k) for k in ("share_outside", "sinus_mm", "share_anterior", "share_between"))
    face = None
    if front is not None:
        face = "anterior" if front >= rules.face_share else "posterior" if front <= 1 - rules.face_share else "neither"
    return {
        "mass_growth": None if outside is None else growth_class(outside, rules.endophytic),
        "mass_nearness": None if sinus is None else nearness_class(sinus),
        "mass_face": face,
        "mass_polar_lines": None
        if between is None
        else polar_class(between, bool(found.get("crosses_midline")), rules.negligible),
    }


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
