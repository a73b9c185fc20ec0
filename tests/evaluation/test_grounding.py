"""Grounding measures against MONAI and brute force; chance is chance, and no map speaks for another."""

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, MeanIoU

from medvl.evaluation.grounding import (
    Maps,
    best_threshold,
    ground,
    grounding_table,
    overlap,
    pointing,
)
from medvl.evaluation.peaks import grid_over, peak_distance_mm, peak_lps
from medvl.geometry import Geometry

SHAPES = [(3, 4, 5), (2, 7, 3), (5, 3, 4), (4, 4, 6)]


def _cases(n: int = 12, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Maps and masks that have something to do with each other, on several grids."""
    rng = np.random.default_rng(seed)
    masks = [rng.random(SHAPES[i % 4]) < 0.2 for i in range(n)]
    return [m * 0.3 + rng.random(m.shape) for m in masks], masks


@pytest.mark.parametrize("threshold", [-1.0, 0.4, 0.95, 2.0])
def test_overlap_equals_monai(threshold: float) -> None:
    for heat, mask in zip(*_cases(), strict=True):
        pair = [torch.tensor(x, dtype=torch.float32)[None, None] for x in (heat >= threshold, mask)]
        for metric, theirs in (("iou", MeanIoU()), ("dice", DiceMetric())):
            assert overlap(heat, mask, threshold, metric) == pytest.approx(float(theirs(*pair)), abs=1e-6)


def test_pointing_and_its_ties() -> None:
    heat, mask = np.zeros((2, 2, 3)), np.zeros((2, 2, 3), bool)
    mask[1, 0, 2] = mask[1, 1, 2] = mask[0, 0, 0] = True
    assert pointing(heat, mask) == pytest.approx(3 / 12)
    assert pointing(heat, mask, "any") == 1.0
    heat[1, 0, 2] = heat[0, 1, 1] = 1.0
    assert pointing(heat, mask) == 0.5
    heat[0, 1, 1] = 2.0
    assert pointing(heat, mask) == pointing(heat, mask, "any") == 0.0


def test_threshold_equals_brute_force_over_every_value() -> None:
    maps, masks = _cases()
    maps = [m.round(2) for m in maps]
    for metric in ("iou", "dice"):
        values = np.unique(np.concatenate([m.ravel() for m in maps]))
        means = [np.mean([overlap(h, m, t, metric) for h, m in zip(maps, masks, strict=True)]) for t in values]
        found = best_threshold(maps, masks, metric, n_levels=20000)
        assert found == values[np.flatnonzero(np.isclose(means, max(means)))[-1]]
        coarse = best_threshold(maps, masks, metric, n_levels=50)
        assert np.mean([overlap(h, m, coarse, metric) for h, m in zip(maps, masks, strict=True)]) > 0.95 * max(means)


def test_threshold_of_a_perfect_map_is_perfect_elsewhere_too() -> None:
    masks = _cases()[1]
    maps = [np.where(m, 0.8, 0.1) for m in masks]
    threshold = best_threshold(maps[:6], masks[:6])
    found = ground(maps[6:], masks[6:], np.arange(6), threshold, n_bootstrap=50)
    assert found.pointing.value == found.iou.value == found.dice.value == 1.0
    assert found.iou.interval == (1.0, 1.0)


def test_a_map_that_knows_nothing_gets_chance() -> None:
    masks = _cases(60)[1]
    flat = ground([np.ones(m.shape) for m in masks], masks, np.arange(60), 0.0, n_bootstrap=50)
    for measure in (flat.pointing, flat.iou, flat.dice):
        assert measure.value == pytest.approx(measure.chance)
    rng = np.random.default_rng(4)
    noise = ground([rng.random(m.shape) for m in masks * 20], masks * 20, np.arange(1200), 0.5, n_bootstrap=50)
    assert noise.pointing.value == pytest.approx(noise.pointing.chance, abs=0.04)
    assert ground([np.ones(m.shape) for m in masks], masks, np.arange(60), 0.0, ties="any", n_bootstrap=50).pointing.value == 1.0


def test_no_map_changes_the_verdict_on_another() -> None:
    maps, masks = _cases()
    alone = [ground([h], [m], [0], 0.6) for h, m in zip(maps, masks, strict=True)]
    together = ground(maps, masks, np.arange(12), 0.6, n_bootstrap=50)
    for name in ("pointing", "iou", "dice"):
        assert getattr(together, name).value == pytest.approx(np.mean([getattr(one, name).value for one in alone]))
        assert getattr(alone[0], name).interval is None


def test_empty_masks_are_left_out_and_counted() -> None:
    maps, masks = _cases()
    empty = np.zeros(SHAPES[0], bool)
    assert np.isnan(pointing(maps[0], empty))
    assert np.isnan(overlap(maps[0], empty, 0.5))
    assert overlap(maps[0], masks[0], 9.0) == overlap(maps[0], masks[0], 9.0, "dice") == 0.0
    full = ground(maps, masks, np.arange(12), 0.6, n_bootstrap=50)
    more = ground([*maps, maps[0]], [*masks, empty], np.arange(13), 0.6, n_bootstrap=50)
    assert (more.n, more.n_empty) == (12, 1)
    assert (more.pointing, more.iou, more.dice) == (full.pointing, full.iou, full.dice)
    assert best_threshold([*maps, maps[0]], [*masks, empty]) == best_threshold(maps, masks)
    for call in (lambda: ground([maps[0]], [empty], [0], 0.5), lambda: best_threshold([maps[0]], [empty])):
        with pytest.raises(ValueError, match="all 1 masks are empty"):
            call()


def test_intervals_resample_patients() -> None:
    """Eight copies of every map of a patient add no knowledge."""
    maps, masks = _cases()
    once = ground(maps, masks, np.arange(12), 0.6, n_bootstrap=300).iou.interval
    copied = ground(maps * 8, masks * 8, np.tile(np.arange(12), 8), 0.6, n_bootstrap=300).iou.interval
    apart = ground(maps * 8, masks * 8, np.arange(96), 0.6, n_bootstrap=300).iou.interval
    assert once is not None
    assert copied is not None
    assert apart is not None
    assert copied == pytest.approx(once, abs=1e-9)
    assert apart[1] - apart[0] < 0.6 * (once[1] - once[0])


def test_says_what_does_not_fit() -> None:
    heat, mask = np.ones((2, 3, 4)), np.ones((2, 3, 4), bool)
    with pytest.raises(ValueError, match=r"map \(2, 3, 4\) and mask \(2, 4, 3\) lie on different grids"):
        pointing(heat, mask.transpose(0, 2, 1))
    with pytest.raises(ValueError, match="not finite"):
        overlap(heat * np.nan, mask, 0.5)
    with pytest.raises(ValueError, match="1 maps, 1 masks and 2 patients"):
        ground([heat], [mask], [0, 1], 0.5)


FINE = Geometry.centered((12.0, -40.0, 300.0), (12, 20, 8), (5.0, 1.5, 2.0))


def test_tokens_lie_over_their_voxels() -> None:
    """A token's centre is the mean of its voxels' centres, and both grids fill the same box."""
    coarse = grid_over(FINE, (3, 5, 4))
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in FINE.shape_dhw), indexing="ij"), -1)
    means = FINE.to_lps(voxels).reshape(3, 4, 5, 4, 4, 2, 3).mean((1, 3, 5))
    tokens = np.stack(np.meshgrid(*(np.arange(n) for n in (3, 5, 4)), indexing="ij"), -1)
    np.testing.assert_allclose(coarse.to_lps(tokens), means, atol=1e-9)
    np.testing.assert_allclose(coarse.extent_mm, FINE.extent_mm)
    assert grid_over(FINE, FINE.shape_dhw) == FINE


def test_peaks_in_mm() -> None:
    heat, mask = np.zeros(FINE.shape_dhw), np.zeros(FINE.shape_dhw, bool)
    heat[2, 3, 4], mask[2, 7:9, 4], mask[3, 3, 4] = 1.0, True, True
    np.testing.assert_allclose(peak_lps(heat, FINE), FINE.to_lps((2, 3, 4)))
    assert peak_distance_mm(heat, mask, FINE) == pytest.approx(5.0)
    mask[3, 3, 4] = False
    assert peak_distance_mm(heat, mask, FINE) == pytest.approx(4 * 1.5)
    assert peak_distance_mm(heat, heat > 0, FINE) == 0.0
    assert np.isnan(peak_distance_mm(heat, mask & False, FINE))
    found = ground([heat, heat], [mask, heat > 0], ["a", "b"], 0.5, geometries=[FINE, FINE], n_bootstrap=50)
    assert found.near is not None
    assert (found.near.value, found.median_mm, found.threshold) == (0.5, 3.0, 0.5)
    cells = FINE.to_lps(np.argwhere(np.ones(FINE.shape_dhw)))
    apart = [np.linalg.norm(cells[:, None] - FINE.to_lps(np.argwhere(m))[None], axis=-1).min(1) for m in (mask, heat > 0)]
    assert found.near.chance == pytest.approx(np.mean([a <= 5.0 for a in apart]))


def _table(seed: int) -> dict[str, Maps]:
    maps, masks = _cases(12, seed)
    return {"mass": Maps(maps, masks, [f"{seed}-{i}" for i in range(12)])}


def test_the_table_takes_its_thresholds_from_validation_only() -> None:
    """Other test masks change the result but not the threshold."""
    validation, test = _table(1), _table(2)
    found = grounding_table(validation, test, n_bootstrap=50)["mass"]
    assert found is not None
    assert found.threshold == best_threshold(validation["mass"].maps, validation["mass"].masks)
    other = Maps(test["mass"].maps, [np.roll(m, 1, 2) for m in test["mass"].masks], test["mass"].patients)
    shuffled = grounding_table(validation, {"mass": other}, n_bootstrap=50)["mass"]
    assert shuffled is not None
    assert shuffled.threshold == found.threshold
    assert shuffled.iou != found.iou
    assert found.as_dict()["iou"]["value"] == found.iou.value


def test_the_table_refuses_leaks_and_says_what_is_missing() -> None:
    validation, test = _table(1), _table(2)
    empty = Maps(test["mass"].maps, [m & False for m in test["mass"].masks], test["mass"].patients)
    assert grounding_table(validation, {"mass": empty, "cyst": test["mass"]}, n_bootstrap=50) == {"mass": None, "cyst": None}
    with pytest.raises(ValueError, match="12 patients are in validation and test"):
        grounding_table(test, test)
