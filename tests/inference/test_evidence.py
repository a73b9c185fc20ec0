"""The deletion test takes away the ball it says, and as much elsewhere."""

import numpy as np
import pytest
from numpy.typing import NDArray

from medvl.geometry import Geometry
from medvl.inference.evidence import N_CONTROLS, RADIUS_MM, Evidence, elsewhere, evidence_of, peak_of, without_ball

GRID = Geometry.centered((33.0, -21.0, -400.0), (22, 30, 26), (5.0, 4.0, 4.5))
PEAK = (6, 21, 9)


def scans() -> tuple[NDArray[np.int16], list[NDArray[np.int16]]]:
    """A noisy region, and it without the ball around the peak, then without balls elsewhere."""
    hu = np.random.default_rng(5).integers(-1000, 1500, GRID.shape_dhw).astype(np.int16)
    return hu, [without_ball(hu, GRID, place) for place in (PEAK, *elsewhere(hu.shape, GRID, PEAK))]


def away_mm(center: tuple[int, int, int]) -> NDArray[np.float64]:
    """Distance in mm of every voxel from one, by way of patient coordinates."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in GRID.shape_dhw), indexing="ij"), -1)
    return np.linalg.norm(GRID.to_lps(index) - GRID.to_lps(center), axis=-1)


def test_only_the_ball_is_replaced_by_its_surroundings() -> None:
    hu, seen = scans()
    distance = away_mm(PEAK)
    ball = distance <= RADIUS_MM
    filled = seen[0]
    np.testing.assert_array_equal(filled[~ball], hu[~ball])
    shell = (distance > RADIUS_MM) & (distance <= 1.5 * RADIUS_MM)
    assert np.unique(filled[ball]).tolist() == [np.int16(np.median(hu[shell]))]
    assert ball.sum() > 100


def test_controls_lie_elsewhere() -> None:
    hu, (_, *controls) = scans()
    assert len(controls) == N_CONTROLS
    ball = away_mm(PEAK) <= RADIUS_MM
    middles = set()
    for part in controls:
        touched = part != hu
        assert not (touched & ball).any()
        middle = np.argwhere(touched).mean(0)
        assert np.linalg.norm((middle - PEAK) * GRID.spacing_mm) > 1.5 * RADIUS_MM
        middles.add(tuple(np.round(middle)))
    assert len(middles) > 1


@pytest.mark.parametrize("place", [PEAK, (0, 0, 0), (21, 29, 25), (3, 28, 12)])
def test_a_ball_at_the_edge_is_that_of_the_whole_grid(place: tuple[int, int, int]) -> None:
    hu, distance = scans()[0], away_mm(place)
    shell = (distance > RADIUS_MM) & (distance <= 1.5 * RADIUS_MM)
    expected = np.where(distance <= RADIUS_MM, np.int16(np.median(hu[shell])), hu)
    np.testing.assert_array_equal(without_ball(hu, GRID, place), expected)


def test_scores_and_peak_are_told_apart() -> None:
    evidence = evidence_of(GRID, PEAK, 0.9, 0.2, [0.7, 0.8, 0.9])
    x, y, z = (round(float(c), 2) for c in GRID.to_lps(PEAK))
    assert evidence == Evidence((x, y, z), 0.9, 0.2, pytest.approx(0.8))
    assert evidence_of(GRID, PEAK, 0.9, 0.2, []).control is None


def test_the_same_scan_is_tested_in_the_same_places() -> None:
    first, second = scans()[1], scans()[1]
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_peak_is_the_highest_voxel() -> None:
    heat = np.random.default_rng(1).random((5, 7, 11)).astype(np.float32)
    heat[3, 1, 9] = 2.0
    assert peak_of(heat) == (3, 1, 9)
