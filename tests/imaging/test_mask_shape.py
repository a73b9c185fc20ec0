"""Mask sizes against analytic bodies and SimpleITK, for any storage order; kidneys and their sides."""

from itertools import permutations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.mask_shape import CYST, KIDNEY, TUMOUR, mask_shape, parts, split_kidneys, surface_mm2

CENTER = np.array([-31.3, 12.7, 40.2])


def grid(spacing: tuple[float, float, float], size_mm: float = 90.0) -> Geometry:
    d, h, w = (int(size_mm / s) for s in spacing)
    return Geometry.centered(CENTER + 0.4, (d, h, w), spacing)


def ball(geometry: Geometry, center: NDArray[np.float64], radii: tuple[float, float, float]) -> NDArray[np.bool_]:
    points = geometry.to_lps(np.moveaxis(np.indices(geometry.shape_dhw), 0, -1))
    return np.asarray((((points - center) / np.array(radii)) ** 2).sum(-1) <= 1)


def stored(mask: NDArray, geometry: Geometry, order: tuple[int, int, int], flips: tuple[int, ...]) -> tuple[NDArray, Geometry]:
    """The same voxels in the same places, with axes in another order and some of them backwards."""
    affine = geometry.affine_lps[:, [*order, 3]].copy()
    out = mask.transpose(order)
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (out.shape[axis] - 1)
        affine[:3, axis] *= -1
        out = np.flip(out, axis)
    return out, Geometry(out.shape, affine)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.8, 0.7), (5.0, 0.8, 0.8)])
def test_a_ball_has_the_size_of_a_ball(spacing: tuple[float, float, float]) -> None:
    g, r = grid(spacing), 17.3
    got = mask_shape(ball(g, CENTER, (r, r, r)), g)
    assert got.volume_ml == pytest.approx(4 / 3 * np.pi * r**3 / 1000, rel=0.01)
    assert got.surface_mm2 == pytest.approx(4 * np.pi * r**2, rel=0.02)
    assert got.sphericity == pytest.approx(1, abs=0.02)
    assert got.diameter_mm == pytest.approx(2 * r, abs=1.3)
    assert got.axial_mm == pytest.approx(2 * r, abs=1.3)
    assert got.extent_mm == pytest.approx((2 * r, 2 * r, 2 * r), abs=spacing[0])
    assert got.axes_mm == pytest.approx([4 * r / np.sqrt(5)] * 3, rel=0.03)
    assert got.centroid_lps == pytest.approx(CENTER, abs=0.2)
    assert got.n_parts == 1


def test_an_ellipsoid_is_measured_along_its_own_axes() -> None:
    g = grid((1.2, 0.9, 1.0))
    got = mask_shape(ball(g, CENTER, (11.0, 17.0, 30.0)), g)
    assert got.volume_ml == pytest.approx(4 / 3 * np.pi * 11 * 17 * 30 / 1000, rel=0.01)
    assert got.diameter_mm == pytest.approx(60, abs=1.5)
    assert got.axial_mm == pytest.approx(34, abs=1.2)
    assert got.extent_mm == pytest.approx((22, 34, 60), abs=1.3)
    assert got.axes_mm == pytest.approx(np.array([30, 17, 11]) * 4 / np.sqrt(5), rel=0.02)


def test_agrees_with_simpleitk() -> None:
    spacing = (2.5, 0.8, 0.7)
    g = grid(spacing)
    mask = ball(g, CENTER, (12.0, 17.0, 25.0)) | ball(g, CENTER + np.array([14.0, 3.0, -9.0]), (9.0, 9.0, 9.0))
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    image.SetOrigin(tuple(g.affine_lps[:3, 3].tolist()))
    theirs = sitk.LabelShapeStatisticsImageFilter()
    theirs.ComputeFeretDiameterOn()
    theirs.Execute(image)
    got = mask_shape(mask, g)
    assert got.volume_ml * 1000 == pytest.approx(theirs.GetPhysicalSize(1), rel=1e-9)
    assert got.centroid_lps == pytest.approx(theirs.GetCentroid(1), abs=1e-6)
    # theirs runs between voxel centres: shorter than ours by at most the diagonal of a voxel
    centers = theirs.GetFeretDiameter(1)
    assert centers < got.diameter_mm <= got.feret_mm <= centers + np.linalg.norm(spacing)


@pytest.mark.parametrize(("spacing", "error"), [((1.0, 1.0, 1.0), 0.01), ((2.5, 0.8, 0.7), 0.04), ((0.7, 0.8, 2.5), 0.04)])
@pytest.mark.parametrize("radii", [(12.0, 17.0, 25.0), (25.0, 17.0, 12.0)])
def test_surface_of_an_ellipsoid(spacing: tuple[float, float, float], error: float, radii: tuple[float, float, float]) -> None:
    # Thomsen's approximation, within 1.1 %. SimpleITK's perimeter agrees for cubic voxels, but is 13 to 15 % off for the others.
    a, b, c = (r**1.6075 for r in radii)
    g = grid(spacing)
    mask = ball(g, CENTER, radii)
    assert surface_mm2(mask, g) == pytest.approx(4 * np.pi * ((a * b + a * c + b * c) / 3) ** (1 / 1.6075), rel=error)
    if len(set(spacing)) == 1:
        theirs = sitk.LabelShapeStatisticsImageFilter()
        theirs.Execute(sitk.GetImageFromArray(mask.astype(np.uint8)))
        assert surface_mm2(mask, g) == pytest.approx(theirs.GetPerimeter(1), rel=1e-9)


def test_the_largest_diameter_is_that_of_all_face_centres() -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((5, 7, 6)) > 0.6
    g = Geometry.centered(CENTER, (5, 7, 6), (2.5, 0.8, 0.7))
    wide = np.pad(mask, 1)
    faces = [
        np.argwhere(np.take(wide, range(n - 1), axis) != np.take(wide, range(1, n), axis)) + 0.5 * np.eye(3)[axis] - 1
        for axis, n in enumerate(wide.shape)
    ]
    assert mask_shape(mask, g).feret_mm == pytest.approx(pdist(g.to_lps(np.concatenate(faces))).max())


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_storage_does_not_matter(order: tuple[int, int, int], flips: tuple[int, ...]) -> None:
    g = Geometry.centered(CENTER, (17, 41, 37), (2.5, 0.8, 0.9))
    mask = ball(g, CENTER, (9.0, 14.0, 17.0)) | ball(g, CENTER + np.array([5.0, -6.0, 8.0]), (6.0, 6.0, 6.0))
    mine, other = mask_shape(mask, g), mask_shape(*stored(mask, g, order, flips))
    for name in ("volume_ml", "surface_mm2", "feret_mm", "diameter_mm", "axial_mm", "extent_mm", "axes_mm", "centroid_lps"):
        assert getattr(other, name) == pytest.approx(getattr(mine, name), rel=1e-9), name


def test_a_box_has_its_exact_extent_and_a_voxel_is_no_trouble() -> None:
    mask = np.zeros((5, 7, 11), np.uint8)
    mask[1:4, 2:5, 3:9] = 1
    g = Geometry.centered(CENTER, mask.shape, (2.5, 0.8, 0.7))
    assert mask_shape(mask, g).extent_mm == pytest.approx((6 * 0.7, 3 * 0.8, 3 * 2.5))
    assert not mask_shape(mask, g).touches_edge
    mask[:] = 0
    mask[0, 3, 3] = 1
    got = mask_shape(mask, g)
    assert (got.n_parts, got.touches_edge, got.axes_mm) == (1, True, (0, 0, 0))
    assert got.feret_mm == pytest.approx(2.5)
    assert got.axial_mm == got.diameter_mm == pytest.approx(0.8)


def test_surface_of_an_oblique_grid() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([2.0, 1.0, 0.8])
    g = Geometry((40, 70, 90), affine)
    mask = ball(g, g.center_lps, (20.0, 20.0, 20.0))
    assert surface_mm2(mask, g) == pytest.approx(4 * np.pi * 400, rel=0.02)


def test_what_cannot_be_measured_says_so() -> None:
    g = Geometry.centered(CENTER, (5, 7, 11), (2.5, 0.8, 0.7))
    with pytest.raises(ConfigError, match="the mask is empty"):
        mask_shape(np.zeros((5, 7, 11)), g)
    with pytest.raises(ConfigError, match="does not fit"):
        mask_shape(np.ones((5, 7, 10)), g)
    with pytest.raises(ConfigError, match="do not fit"):
        split_kidneys(np.ones((5, 7, 10), np.uint8), g)


def two_kidneys() -> tuple[NDArray[np.uint8], Geometry]:
    """A right kidney with a mass and a loose cyst, a left one with a small mass; 3 mm, patient x from -110 to 110."""
    g = Geometry.centered((0.0, 0.0, 0.0), (50, 40, 74), (3.0, 3.0, 3.0))
    labels = np.zeros(g.shape_dhw, np.uint8)
    for x in (-65.0, 65.0):
        labels[ball(g, np.array([x, 0, 0]), (25.0, 25.0, 50.0))] = KIDNEY
    labels[ball(g, np.array([-65.0, -20, 0]), (18.0, 18.0, 18.0))] = TUMOUR
    labels[ball(g, np.array([65.0, 0, 45]), (9.0, 9.0, 9.0))] = TUMOUR
    labels[ball(g, np.array([-65.0, 45, 0]), (8.0, 8.0, 8.0))] = CYST
    return labels, g


@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), ()), ((2, 0, 1), (0,)), ((1, 2, 0), (0, 1, 2)), ((0, 2, 1), (1,))])
def test_sides_follow_the_patient_not_the_array(order: tuple[int, int, int], flips: tuple[int, ...]) -> None:
    labels, g = two_kidneys()
    right, left = split_kidneys(*stored(labels, g, order, flips))
    assert (right.side, left.side) == ("right", "left")
    for kidney, value, n in ((right, TUMOUR, (labels == TUMOUR)[:, :, :37].sum()), (right, CYST, (labels == CYST).sum())):
        assert (kidney.labels == value).sum() == n
    assert not (left.labels == CYST).any()
    middle = left.geometry.to_lps(np.argwhere(left.labels == TUMOUR)).mean(0)
    assert middle == pytest.approx([65, 0, 45], abs=1.6)
    assert not (right.touches_edge or right.joined)


def test_one_kidney_needs_a_midline_and_joined_ones_have_no_side() -> None:
    labels, g = two_kidneys()
    lone = labels[:, :, 37:]
    place = g.crop((0, 0, 37), lone.shape)
    assert split_kidneys(lone, place)[0].side is None
    assert split_kidneys(lone, place, 0.0)[0].side == "left"
    assert split_kidneys(lone, place, 130.0)[0].side == "right"
    labels[:5, 15:25, 15:60] = KIDNEY
    labels[:20, 18:22, 13:61] = KIDNEY
    (joined,) = split_kidneys(labels, g, 0.0)
    assert joined.joined
    assert joined.side is None
    assert joined.touches_edge
    assert split_kidneys(np.zeros_like(labels), g) == ()


def test_parts_come_largest_first() -> None:
    labels, g = two_kidneys()
    found = parts(labels == TUMOUR, g)
    assert [int(part.sum()) for part in found] == sorted((int(part.sum()) for part in found), reverse=True)
    assert len(found) == 2
    assert len(parts(labels == TUMOUR, g, min_ml=10.0)) == 1
