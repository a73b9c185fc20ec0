"""Overlap measures against MONAI, SimpleITK and brute force, on grids that are no cubes; empty masks say NaN, not 1."""

import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from monai.metrics.surface_distance import compute_average_surface_distance
from numpy.typing import NDArray

from medvl.evaluation.overlap import compare, dice, iou, pooled_dice, pooled_threshold, surface_distances
from medvl.geometry import Geometry

SHAPE, SPACING = (9, 14, 12), (5.0, 0.8, 1.3)
GRID = Geometry.centered((10.0, -20.0, 30.0), SHAPE, SPACING)


def blobs(seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two overlapping boxes with ragged surfaces that do not touch the border."""
    rng = np.random.default_rng(seed)
    masks = []
    for shift in (0, 1):
        mask = np.zeros(SHAPE, bool)
        mask[2 + shift : 6, 3:9, 2 + 2 * shift : 9] = True
        masks.append(mask & (rng.random(SHAPE) < 0.85))
    return masks[0], masks[1]


@pytest.mark.parametrize("seed", range(4))
def test_dice_and_iou_equal_monai_and_simpleitk(seed: int) -> None:
    a, b = blobs(seed)
    pair = [torch.tensor(m[None, None].astype(np.float32)) for m in (a, b)]
    assert dice(a, b) == pytest.approx(float(compute_dice(*pair)), abs=1e-6)
    assert iou(a, b) == pytest.approx(float(compute_iou(*pair)), abs=1e-6)
    images = [sitk.GetImageFromArray(m.astype(np.uint8)) for m in (a, b)]
    theirs = sitk.LabelOverlapMeasuresImageFilter()
    theirs.Execute(images[1], images[0])
    assert dice(a, b) == pytest.approx(theirs.GetDiceCoefficient(), abs=1e-12)
    assert iou(a, b) == pytest.approx(theirs.GetJaccardCoefficient(), abs=1e-12)


def brute(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Every surface voxel of `a` to every one of `b`, the surface told by looking at six neighbours one by one."""
    places = []
    for mask in (a, b):
        padded = np.pad(mask, 1)
        found = []
        for d, h, w in np.argwhere(padded):
            steps = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
            if not all(padded[d + i, h + j, w + k] for i, j, k in steps):
                found.append(np.array([d - 1, h - 1, w - 1]) * SPACING)
        places.append(np.array(found))
    return np.sqrt(((places[0][:, None] - places[1][None]) ** 2).sum(-1)).min(1)


@pytest.mark.filterwarnings("ignore::FutureWarning:monai.*")
@pytest.mark.parametrize("seed", range(3))
def test_surface_distances_equal_brute_force_and_monai(seed: int) -> None:
    a, b = blobs(seed)
    there, back = surface_distances(a, b, SPACING)
    np.testing.assert_allclose(np.sort(there), np.sort(brute(a, b)), atol=1e-9)
    np.testing.assert_allclose(np.sort(back), np.sort(brute(b, a)), atol=1e-9)
    found = compare(a, b, GRID)
    pair = [torch.tensor(m[None, None].astype(np.float32)) for m in (a, b)]
    mean = compute_average_surface_distance(*pair, include_background=True, symmetric=True, spacing=list(SPACING))
    far = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=list(SPACING))
    assert found.surface_mm == pytest.approx(float(mean), abs=1e-5)
    assert found.hd95_mm == pytest.approx(float(far), abs=1e-5)


def test_surfaces_at_the_border_of_the_array_count() -> None:
    a, b = np.ones(SHAPE, bool), np.zeros(SHAPE, bool)
    b[1:-1] = True
    there, back = surface_distances(a, b, SPACING)
    np.testing.assert_allclose(np.sort(there), np.sort(brute(a, b)), atol=1e-9)
    np.testing.assert_allclose(np.sort(back), np.sort(brute(b, a)), atol=1e-9)


def test_a_shifted_box_is_as_far_off_as_it_was_shifted() -> None:
    a, b = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    a[2:4, 3:6, 2:5] = b[3:5, 3:6, 2:5] = True
    found = compare(a, b, GRID)
    assert found.hd95_mm == 5.0
    assert found.dice == pytest.approx(0.5)
    assert found.iou == pytest.approx(1 / 3)
    assert found.volume_ml == pytest.approx(18 * 5.0 * 0.8 * 1.3 / 1000)
    assert found.error_ml == 0.0


def test_empty_masks() -> None:
    full, empty = blobs(0)[0], np.zeros(SHAPE, bool)
    nothing = compare(empty, empty, GRID)
    assert all(math.isnan(v) for v in (nothing.dice, nothing.iou, nothing.surface_mm, nothing.hd95_mm))
    for pair in ((full, empty), (empty, full)):
        found = compare(*pair, GRID)
        assert (found.dice, found.iou, found.surface_mm, found.hd95_mm) == (0.0, 0.0, math.inf, math.inf)
    assert compare(full, empty, GRID).error_ml == pytest.approx(full.sum() * GRID.voxel_ml)
    with pytest.raises(ValueError, match="no surface"):
        surface_distances(full, empty, SPACING)


def test_pooled_dice_counts_marks_where_nothing_is() -> None:
    a, b = blobs(1)
    assert pooled_dice([a], [b]) == pytest.approx(dice(a, b))
    stacked = dice(np.concatenate([a, a]), np.concatenate([b, np.zeros(SHAPE, bool)]))
    assert pooled_dice([a, a], [b, np.zeros(SHAPE, bool)]) == pytest.approx(stacked)
    assert stacked < dice(a, b)
    assert math.isnan(pooled_dice([np.zeros(SHAPE)], [np.zeros(SHAPE)]))


def test_pooled_threshold_equals_brute_force() -> None:
    rng = np.random.default_rng(3)
    masks = [rng.random(SHAPE) < share for share in (0.2, 0.1, 0.0)]
    maps = [np.round(0.4 * m + rng.random(SHAPE), 2) for m in masks]
    levels = np.round(np.linspace(0.0, 1.5, 76), 2)
    scores = [pooled_dice([heat >= level for heat in maps], masks) for level in levels]
    assert pooled_threshold(maps, masks, levels) == levels[np.flatnonzero(np.isclose(scores, max(scores)))[-1]]
    with pytest.raises(ValueError, match="all 1 masks are empty"):
        pooled_threshold(maps[2:], masks[2:], levels)


def test_refusals() -> None:
    a, b = blobs(0)
    with pytest.raises(ValueError, match="different grids"):
        dice(a, b.transpose(0, 2, 1))
    with pytest.raises(ValueError, match="do not lie on a grid"):
        compare(a.T, b.T, GRID)
    sheared = GRID.affine_lps.copy()
    sheared[1, 0] = 1.0
    with pytest.raises(ValueError, match="off a right angle"):
        compare(a, b, Geometry(SHAPE, sheared))
