"""Properties of `medvl.geometry`, checked against nibabel where nibabel knows the answer."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medvl.geometry import Geometry

SHAPE = (5, 7, 11)
angles = st.floats(-180, 180)
millimetres = st.floats(-500, 500)
spacings = st.floats(0.3, 8)


@st.composite
def geometries(draw):
    """Any orthogonal grid: spacing, rotation, mirror, origin and shape all free."""
    shape = tuple(draw(st.integers(1, 40)) for _ in range(3))
    spacing = [draw(spacings) for _ in range(3)]
    rotation = Rotation.from_euler("xyz", [draw(angles) for _ in range(3)], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing * np.array([draw(st.sampled_from([-1, 1])) for _ in range(3)])
    affine[:3, 3] = [draw(millimetres) for _ in range(3)]
    return Geometry(shape, affine)


@given(geometries(), st.lists(st.tuples(millimetres, millimetres, millimetres), min_size=1, max_size=5))
def test_index_and_lps_undo_each_other(geometry, points):
    points = np.array(points)
    np.testing.assert_allclose(geometry.to_lps(geometry.to_index(points)), points, atol=1e-6)


@given(geometries())
def test_nibabel_affine_round_trip(geometry):
    again = Geometry.from_ras_ijk(geometry.shape_dhw[::-1], geometry.affine_ras_ijk)
    assert again == geometry


@given(geometries(), st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)))
def test_nibabel_places_the_transposed_voxel_at_the_same_point(geometry, index):
    ras = nib.affines.apply_affine(geometry.affine_ras_ijk, index[::-1])
    np.testing.assert_allclose(geometry.to_lps(index) * [-1, -1, 1], ras, atol=1e-6)


@given(geometries())
def test_spacing_agrees_with_nibabel(geometry):
    np.testing.assert_allclose(geometry.spacing_mm, nib.affines.voxel_sizes(geometry.affine_ras_ijk)[::-1])


@given(geometries())
def test_axes_name_each_patient_axis_once(geometry):
    assert sorted("RL".find(c) >= 0 for c in geometry.axes) == [False, False, True]
    assert len({{"R": "x", "L": "x", "A": "y", "P": "y", "S": "z", "I": "z"}[c] for c in geometry.axes}) == 3


@given(
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.tuples(spacings, spacings, spacings),
    st.tuples(*[st.floats(-20, 20)] * 3),
)
def test_axes_agree_with_nibabel_within_20_degrees(order, signs, spacing, tilt):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix() @ np.eye(3)[:, order] * signs * spacing
    geometry = Geometry(SHAPE, affine)
    assert geometry.axes == "".join(nib.aff2axcodes(geometry.affine_ras_ijk))[::-1]


def test_axes_of_a_known_grid():
    geometry = Geometry.centered((0, 0, 0), SHAPE, (2.5, 0.8, 0.7))
    assert geometry.axes == "SPL"
    assert nib.aff2axcodes(geometry.affine_ras_ijk) == ("L", "P", "S")
    assert geometry.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert geometry.voxel_ml == pytest.approx(2.5 * 0.8 * 0.7 / 1000)
    assert geometry.extent_mm == pytest.approx((12.5, 5.6, 7.7))
    assert geometry.shear_deg == pytest.approx(0, abs=1e-6)


def test_head_is_up_and_left_is_positive():
    geometry = Geometry.centered((10, 20, 30), SHAPE, (2.5, 0.8, 0.7))
    step = geometry.to_lps((1, 0, 0)) - geometry.to_lps((0, 0, 0))
    np.testing.assert_allclose(step, (0, 0, 2.5), atol=1e-9)
    step = geometry.to_lps((0, 0, 1)) - geometry.to_lps((0, 0, 0))
    np.testing.assert_allclose(step, (0.7, 0, 0), atol=1e-9)


@given(geometries(), st.tuples(*[st.integers(-9, 9)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_crop_keeps_world_positions(geometry, start, shape):
    crop = geometry.crop(start, shape)
    index = np.array([[0, 0, 0], [1, 2, 3]])
    assert crop.shape_dhw == shape
    np.testing.assert_allclose(crop.to_lps(index), geometry.to_lps(index + np.array(start)), atol=1e-6)


@given(
    st.tuples(millimetres, millimetres, millimetres),
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(spacings, spacings, spacings),
)
def test_centered_grid_has_its_middle_there(center, shape, spacing):
    np.testing.assert_allclose(Geometry.centered(center, shape, spacing).center_lps, center, atol=1e-6)


@given(geometries())
def test_contains_holds_centres_and_borders_but_not_beyond(geometry):
    last = np.array(geometry.shape_dhw) - 1
    inside = np.array([[0, 0, 0], last, [-0.49, 0, 0], last + 0.49])
    outside = np.array([[-0.51, 0, 0], last + np.array([0, 0.51, 0]), last + 3])
    assert geometry.contains(geometry.to_lps(inside)).all()
    assert not geometry.contains(geometry.to_lps(outside)).any()


@settings(max_examples=30)
@given(st.floats(1, 40))
def test_shear_is_the_tilt(degrees):
    affine = np.eye(4)
    affine[:3, :3] = Geometry.centered((0, 0, 0), SHAPE, (2.5, 0.8, 0.7)).affine_lps[:3, :3]
    affine[1, 0] = np.tan(np.radians(degrees)) * 2.5
    assert Geometry(SHAPE, affine).shear_deg == pytest.approx(degrees, abs=1e-6)


def test_equality_needs_shape_and_affine():
    geometry = Geometry.centered((1, 2, 3), SHAPE, (2.5, 0.8, 0.7))
    assert geometry == Geometry.centered((1, 2, 3), SHAPE, (2.5, 0.8, 0.7))
    assert geometry != Geometry.centered((1, 2, 3.1), SHAPE, (2.5, 0.8, 0.7))
    assert geometry != Geometry((5, 7, 12), geometry.affine_lps)
    assert geometry != "a grid"


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((5, 7, 0), np.eye(4)),
        ((5, 7), np.eye(4)),
        (SHAPE, np.eye(3)),
        (SHAPE, np.diag([1.0, 0.0, 1.0, 1.0])),
        (SHAPE, np.diag([1.0, np.nan, 1.0, 1.0])),
    ],
)
def test_what_is_no_grid_is_refused(shape, affine):
    with pytest.raises(ValueError, match=r"shape_dhw|affine_lps"):
        Geometry(shape, affine)


def test_affine_cannot_be_changed_from_outside():
    affine = np.diag([2.5, 0.8, 0.7, 1.0])
    geometry = Geometry(SHAPE, affine)
    affine[0, 0] = 99.0
    assert geometry.spacing_mm[0] == pytest.approx(2.5)
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine_lps[0, 0] = 99.0
