"""Reliability: by hand, against torchmetrics, scikit-learn and scipy, and against what intervals promise."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from torch import tensor
from torchmetrics.functional.classification import binary_calibration_error

from medvl.evaluation.reliability import (
    brier,
    ece_interval,
    error_by_chance,
    expected_calibration_error,
    recalibration,
    recalibration_of,
    reliability,
)


def _sample(n: int, seed: int = 0, shift: float = 0.0, rows: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities that are off by `shift` in the logit, patients whose rows all say the same."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, n)
    labels = (rng.random(n) < expit(z - shift)).astype(int)
    return np.repeat(labels, rows), np.repeat(expit(z), rows), np.repeat(np.arange(n), rows)


def test_calibration_error_by_hand() -> None:
    # Two bins of two: (0.1, 0.3) against 1/2, (0.6, 0.8) against 1; mean of 0.3 and 0.3.
    assert expected_calibration_error([1, 1, 0, 1], [0.8, 0.3, 0.1, 0.6], bins=2) == pytest.approx(0.3)
    assert expected_calibration_error([0, 0, 0, 1], [0.0, 0.0, 0.0, 1.0], bins=2) == pytest.approx(0.0)
    assert expected_calibration_error([1], [0.25]) == pytest.approx(0.75)


def test_calibration_error_equals_torchmetrics_and_array_split() -> None:
    for seed in range(5):
        y, p, _ = _sample(203, seed, 0.7)
        for bins in (5, 10, 15):
            theirs = float(binary_calibration_error(tensor(p), tensor(y), n_bins=bins, norm="l1"))
            assert expected_calibration_error(y, p, bins, "width") == pytest.approx(theirs, abs=1e-6)
            parts = np.array_split(np.argsort(p), bins)
            expected = sum(len(i) * abs(y[i].mean() - p[i].mean()) for i in parts) / 203
            assert expected_calibration_error(y, p, bins) == pytest.approx(expected)


def test_equal_probabilities_share_a_bin_so_order_does_not_matter() -> None:
    y, p, _ = _sample(200)
    p = p.round(1)
    order = np.random.default_rng(0).permutation(200)
    assert expected_calibration_error(y, p) == pytest.approx(expected_calibration_error(y[order], p[order]))
    assert expected_calibration_error([0, 1] * 20, [0.5] * 40) == pytest.approx(0)
    assert reliability([0, 1] * 20, [0.5] * 40).n.tolist() == [40]


def test_the_interval_of_the_error_covers_it_and_reaches_zero_for_a_calibrated_model() -> None:
    z = np.sort(np.random.default_rng(9).normal(0, 1.5, 200_000))
    truth = np.mean([abs(np.mean(expit(part) - expit(part - 0.5))) for part in np.array_split(z, 10)])
    hits = {"off": 0, "calibrated": 0, "percentile_would": 0}
    for study in range(25):
        for name, shift in (("off", 0.5), ("calibrated", 0.0)):
            y, p, who = _sample(150, study, shift, rows=2)
            low, high = ece_interval(y, p, who, n=80, seed=study)
            hits[name] += low <= (truth if shift else 0) <= high
            assert 0 <= low <= high
        hits["percentile_would"] += expected_calibration_error(y, p) <= 0
    assert hits["off"] / 25 > 0.75
    assert hits["calibrated"] / 25 > 0.85
    assert hits["percentile_would"] == 0


def test_what_chance_alone_gives() -> None:
    _, p, _ = _sample(150)
    mean, most = error_by_chance(p)
    values = [expected_calibration_error(np.random.default_rng(s).random(150) < p, p) for s in range(1000, 1300)]
    assert mean == pytest.approx(np.mean(values), abs=0.005)
    assert most == pytest.approx(np.quantile(values, 0.95), abs=0.01)
    assert error_by_chance(_sample(6000)[1], n=50)[0] < mean / 4


def test_reliability_curve_and_its_intervals() -> None:
    y, p, who = _sample(100, 1, 0.4, rows=3)
    curve = reliability(y, p, 5)
    for k, part in enumerate(np.array_split(np.argsort(p, kind="stable"), 5)):
        assert curve.n[k] == len(part) == 60
        assert curve.mean_probability[k] == pytest.approx(p[part].mean())
        assert curve.frequency[k] == pytest.approx(y[part].mean())
        wilson = binomtest(int(y[part].sum()), 60).proportion_ci(method="wilson")
        assert (curve.low[k], curve.high[k]) == pytest.approx((wilson.low, wilson.high))
    assert expected_calibration_error(y, p, 5) == pytest.approx(np.abs(curve.frequency - curve.mean_probability).mean())
    clustered = reliability(y, p, 5, clusters=who)
    assert ((clustered.high - clustered.low)[1:4] > 1.3 * (curve.high - curve.low)[1:4]).all()
    ends = reliability([0] * 10 + [0, 1] * 5, [0.1] * 10 + [0.9] * 10, 2, clusters=np.arange(20))
    assert ends.low[0] == 0
    assert 0.2 < ends.high[0] < 0.4
    assert reliability([0, 1], [0.0, 1.0], binning="width").n.tolist() == [1, 1]


@pytest.mark.parametrize("weighted", [False, True])
def test_brier_and_its_parts(weighted: bool) -> None:
    y, p, _ = _sample(250, 2, 0.8)
    p = p.round(2)
    w = np.random.default_rng(0).exponential(size=250) if weighted else None
    found = brier(y, p, w)
    assert found.score == pytest.approx(brier_score_loss(y, p, sample_weight=w))
    best = IsotonicRegression().fit(p, y, sample_weight=w).predict(p)
    base = np.average(y, weights=w)
    assert found.miscalibration == pytest.approx(found.score - np.average((best - y) ** 2, weights=w))
    assert found.discrimination == pytest.approx(base * (1 - base) - np.average((best - y) ** 2, weights=w))
    assert found.score == pytest.approx(found.miscalibration - found.discrimination + found.uncertainty)
    assert min(found.miscalibration, found.discrimination) > 0


def test_brier_parts_of_the_extremes() -> None:
    perfect = brier([0, 0, 1], [0.0, 0.0, 1.0])
    assert (perfect.score, perfect.miscalibration) == pytest.approx((0, 0))
    assert perfect.discrimination == pytest.approx(perfect.uncertainty)
    blind = brier([0, 0, 1, 1], [0.5] * 4)
    assert (blind.miscalibration, blind.discrimination, blind.score) == pytest.approx((0, 0, 0.25))


def test_recalibration_equals_sklearn_and_finds_what_was_done() -> None:
    y, p, _ = _sample(800, 3)
    twisted = expit(2 * logit(p) + 0.7)
    found, model = recalibration(y, twisted), LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(logit(twisted)[:, None], y)
    assert found.slope == pytest.approx(model.coef_[0, 0], abs=1e-5)
    assert found.intercept == pytest.approx(model.intercept_[0], abs=1e-5)
    assert found.slope == pytest.approx(0.5, abs=0.06)
    assert found.in_the_large < -0.3
    # In the large: with it added, mean prediction equals the frequency.
    assert expit(logit(twisted) + found.in_the_large).mean() == pytest.approx(y.mean(), abs=1e-9)
    times = np.random.default_rng(1).integers(0, 3, 800)
    again = np.repeat(np.arange(800), times)
    assert recalibration(y, p, times).slope == pytest.approx(recalibration(y[again], p[again]).slope)


def test_recalibration_of_draws_is_that_of_weights_and_refuses_the_same() -> None:
    rng = np.random.default_rng(4)
    refused = 0
    for n, spread in ((300, 1.0), (25, 2.5)):
        z = rng.normal(scale=spread, size=n)
        y, p = (rng.random(n) < expit(1.4 * z - 0.3)).astype(int), expit(z)
        weights = np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), size=60)]).astype(float)
        for line, found in zip(weights, recalibration_of(y, p).of(weights), strict=True):
            try:
                one = recalibration(y, p, line)
            except ValueError:
                refused += 1
                assert np.isnan(found[:2]).all()
                continue
            assert found == pytest.approx([one.slope, one.intercept, one.in_the_large], abs=1e-8)
    assert 0 < refused < 60


def test_what_it_refuses() -> None:
    for p in ([0.2, 1.2], [-0.1, 0.5]):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            expected_calibration_error([0, 1], p)
    with pytest.raises(ValueError, match="found none"):
        brier([], [])
    with pytest.raises(ValueError, match="both classes"):
        recalibration([1, 1], [0.4, 0.6])
    for p in ([0.1, 0.2, 0.8, 0.9], [0.5] * 4):
        with pytest.raises(ValueError, match="no finite answer"):
            recalibration([0, 0, 1, 1], p)
