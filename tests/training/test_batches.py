"""Batches: every row once a round; windows; variation that never flips."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from medvl.imaging.preprocess import window
from medvl.training.batches import SHIFT_VOXELS, rows_at, to_pixels, vary

SHAPE = (5, 7, 11)


@pytest.mark.parametrize(("n", "batch"), [(12, 4), (13, 4), (7, 7), (5, 3), (10, 9), (3, 8)])
def test_every_row_is_drawn_once_a_round(n: int, batch: int) -> None:
    drawn = [rows_at(n, batch, 0, turn) for turn in range(6 * n)]
    assert {len(rows) for rows in drawn} == {min(batch, n)}
    rounds = np.concatenate(drawn).reshape(-1, n)
    for rows in rounds:
        assert sorted(rows.tolist()) == list(range(n))
    assert len({tuple(rows) for rows in rounds}) > 3


def test_the_turn_and_the_seed_alone_decide_the_rows() -> None:
    def drawn(seed: int, turns: Iterable[int]) -> list[list[int]]:
        return [rows_at(20, 6, seed, turn).tolist() for turn in turns]

    assert drawn(1, range(5)) == drawn(1, reversed(range(5)))[::-1]
    assert drawn(1, range(5)) != drawn(2, range(5))


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


def test_training_and_inference_see_the_same_bytes() -> None:
    """Every HU there is, also by the plain formula in torch."""
    hu, windows = (
        np.arange(-32768, 32768, dtype=np.int16).reshape(2, 16, 32, 64),
        ((-150.0, 250.0), (-1000.0, 1000.0), (3.3, 7.0)),
    )
    pixels = to_pixels(hu, windows)
    values = torch.from_numpy(hu).float()
    plain = torch.stack([((values - low) / (high - low)).clamp(0, 1) for low, high in windows], 1)
    assert torch.equal(pixels, plain)
    assert pixels.is_contiguous(memory_format=torch.channels_last_3d)
    assert np.array_equal(pixels.numpy(), np.stack([window(scan, windows) for scan in hu]))


def _asymmetric() -> np.ndarray:
    """A crop with bright blocks that sit at another end along each axis."""
    hu = np.full((15, 17, 21), -100, np.int16)
    hu[3:6, 4:7, 4:7] = 1500
    hu[9:12, 4:7, 4:7] = 1100
    hu[3:6, 10:13, 4:7] = 700
    hu[3:6, 4:7, 14:17] = 400
    return hu


def _varied(crops: Iterable[np.ndarray], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([vary(crop, rng) for crop in crops])


def test_variation_shifts_a_little_and_never_flips() -> None:
    changed = _varied([_asymmetric()] * 60, 0)
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
    changed = _varied(hu, 1)
    np.testing.assert_array_equal(hu, before)
    assert changed.dtype == np.int16
    np.testing.assert_array_equal(changed, _varied(hu, 1))
    assert (changed != _varied(hu, 2)).any()
    means = changed.mean((1, 2, 3)) - hu.mean((1, 2, 3))
    assert 10 < means.std() < 70
    air = _varied(np.full((30, *SHAPE), -1024, np.int16), 3)
    assert air.min() == -1024
    assert air.max() < -950
