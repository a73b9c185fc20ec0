"""The deletion test takes away the ball it says, and as much elsewhere."""

import numpy as np
from numpy.typing import NDArray

from medvl.geometry import Geometry
from medvl.inference.evidence import N_CONTROLS, RADIUS_MM, deletion, peak_of

GRID = Geometry.centered((33.0, -21.0, -400.0), (22, 30, 26), (5.0, 4.0, 4.5))
PEAK = (6, 21, 9)


def scans() -> tuple[NDArray[np.int16], list[NDArray[np.int16]], object]:
    hu = np.random.default_rng(5).integers(-1000, 1500, GRID.shape_dhw).astype(np.int16)
    seen: list[NDArray[np.int16]] = []

    def rescore(changed: list[NDArray[np.int16]]) -> list[float]:
        seen.extend(part.copy() for part in changed)
        return [float(k + 1) for k in range(len(seen))]

    return hu, seen, deletion(hu.copy(), GRID, PEAK, rescore)


def away_mm(center: tuple[int, int, int]) -> NDArray[np.float64]:
    """Distance in mm of every voxel from one, by way of patient coordinates."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in GRID.shape_dhw), indexing="ij"), -1)
    return np.linalg.norm(GRID.to_lps(index) - GRID.to_lps(center), axis=-1)


def test_only_the_ball_is_replaced_by_its_surroundings() -> None:
    hu, seen, _ = scans()
    changed = [part for part in seen if (part != hu).any()]
    distance = away_mm(PEAK)
    ball = distance <= RADIUS_MM
    filled = next(part for part in changed if part[PEAK] != hu[PEAK])
    np.testing.assert_array_equal(filled[~ball], hu[~ball])
    shell = (distance > RADIUS_MM) & (distance <= 1.5 * RADIUS_MM)
    assert np.unique(filled[ball]).tolist() == [np.int16(np.median(hu[shell]))]
    assert ball.sum() > 100


def test_controls_lie_elsewhere() -> None:
    hu, seen, _ = scans()
    controls = [part for part in seen if (part != hu).any() and part[PEAK] == hu[PEAK]]
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


def test_scores_and_peak_are_told_apart() -> None:
    hu, seen, evidence = scans()
    number = {id(part): k + 1 for k, part in enumerate(seen)}
    before = next(number[id(p)] for p in seen if (p == hu).all())
    after = next(number[id(p)] for p in seen if p[PEAK] != hu[PEAK])
    controls = [n for n in number.values() if n not in (before, after)]
    assert (evidence.before, evidence.after, evidence.control) == (before, after, np.mean(controls))
    np.testing.assert_allclose(evidence.peak_lps, GRID.to_lps(PEAK), atol=0.006)


def test_the_same_scan_is_tested_in_the_same_places() -> None:
    first, second = scans()[1], scans()[1]
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_peak_is_the_highest_voxel() -> None:
    heat = np.random.default_rng(1).random((5, 7, 11)).astype(np.float32)
    heat[3, 1, 9] = 2.0
    assert peak_of(heat) == (3, 1, 9)
