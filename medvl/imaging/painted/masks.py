"""What a label map of kidneys says by geometry alone: which kidney is which, and size and place of tumours and cysts in it.

Labels are those of KiTS (Heller et al., arXiv 2307.01984): 1 kidney without its tumour, 2 tumour, 3 cyst. Measured on an upright
grid of `STEP_MM`, so that every scan is measured alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, Delaunay, QhullError
from scipy.spatial.distance import pdist

from medvl.errors import InputError
from medvl.geometry import Geometry
from medvl.imaging.phantom.truth import Pole, Side
from medvl.imaging.resample import resample_label

KIDNEY, TUMOUR, CYST = 1, 2, 3
STEP_MM = 1.5
MIN_KIDNEY_ML = 15.0  # of kidney, tumour and cyst together; less is a stray piece, not a kidney
MIN_TUMOUR_MM, MIN_CYST_MM = 5.0, 5.0
FUSED_SHARE = 0.2  # of a piece on each side of the midline: both kidneys in one
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Lesion:
    """A tumour or cyst: largest axial diameter in whole mm, volume in mL, and the third of the kidney it lies in.

    `outside`: share of its volume beyond the convex hull of the kidney's own tissue, 0 to 1.
    """

    size_mm: int
    volume_ml: float
    pole: Pole
    outside: float

    @property
    def exophytic(self) -> bool:
        """Half or more of it lies outside the kidney."""
        return self.outside >= 0.5


@dataclass(frozen=True)
class KidneyFacts:
    """One kidney of a label map.

    Args:
        side: the patient's own.
        center_lps: (3,) mm, the middle of the box around kidney, tumours and cysts.
        length_mm: from head to foot, of the kidney's own tissue.
        volume_ml: of the kidney's own tissue.
        tumours, cysts: the largest first.
    """

    side: Side
    center_lps: tuple[float, float, float]
    length_mm: int
    volume_ml: float
    tumours: tuple[Lesion, ...]
    cysts: tuple[Lesion, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def read_kidneys(labels: NDArray[Any], geometry: Geometry, midline_x_mm: float) -> dict[Side, KidneyFacts]:
    """The kidneys of a label map, by the side of the body they lie on; a kidney that is not there is left out.

    A piece that touches both sides, as of a horseshoe kidney, is cut at the midline.

    Args:
        labels: (D, H, W) on `geometry`, of any orientation.
        geometry: where they lie.
        midline_x_mm: LPS x of the body's middle; the left kidney lies above it.

    Raises:
        InputError: no kidney is in the map.
    """
    grid = _upright(geometry)
    seen = resample_label(labels, geometry, grid)
    halves = _sides(seen > 0, grid, midline_x_mm)
    sides: tuple[Side, Side] = ("left", "right")
    enough = {side: half for side, half in zip(sides, halves, strict=True) if half.sum() * grid.voxel_ml >= MIN_KIDNEY_ML}
    found = {side: _facts(side, np.where(half, seen, 0), grid) for side, half in enough.items()}
    if not found:
        raise InputError("region_not_found", f"no side of the label map holds {MIN_KIDNEY_ML:g} mL of kidney, tumour and cyst")
    return found


def _upright(geometry: Geometry) -> Geometry:
    corners = geometry.to_lps([[d, h, w] for d in (0, 1) for h in (0, 1) for w in (0, 1)] * (np.array(geometry.shape_dhw) - 1))
    extent = (corners.max(0) - corners.min(0))[::-1]
    d, h, w = (int(np.ceil(e / STEP_MM)) + 1 for e in extent)
    return Geometry.centered(geometry.center_lps, (d, h, w), (STEP_MM, STEP_MM, STEP_MM))


def _sides(organ: Bool, grid: Geometry, midline_x_mm: float) -> tuple[Bool, Bool]:
    """The voxels of the left and of the right kidney with all that hangs on them."""
    pieces, n = ndimage.label(organ, np.ones((3, 3, 3)))
    is_left = grid.affine_lps[0, 3] + grid.affine_lps[0, 2] * np.arange(grid.shape_dhw[2]) > midline_x_mm
    size = np.bincount(pieces.ravel(), minlength=n + 1)
    share = np.bincount(pieces[:, :, is_left].ravel(), minlength=n + 1) / np.maximum(size, 1)
    left, fused = share >= 0.5, (share > FUSED_SHARE) & (share < 1 - FUSED_SHARE)
    on_left = np.where(fused[pieces], is_left[None, None], left[pieces])
    return organ & on_left, organ & ~on_left


def _facts(side: Side, seen: NDArray[Any], grid: Geometry) -> KidneyFacts:
    box = ndimage.find_objects((seen > 0).astype(np.uint8))[0]
    middle = grid.to_lps([(s.start + s.stop - 1) / 2 for s in box])
    part = seen[box]
    tissue = part == KIDNEY
    rows = np.flatnonzero((tissue if tissue.any() else part > 0).any(axis=(1, 2)))
    low, high = int(rows[0]), int(rows[-1]) + 1
    tumours = _lesions(part == TUMOUR, tissue, (low, high), grid.voxel_ml, MIN_TUMOUR_MM)
    cysts = _lesions(part == CYST, tissue, (low, high), grid.voxel_ml, MIN_CYST_MM)
    center = (float(middle[0]), float(middle[1]), float(middle[2]))
    volume = round(float(tissue.sum()) * grid.voxel_ml, 1)
    return KidneyFacts(side, center, round((high - low) * STEP_MM), volume, tumours, cysts)


def _lesions(mask: Bool, tissue: Bool, span: tuple[int, int], voxel_ml: float, least_mm: float) -> tuple[Lesion, ...]:
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    found = [np.argwhere(pieces == k + 1) for k in range(pieces.max())]
    hull = _hull(tissue)
    lesions = []
    for voxels in found:
        size = diameter_mm(voxels)
        if size >= least_mm:
            height = (voxels[:, 0].mean() + 0.5 - span[0]) / (span[1] - span[0])  # grows from foot to head
            pole: Pole = "upper" if height > 2 / 3 else "lower" if height < 1 / 3 else "interpolar"
            beyond = 1.0 if hull is None else float((hull.find_simplex(voxels) < 0).mean())
            lesions.append(Lesion(round(size), round(len(voxels) * voxel_ml, 2), pole, round(beyond, 3)))
    return tuple(sorted(lesions, key=lambda lesion: (-lesion.size_mm, -lesion.volume_ml)))


def diameter_mm(voxels: NDArray[Any]) -> float:
    """Largest distance in mm between voxels (N, 3) of the `STEP_MM` grid in one axial slice, one voxel's width added."""
    slices = np.split(voxels, np.flatnonzero(np.diff(voxels[:, 0])) + 1)
    return STEP_MM * (1 + max(_widest(part[:, 1:].astype(float)) for part in slices))


def _widest(points: NDArray[np.float64]) -> float:
    if len(points) > 30:
        try:
            points = points[ConvexHull(points).vertices]
        except QhullError:  # all on one line, its ends first and last
            points = points[[0, -1]]
    return float(pdist(points).max()) if len(points) > 1 else 0.0


def _hull(mask: Bool) -> Delaunay | None:
    """The convex hull of a mask, to ask points (N, 3) of; None of an empty or flat one."""
    points = np.argwhere(mask)
    if len(points) < 10:
        return None
    try:
        return Delaunay(points[ConvexHull(points).vertices])
    except QhullError:
        return None
