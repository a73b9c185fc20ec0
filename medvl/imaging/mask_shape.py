"""Size and shape of masks in millimetres, and which kidney a labelled tumour belongs to.

Diameters and extents run between the centres of exposed voxel faces, the points through which a marching-cubes surface of the
mask passes: "maximum 3D diameter" as the Image Biomarker Standardisation Initiative defines it, unbiased by half a voxel at
either end. Nothing here depends on how the axes are stored or flipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from scipy.spatial import ConvexHull, SphericalVoronoi, cKDTree
from scipy.spatial.distance import pdist

from medvl.errors import ConfigError
from medvl.geometry import Geometry

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Side = Literal["left", "right"]
KIDNEY, TUMOUR, CYST = 1, 2, 3
MIN_KIDNEY_ML = 10.0
MIN_APART_MM = 40.0
BOTH_SIDES_MM = 160.0
_TOUCHING = np.ones((3, 3, 3))


@dataclass(frozen=True, eq=False)
class MaskShape:
    """One mask as numbers.

    Args:
        volume_ml: voxels times their volume.
        surface_mm2: by Crofton's formula (Legland, Kieu and Devaux, Image Anal Stereol 2007) over the 13 directions of a
            26-neighbourhood, each weighted by its share of the sphere; within 1 % for ellipsoids in cubic voxels, 4 % for 2.5 mm
            slices of 0.8 mm pixels.
        sphericity: surface of the ball of the same volume over `surface_mm2`; 1 for a ball, above it only by rounding.
        feret_mm: largest distance between two points of the surface.
        diameter_mm: the same between outlines drawn within axial slices, at slice centres, as a reader measures. Thick slices
            make `feret_mm` too long, since it runs over the corners of the stairs: a ball of 30.6 mm on 5 mm slices has a
            `feret_mm` of 34.6 and a `diameter_mm` of 31.1.
        axial_mm: the same within one axial slice (of the array axis nearest to the patient's long axis).
        extent_mm: size of the bounding box along patient x, y and z.
        axes_mm: four standard deviations along the principal axes, longest first (IBSI major, minor and least axis length).
        centroid_lps: (3,) mm.
        n_parts: 26-connected components.
        touches_edge: a voxel lies in the array's outermost layer, so the rest may be cut off.
    """

    volume_ml: float
    surface_mm2: float
    sphericity: float
    feret_mm: float
    diameter_mm: float
    axial_mm: float
    extent_mm: tuple[float, float, float]
    axes_mm: tuple[float, float, float]
    centroid_lps: Array
    n_parts: int
    touches_edge: bool


@dataclass(frozen=True, eq=False)
class KidneyMask:
    """One kidney with all labels that belong to it, cut to their bounding box and one voxel.

    Args:
        side: the patient's own; None where geometry cannot tell.
        labels: (D, H, W) uint8 of `KIDNEY`, `TUMOUR` and `CYST`.
        geometry: of `labels`.
        touches_edge: the kidney reaches the edge of the image it was cut from.
        tumour_touches_edge: the tumour does.
        joined: both kidneys are in it: one bridge or tumour holds them together.
    """

    side: Side | None
    labels: NDArray[np.uint8]
    geometry: Geometry
    touches_edge: bool
    tumour_touches_edge: bool
    joined: bool = False


def mask_shape(mask: NDArray[Any], geometry: Geometry) -> MaskShape:
    """Size and shape of the nonzero voxels of (D, H, W) `mask`.

    Raises:
        ConfigError: the mask is empty or does not fit its geometry.
    """
    solid, grid, touches = _cut(mask, geometry)
    voxels = np.argwhere(solid)
    points = grid.to_lps(voxels)
    surface = surface_mm2(solid, grid)
    axial, diameter = _slice_diameters(solid, grid)
    volume = len(voxels) * grid.voxel_ml
    hull = grid.to_lps(_hull_points(solid))
    spread = np.linalg.eigvalsh(np.cov(points.T, bias=True))[::-1] if len(points) > 1 else np.zeros(3)
    major, minor, least = 4 * np.sqrt(np.clip(spread, 0, None))
    x, y, z = np.ptp(hull, axis=0)
    return MaskShape(
        volume_ml=volume,
        surface_mm2=surface,
        sphericity=float(np.pi ** (1 / 3) * (6000 * volume) ** (2 / 3) / surface),
        feret_mm=float(pdist(hull).max()),
        diameter_mm=diameter,
        axial_mm=axial,
        extent_mm=(float(x), float(y), float(z)),
        axes_mm=(float(major), float(minor), float(least)),
        centroid_lps=points.mean(0),
        n_parts=int(label(solid, _TOUCHING)[1]),
        touches_edge=touches,
    )


def surface_mm2(mask: NDArray[Any], geometry: Geometry) -> float:
    """Surface area of (D, H, W) `mask` by Crofton's formula: four times the mean projected area over 13 directions."""
    solid = np.pad(np.asarray(mask, dtype=bool), 1)
    steps = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])
    lengths = np.linalg.norm(steps @ geometry.affine_lps[:3, :3].T, axis=1)
    weights = SphericalVoronoi(steps @ geometry.affine_lps[:3, :3].T / lengths[:, None]).calculate_areas() / (4 * np.pi)
    total = 0.0
    for step, length, weight in zip(steps[13:], lengths[13:], weights[13:], strict=True):
        here = solid[tuple(slice(max(0, -s), len_ - max(0, s)) for s, len_ in zip(step, solid.shape, strict=True))]
        there = solid[tuple(slice(max(0, s), len_ - max(0, -s)) for s, len_ in zip(step, solid.shape, strict=True))]
        total += 2 * weight * np.count_nonzero(here != there) / 2 * 1000 * geometry.voxel_ml / length
    return float(4 * total)


def parts(mask: NDArray[Any], geometry: Geometry, min_ml: float = 0.0) -> list[Mask]:
    """26-connected components of at least `min_ml`, largest first; equal ones in order of their first voxel."""
    labelled, n = label(np.asarray(mask, dtype=bool), _TOUCHING)
    sizes = np.bincount(labelled.ravel(), minlength=n + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    return [labelled == k + 1 for k in order if sizes[k] * geometry.voxel_ml >= min_ml]


def split_kidneys(labels: NDArray[Any], geometry: Geometry, midline_x_mm: float | None = None) -> tuple[KidneyMask, ...]:
    """The kidneys of a label map, right before left, each with the tumours and cysts nearest to it.

    A kidney is a component of all labels together with 10 mL of `KIDNEY` or more; every other component goes to the nearest
    one. Two kidneys whose centres lie 40 mm apart or more along patient x are left and right of each other; a single one
    is placed by `midline_x_mm`, and has no side without it. One whose parenchyma is 160 mm wide or more is two joined kidneys.

    Args:
        labels: (D, H, W) with `KIDNEY`, `TUMOUR` and `CYST`; other values are background.
        geometry: of `labels`.
        midline_x_mm: LPS x of the patient's midline, such as the middle of the field of view.

    Returns:
        None, one or two; both kidneys as one without a side where they are joined, as in a horseshoe kidney.

    Raises:
        ConfigError: more than two kidneys, or labels that do not fit their geometry.
    """
    if labels.shape != geometry.shape_dhw:
        raise ConfigError(f"labels {labels.shape} do not fit their geometry {geometry.shape_dhw}")
    known = np.where((labels >= KIDNEY) & (labels <= CYST), labels, 0).astype(np.uint8)
    owner, n = label(known > 0, _TOUCHING)
    kidney_ml = np.bincount(owner[known == KIDNEY], minlength=n + 1) * geometry.voxel_ml
    kidneys = [k for k in range(1, n + 1) if kidney_ml[k] >= MIN_KIDNEY_ML]
    if len(kidneys) > 2:
        raise ConfigError(f"{len(kidneys)} separate kidneys of {MIN_KIDNEY_ML} mL or more; check the label map")
    if not kidneys:
        return ()
    boxes = find_objects(owner)
    centers = {k: geometry.to_lps(_where(owner, k, boxes).mean(0)) for k in kidneys}
    target = _nearest(owner, n, kidneys, geometry, boxes)
    kidneys.sort(key=lambda k: centers[k][0])
    joined = len(kidneys) == 1 and _width_x(known == KIDNEY, geometry) >= BOTH_SIDES_MM
    sides: list[Side | None] = [None] if joined else _sides([float(centers[k][0]) for k in kidneys], midline_x_mm)
    owned = [(target == k)[owner] for k in kidneys]
    return tuple(_kidney(known, own, geometry, side, joined) for own, side in zip(owned, sides, strict=True))


def _kidney(known: NDArray[np.uint8], own: Mask, geometry: Geometry, side: Side | None, joined: bool) -> KidneyMask:
    """The labels of one kidney in their bounding box, a voxel wider."""
    padded = np.pad(np.where(own, known, 0), 1)
    (box,) = find_objects((padded > 0).astype(np.uint8))
    wide = tuple(slice(s.start - 1, s.stop + 1) for s in box)
    kept = padded[wide]
    first = (int(wide[0].start) - 1, int(wide[1].start) - 1, int(wide[2].start) - 1)
    return KidneyMask(
        side,
        kept,
        geometry.crop(first, kept.shape),
        _at_edge(own & (known != TUMOUR)),
        _at_edge(own & (known == TUMOUR)),
        joined,
    )


def _sides(centers: list[float], midline: float | None) -> list[Side | None]:
    """Side of each kidney, given by x of their centres in growing order (towards the patient's left)."""
    if len(centers) == 2:
        return ["right", "left"] if centers[1] - centers[0] >= MIN_APART_MM else [None, None]
    if midline is None:
        return [None]
    return ["left" if centers[0] > midline else "right"]


def _nearest(owner: NDArray[Any], n: int, kidneys: list[int], geometry: Geometry, boxes: list[Any]) -> NDArray[np.int64]:
    """(n + 1,) kidney of each component: itself, or the one with the nearest voxel."""
    target = np.zeros(n + 1, np.int64)
    target[kidneys] = kidneys
    others = [k for k in range(1, n + 1) if not target[k]]
    trees = {k: cKDTree(geometry.to_lps(_where(owner, k, boxes))) for k in kidneys} if others else {}
    for k in others:
        points = geometry.to_lps(_where(owner, k, boxes))
        target[k] = min(kidneys, key=lambda kidney: float(trees[kidney].query(points)[0].min()))
    return target


def _where(owner: NDArray[Any], k: int, boxes: list[Any]) -> NDArray[np.int64]:
    """(N, 3) indices of component `k`."""
    box = boxes[k - 1]
    return np.asarray(np.argwhere(owner[box] == k) + [s.start for s in box])


def _width_x(mask: Mask, geometry: Geometry) -> float:
    """Extent along patient x in mm of voxel centres."""
    return float(np.ptp(geometry.to_lps(np.argwhere(mask))[:, 0]))


def _at_edge(mask: Mask) -> bool:
    """A voxel lies in the outermost layer of the array."""
    return any(bool(np.take(mask, end, axis).any()) for axis in range(3) for end in (0, -1))


def _cut(mask: NDArray[Any], geometry: Geometry) -> tuple[Mask, Geometry, bool]:
    """The mask in its bounding box, the geometry of that, and whether the mask reaches the edge of its array."""
    if mask.shape != geometry.shape_dhw:
        raise ConfigError(f"mask {mask.shape} does not fit its geometry {geometry.shape_dhw}")
    solid = np.asarray(mask != 0)
    found = find_objects(solid.astype(np.uint8))
    if not found:
        raise ConfigError("the mask is empty: there is nothing to measure; check the label value")
    box = found[0]
    kept = solid[box]
    return kept, geometry.crop((box[0].start, box[1].start, box[2].start), kept.shape), _at_edge(solid)


def _ends(solid: NDArray[np.bool_]) -> Iterator[Array]:
    """Indices of the outermost face centres along every axis; all other faces lie between two of them."""
    for axis in range(solid.ndim):
        rest = np.argwhere(solid.any(axis))
        lines = np.moveaxis(solid, axis, -1)[tuple(rest.T)]
        for at in (lines.argmax(1) - 0.5, lines.shape[1] - lines[:, ::-1].argmax(1) - 0.5):
            yield np.insert(rest.astype(float), axis, at, axis=1)


def _hull_points(solid: NDArray[np.bool_]) -> Array:
    """Fractional indices of the corners of the convex hull of all face centres."""
    points = np.unique(np.concatenate(list(_ends(solid))), axis=0)
    return np.asarray(points[ConvexHull(points).vertices])


def _slice_diameters(solid: Mask, geometry: Geometry) -> tuple[float, float]:
    """Largest distance in mm between two edge points of one axial slice, and of any two slices."""
    axis = next(k for k, letter in enumerate(geometry.axes) if letter in "SI")
    slices = np.moveaxis(solid, axis, 0)
    outlines = [np.insert(_hull_points(slices[k]), axis, k, axis=1) for k in np.flatnonzero(slices.any((1, 2)))]
    axial = max(float(pdist(geometry.to_lps(outline)).max()) for outline in outlines)
    if len(outlines) == 1:
        return axial, axial
    points = np.concatenate(outlines)
    return axial, max(axial, float(pdist(geometry.to_lps(points[ConvexHull(points).vertices])).max()))
