"""Batches: every row once a round; windows; variation that never flips."""

import numpy as np
import pytest

from medvl.training.batches import SHIFT_VOXELS, Sampler, to_pixels, vary

SHAPE = (5, 7, 11)


@pytest.mark.parametrize(("n", "batch"), [(12, 4), (13, 4), (7, 7), (5, 3), (10, 9)])
def test_every_row_is_drawn_once_a_round(n: int, batch: int) -> None:
    sampler = Sampler(n, batch, 0)
    drawn = [sampler.next() for _ in range(6 * n)]
    assert {len(rows) for rows in drawn} == {batch}
    rounds = np.concatenate(drawn)[: n * (6 * batch)].reshape(-1, n)
    for rows in rounds:
        assert sorted(rows.tolist()) == list(range(n))
    assert len({tuple(rows) for rows in rounds}) > 3


def test_few_rows_come_whole_and_seeds_decide_the_order() -> None:
    assert sorted(Sampler(3, 8, 0).next().tolist()) == [0, 1, 2]

    def drawn(seed: int) -> list[list[int]]:
        sampler = Sampler(20, 6, seed)
        return [sampler.next().tolist() for _ in range(5)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_windows_map_low_to_zero_and_high_to_one() -> None:
    hu = np.full((2, *SHAPE), -150, np.int16)
    hu[1, 2, 3, 4], hu[0, 4, 6, 10] = 50, 2000
    pixels = to_pixels(hu, ((-150, 250), (-1000, 1000)))
    assert tuple(pixels.shape) == (2, 2, *SHAPE)
    assert pixels[0, 0, 0, 0, 0] == 0
    assert pixels[1, 0, 2, 3, 4] == 0.5
    assert pixels[0, 0, 4, 6, 10] == 1
    assert pixels[0, 1, 0, 0, 0].item() == pytest.approx(0.425)
    assert pixels[0, 1, 4, 6, 10] == 1


def _asymmetric(n: int) -> np.ndarray:
    """Crops with bright blocks that sit at another end along each axis."""
    hu = np.full((n, 15, 17, 21), -100, np.int16)
    hu[:, 3:6, 4:7, 4:7] = 1500
    hu[:, 9:12, 4:7, 4:7] = 1100
    hu[:, 3:6, 10:13, 4:7] = 700
    hu[:, 3:6, 4:7, 14:17] = 400
    return hu


def test_variation_shifts_a_little_and_never_flips() -> None:
    hu = _asymmetric(60)
    changed = vary(hu, np.random.default_rng(0))
    shifts = set()
    for crop in changed:
        centers = [
            np.argwhere((crop > low) & (crop < high)).mean(0) for low, high in ((1280, 2000), (880, 1280), (540, 880), (250, 540))
        ]
        corner = centers[0]
        shift = corner - [4, 5, 5]
        shifts.add(tuple(shift.round().astype(int)))
        assert (np.abs(shift) < SHIFT_VOXELS + 0.3).all()
        for axis, (other, step) in enumerate(zip(centers[1:], (6, 6, 10), strict=True)):
            assert other[axis] - corner[axis] == pytest.approx(step, abs=0.5)
    assert len(shifts) > 30
    assert {abs(v) for s in shifts for v in s} == {0, 1, 2}


def test_variation_of_values_is_small_leaves_the_input_alone_and_repeats() -> None:
    hu = np.random.default_rng(0).integers(-80, 80, (40, *SHAPE)).astype(np.int16)
    before = hu.copy()
    changed = vary(hu, np.random.default_rng(1))
    np.testing.assert_array_equal(hu, before)
    assert changed.dtype == np.int16
    np.testing.assert_array_equal(changed, vary(hu, np.random.default_rng(1)))
    assert (changed != vary(hu, np.random.default_rng(2))).any()
    means = changed.mean((1, 2, 3)) - hu.mean((1, 2, 3))
    assert 10 < means.std() < 70
    air = vary(np.full((30, *SHAPE), -1024, np.int16), np.random.default_rng(3))
    assert air.min() == -1024
    assert air.max() < -950
