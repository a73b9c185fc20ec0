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
_TOUCHING = np.ones((3, 3, 3))


@dataclass(frozen=True, eq=False)
class MaskShape:
    """One mask as numbers.

    Args:
        volume_ml: voxels times their volume.
        surface_mm2: by Crofton's formula (Legland, Kieu and Devaux, Image Anal Stereol 2007) over the 13 directions of a
            26-neighbourhood, each weighted by its share of the sphere; within about 2 % for round shapes of 10 voxels across.
        sphericity: surface of the ball of the same volume over `surface_mm2`; 1 for a ball, above it only by rounding.
        feret_mm: largest distance between two points of the surface.
        axial_mm: the same within one slice, of the array axis nearest to the patient's long axis.
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
    """

    side: Side | None
    labels: NDArray[np.uint8]
    geometry: Geometry
    touches_edge: bool
    tumour_touches_edge: bool


def mask_shape(mask: NDArray[Any], geometry: Geometry) -> MaskShape:
    """Size and shape of the nonzero voxels of (D, H, W) `mask`.

    Raises:
        ConfigError: the mask is empty or does not fit its geometry.
    """
    solid, grid, touches = _cut(mask, geometry)
    voxels = np.argwhere(solid)
    points = grid.to_lps(voxels)
    surface = surface_mm2(solid, grid)
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
        axial_mm=_axial_mm(solid, grid),
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
    is placed by `midline_x_mm`, and has no side without it or across it.

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
    known = np.where(np.isin(labels, (KIDNEY, TUMOUR, CYST)), labels, 0).astype(np.uint8)
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
    sides = _sides([_extent_x(owner, k, boxes, geometry) for k in kidneys], [centers[k][0] for k in kidneys], midline_x_mm)
    return tuple(_kidney(known, np.isin(owner, np.flatnonzero(target == k)), geometry, side) for k, side in zip(kidneys, sides, strict=True))


def _kidney(known: NDArray[np.uint8], own: Mask, geometry: Geometry, side: Side | None) -> KidneyMask:
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
    )


def _sides(spans: list[tuple[float, float]], centers: list[float], midline: float | None) -> list[Side | None]:
    """Side of each kidney, given in order of growing x (towards the patient's left)."""
    if len(centers) == 2:
        return ["right", "left"] if centers[1] - centers[0] >= MIN_APART_MM else [None, None]
    (low, high), center = spans[0], centers[0]
    if midline is None or (low < midline - MIN_APART_MM and high > midline + MIN_APART_MM):
        return [None]
    return ["left" if center > midline else "right"]


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


def _extent_x(owner: NDArray[Any], k: int, boxes: list[Any], geometry: Geometry) -> tuple[float, float]:
    """Least and greatest LPS x of component `k`."""
    x = geometry.to_lps(_where(owner, k, boxes))[:, 0]
    return float(x.min()), float(x.max())


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


def _axial_mm(solid: Mask, geometry: Geometry) -> float:
    """Largest distance between two edge points of one axial slice."""
    axis = next(k for k, letter in enumerate(geometry.axes) if letter in "SI")
    steps = np.delete(geometry.affine_lps[:3, :3], axis, axis=1)
    slices = np.moveaxis(solid, axis, 0)
    return max(float(pdist(_hull_points(plane) @ steps.T).max()) for plane in slices if plane.any())
