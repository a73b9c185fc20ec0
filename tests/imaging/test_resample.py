"""`resample` against SimpleITK, and properties that hold at every ratio."""

import time
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation
from sitk_oracle import NEAREST, resampled

from medvl.geometry import Geometry
from medvl.imaging.resample import covered_fraction, resample, resample_label
from medvl.records import Volume

SHAPE = (5, 7, 11)
SPACING = (2.5, 0.8, 0.7)
CENTER = (12.0, -31.0, 64.0)
IDENTITY = np.eye(3)
TURNS = {
    "same axes": IDENTITY,
    "left-right flip": np.diag([-1.0, 1.0, 1.0]),
    "head-feet and front-back flip": np.diag([1.0, -1.0, -1.0]),
    "sagittal stack": IDENTITY[[2, 0, 1]],
    "coronal stack, flipped": IDENTITY[[0, 2, 1]] * [1, -1, 1],
    "oblique": Rotation.from_euler("xyz", [11, -23, 37], degrees=True).as_matrix(),
    "oblique, mirrored": Rotation.from_euler("xyz", [11, -23, 37], degrees=True).as_matrix() @ np.diag([-1, 1, 1]),
}


def grid(shape, spacing, turn=IDENTITY, center=CENTER):
    """A turned SPL grid around `center`."""
    affine = Geometry.centered((0, 0, 0), shape, spacing).affine_lps.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = np.array(center) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry(shape, affine)


def noise(shape=SHAPE, seed=0, dtype=np.int16):
    return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(dtype)


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS.keys())
@pytest.mark.parametrize("spacing", [(0.61, 0.53, 0.47), SPACING], ids=["finer", "equal"])
@pytest.mark.parametrize("source_turn", ["same axes", "sagittal stack", "oblique"])
def test_enlarging_equals_simpleitk_linear(turn, spacing, source_turn):
    source = grid(SHAPE, SPACING, TURNS[source_turn])
    # No coarser step anywhere: the finest source spacing bounds that of the target.
    spacing = spacing if spacing != SPACING or np.array_equal(turn, TURNS[source_turn]) else (0.69, 0.66, 0.63)
    target = grid((17, 13, 19), spacing, turn, center=(12.31, -30.83, 63.7))
    expected = resampled(noise(), source.affine_lps, target.shape_dhw, target.affine_lps)
    found = resample(Volume(noise(), source), target)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found == -1024, expected == -1024)
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert 0.02 < covered_fraction(source, target) == pytest.approx(np.mean(expected != -1024))


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS.keys())
@pytest.mark.parametrize("ratio", [(1.3, 2.0, 3.7), (2.6, 1.0, 0.5)], ids=["all shrink", "mixed"])
def test_shrinking_agrees_with_simpleitk_smoothed_then_sampled(turn, ratio):
    smooth = ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 4000, (31, 37, 43)), 2.0).astype(np.float32)
    source = grid(smooth.shape, SPACING)
    target = grid((9, 8, 7), coarser(ratio, turn), turn)
    step = np.linalg.norm(np.linalg.inv(source.affine_lps[:3, :3]) @ target.affine_lps[:3, :3], axis=1)
    sigmas = np.sqrt(np.maximum(step**2 - 1, 0) / 6) * SPACING
    expected = resampled(smooth, source.affine_lps, target.shape_dhw, target.affine_lps, sigmas_mm=sigmas)
    found = resample(Volume(smooth, source), target)
    inside = inner(source, target, margin=3.0 * step)
    assert inside.sum() > 20
    assert np.sqrt(np.mean((found - expected)[inside] ** 2)) < 0.06 * expected[inside].std()
    assert np.corrcoef(found[inside], expected[inside])[0, 1] > 0.995


def coarser(ratio, turn):
    """Spacing along the target's axes: `ratio` times that of the source axis each runs along (or has the number of)."""
    spacing = np.multiply(ratio, SPACING)
    if not np.isin(np.abs(turn), (0.0, 1.0)).all():
        return tuple(spacing)
    along = np.abs(grid(SHAPE, (1, 1, 1)).directions.T @ grid(SHAPE, (1, 1, 1), turn).directions)
    return tuple(spacing @ along)


def inner(source, target, margin):
    """(D, H, W) True where the target centre is at least `margin` source voxels inside the source."""
    index = source.to_index(target.to_lps(np.moveaxis(np.indices(target.shape_dhw), 0, -1)))
    return ((index >= margin) & (index <= np.array(source.shape_dhw) - 1 - margin)).all(axis=-1)


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS.keys())
@pytest.mark.parametrize("ratio", [0.4, 1.0, 1.01, 1.7, 5.3])
def test_constants_and_ramps_are_kept(turn, ratio):
    source = grid((41, 63, 67), SPACING)
    target = grid((8, 9, 7), coarser(ratio, turn), turn)
    flat = resample(Volume(np.full(source.shape_dhw, 57, np.int16), source), target, fill=57)
    np.testing.assert_allclose(flat, 57, atol=1e-3)
    points = source.to_lps(np.moveaxis(np.indices(source.shape_dhw), 0, -1))
    slope = np.array([1.0, -2.0, 3.0])
    ramp = resample(Volume((points @ slope).astype(np.float32), source), target)
    step = np.linalg.norm(np.linalg.inv(source.affine_lps[:3, :3]) @ target.affine_lps[:3, :3], axis=1)
    inside = inner(source, target, margin=2.0 * step + 2)
    assert inside.any()
    wanted = target.to_lps(np.moveaxis(np.indices(target.shape_dhw), 0, -1)) @ slope
    np.testing.assert_allclose(ramp[inside], wanted[inside], atol=0.01)


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS.keys())
@pytest.mark.parametrize("spacing", [(0.9, 0.7, 0.8), (2.0, 2.3, 1.9)], ids=["finer", "coarser"])
def test_centre_of_mass_stays_in_the_patient(turn, spacing):
    source = grid((30, 61, 67), SPACING)
    where = np.array([13.7, -29.1, 61.3])
    points = source.to_lps(np.moveaxis(np.indices(source.shape_dhw), 0, -1))
    blob = 2000 * np.exp(-((points - where) ** 2).sum(axis=-1) / (2 * 3.5**2))
    target = grid((60, 58, 62) if spacing[0] < 1 else (26, 24, 28), spacing, turn)
    found = resample(Volume(blob.astype(np.float32), source), target, fill=0)
    index = np.array(ndimage.center_of_mass(found))
    assert np.abs(index - target.to_index(where)).max() < 0.05


@pytest.mark.parametrize("ratio", [1.13, 1.5, 2.5, 4.3])
def test_kernel_has_the_spread_of_a_triangle_as_wide_as_the_step(ratio):
    source = grid((61, 7, 11), (1.0, 1.0, 1.0), center=(0, 0, 0))
    target = grid((41, 1, 1), (ratio, 1.0, 1.0), center=(0, 0, 0.13))
    offsets = source.to_index(target.to_lps(np.stack([np.arange(41), np.zeros(41), np.zeros(41)], axis=1)))[:, 0]
    spread, mass = 0.0, 0.0
    for impulse in range(20, 41):  # every phase between the two grids
        values = np.zeros(source.shape_dhw, np.float32)
        values[impulse] = 1.0
        response = resample(Volume(values, source), target, fill=0)[:, 0, 0]
        spread += float(response @ (offsets - impulse) ** 2)
        mass += float(response.sum())
    assert mass == pytest.approx(21 / ratio, rel=0.05)
    assert spread / mass == pytest.approx(ratio**2 / 6, rel=0.05)


@pytest.mark.parametrize("degrees", [0.02, 0.3, 2.0])
def test_small_turns_are_not_taken_for_aligned(degrees):
    source = grid((21, 63, 67), SPACING)
    turn = Rotation.from_euler("xyz", [degrees, -degrees, degrees], degrees=True).as_matrix()
    target = grid((45, 71, 73), (1.1, 0.69, 0.66), turn, center=(12.31, -30.83, 63.7))
    points = source.to_lps(np.moveaxis(np.indices(source.shape_dhw), 0, -1))
    waves = (500 * np.sin(points / 4.0).sum(axis=-1)).astype(np.float32)
    expected = resampled(waves, source.affine_lps, target.shape_dhw, target.affine_lps)
    found = resample(Volume(waves, source), target)
    inside = (found != -1024) & (expected != -1024)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(found[inside], expected[inside], atol=3.0)  # 0.02 voxels of a slope of at most 125 HU/mm


@pytest.mark.parametrize("turn", ["same axes", "sagittal stack", "oblique"])
def test_noise_falls_as_voxels_grow(turn):
    source = grid((60, 64, 68), (1.0, 1.0, 1.0))
    values = np.random.default_rng(5).normal(0, 100, source.shape_dhw).astype(np.float32)
    spread = [resample(Volume(values, source), grid((10, 11, 12), (s, s, s), TURNS[turn])).std() for s in (1.6, 2.4, 3.6)]
    assert spread[0] < 60
    assert spread[0] > 1.4 * spread[1] > 1.4**2 * spread[2]


@pytest.mark.parametrize("turn", ["same axes", "left-right flip", "oblique"])
def test_outside_is_fill_beyond_half_a_voxel_and_edge_within(turn):
    source = grid(SHAPE, SPACING)
    target = grid((41, 43, 45), (0.6, 0.31, 0.33), TURNS[turn])
    found = resample(Volume(np.full(SHAPE, 40, np.int16), source), target, fill=-777)
    inside = source.contains(target.to_lps(np.moveaxis(np.indices(target.shape_dhw), 0, -1)))
    assert 0.05 < inside.mean() < 0.95
    np.testing.assert_allclose(found[inside], 40, atol=1e-3)
    assert (found[~inside] == -777).all()


@pytest.mark.parametrize("turn", ["same axes", "oblique"])
def test_grids_that_do_not_meet_are_all_fill(turn):
    source, target = grid(SHAPE, SPACING), grid((4, 5, 6), (1, 1, 1), TURNS[turn], center=(500, 0, 0))
    assert (resample(Volume(noise(), source), target) == -1024).all()
    assert (resample_label(noise(), source, target, fill=9) == 9).all()
    assert covered_fraction(source, target) == 0


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS.keys())
def test_labels_equal_simpleitk_nearest(turn):
    labels = np.random.default_rng(1).integers(0, 9, SHAPE).astype(np.uint8)
    source = grid(SHAPE, SPACING, TURNS["coronal stack, flipped"])
    target = grid((13, 14, 15), (0.613, 0.557, 0.487), turn, center=(12.31, -30.83, 63.7))
    expected = resampled(labels, source.affine_lps, target.shape_dhw, target.affine_lps, fill=0, interpolator=NEAREST)
    found = resample_label(labels, source, target)
    assert found.dtype == np.uint8
    assert (found > 0).any()
    np.testing.assert_array_equal(found, expected)


def test_labels_must_fit_their_geometry():
    with pytest.raises(ValueError, match="do not fit"):
        resample_label(np.zeros((7, 5, 11), np.uint8), grid(SHAPE, SPACING), grid(SHAPE, SPACING))


def test_sheared_stack_is_put_where_its_slices_are():
    source = grid((21, 30, 24), SPACING)
    affine = source.affine_lps.copy()
    affine[1, 0] += 2.5 * np.tan(np.radians(14))
    sheared = Geometry(source.shape_dhw, affine)
    where = sheared.to_lps((10, 14, 11))
    points = sheared.to_lps(np.moveaxis(np.indices(sheared.shape_dhw), 0, -1))
    blob = (2000 * np.exp(-((points - where) ** 2).sum(axis=-1) / (2 * 2.0**2))).astype(np.float32)
    target = Geometry.centered(where, (16, 31, 33), (1.3, 0.6, 0.6))
    found = resample(Volume(blob, sheared), target, fill=0)
    np.testing.assert_allclose(ndimage.center_of_mass(found), target.to_index(where), atol=0.05)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_memory_order_and_dtype_do_not_change_the_result(dtype):
    source, target = grid((20, 30, 40), SPACING), grid((9, 10, 11), (3, 2, 2))
    plain = resample(Volume(noise((20, 30, 40)), source), target)
    fortran = np.asfortranarray(noise((20, 30, 40)).astype(dtype))
    np.testing.assert_allclose(resample(Volume(fortran, source), target), plain, atol=0.01)
    np.testing.assert_array_equal(resample(Volume(noise((20, 30, 40)), source), target), plain)


def test_int16_source_is_not_copied_to_float():
    source = grid((160, 200, 200), (2.5, 0.8, 0.8))
    volume = Volume(noise(source.shape_dhw), source)
    target = grid((48, 48, 48), (2.5, 2.5, 2.5))
    resample(volume, target)
    tracemalloc.start()
    resample(volume, target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < volume.hu.nbytes  # a float copy alone would be twice that


def test_a_model_grid_takes_milliseconds():
    source = grid((160, 200, 200), (2.5, 0.8, 0.8))
    volume, target = Volume(noise(source.shape_dhw), source), grid((48, 48, 48), (2.5, 2.5, 2.5))
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        resample(volume, target)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.05  # 2 ms on a free core; the room is for a busy machine
