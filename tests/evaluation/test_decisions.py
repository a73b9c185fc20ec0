"""Decision and risk-coverage curves by hand and by brute force; intervals by patient."""

import numpy as np
import pytest
from scipy.special import expit

from medvl.evaluation.calibration import Calibration
from medvl.evaluation.decisions import net_benefit, risk_coverage, selective

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(-1, 1.5, 300)
LABELS, P = (RNG.random(300) < expit(LOGITS)).astype(int), expit(LOGITS).round(2)
WHO = np.repeat(np.arange(100), 3)


def test_net_benefit_by_hand_and_by_brute_force() -> None:
    found = net_benefit([1, 1, 0, 0, 0], [0.9, 0.2, 0.6, 0.2, 0.1], [0.2, 0.5])
    # At 0.2 (odds 1/4): 2 true, 2 false of 5; at 0.5 (odds 1): 1 true, 1 false.
    assert found.model == pytest.approx([2 / 5 - 2 / 5 / 4, 0])
    assert found.treat_all == pytest.approx([2 / 5 - 3 / 5 / 4, 2 / 5 - 3 / 5])
    assert found.treat_none.tolist() == [0, 0]
    assert found.gain == pytest.approx([0.3 - 0.25, 0])
    thresholds = np.linspace(0.01, 0.99, 60)
    curve = net_benefit(LABELS, P, thresholds)
    for t, value in zip(thresholds, curve.model, strict=True):
        tp, fp = ((LABELS == 1) & (t <= P)).sum(), ((LABELS == 0) & (t <= P)).sum()
        assert value == pytest.approx(tp / 300 - fp / 300 * t / (1 - t))


def test_a_calibrated_model_is_never_clearly_worse_than_the_defaults_and_a_wrong_one_is() -> None:
    thresholds = [0.1, 0.3, 0.5, 0.7]
    good = net_benefit(LABELS, P, thresholds, WHO, n=300)
    assert (good.gain_high >= 0).all()
    assert good.gain_low[1] > 0
    assert (good.low <= good.model).all()
    assert (good.model <= good.high).all()
    bad = net_benefit(LABELS, 1 - P, thresholds, WHO, n=300)
    assert (bad.gain_high[1:] < 0).all()


def test_intervals_of_net_benefit_are_by_patient() -> None:
    args = [np.tile(x, 4) for x in (LABELS, P)]
    once = net_benefit(LABELS, P, [0.2, 0.5], np.arange(300), n=200, seed=1)
    copied = net_benefit(*args, [0.2, 0.5], np.tile(np.arange(300), 4), n=200, seed=1)
    apart = net_benefit(*args, [0.2, 0.5], np.arange(1200), n=200, seed=1)
    np.testing.assert_allclose((copied.low, copied.high), (once.low, once.high))
    assert ((apart.high - apart.low) < 0.7 * (once.high - once.low)).all()
    for t in ([0], [1], [0.5, 1.2]):
        with pytest.raises(ValueError, match=r"thresholds in \(0, 1\)"):
            net_benefit(LABELS, P, t)


def test_risk_coverage_by_brute_force() -> None:
    doubt = RNG.permutation(300)
    found = risk_coverage(LABELS, P, doubt, threshold=0.4)
    wrong = ((P >= 0.4) != LABELS)[np.argsort(doubt)]
    assert found.risk == pytest.approx([wrong[: k + 1].mean() for k in range(300)])
    assert found.coverage[[0, -1]] == pytest.approx([1 / 300, 1])
    assert found.area == pytest.approx(found.risk.mean())
    best = [max(0, k - (300 - wrong.sum())) / k for k in range(1, 301)]
    assert found.excess == pytest.approx(found.area - np.mean(best))


def test_equal_doubts_come_in_any_order() -> None:
    labels, p, doubt = LABELS[:60], P[:60], RNG.integers(0, 4, 60)
    found, total = risk_coverage(labels, p, doubt), np.zeros(60)
    for _ in range(4000):
        total += risk_coverage(labels, p, doubt + RNG.random(60) * 0.5).risk
    np.testing.assert_allclose(found.risk, total / 4000, atol=0.03)
    order = RNG.permutation(60)
    np.testing.assert_allclose(risk_coverage(labels[order], p[order], doubt[order]).risk, found.risk)


def test_doubt_that_knows_beats_doubt_that_does_not() -> None:
    sure = risk_coverage(LABELS, P, -np.abs(P - 0.5), WHO, n=200)
    blind = risk_coverage(LABELS, P, RNG.random(300), WHO, n=200)
    assert sure.low < sure.area < sure.high
    assert sure.high < blind.low
    assert risk_coverage(LABELS, P, (P >= 0.5) != LABELS).excess == pytest.approx(0)
    assert risk_coverage(LABELS, P, np.zeros(300)).risk == pytest.approx(np.full(300, sure.risk[-1]))
    with pytest.raises(ValueError, match="doubts must be 300 numbers"):
        risk_coverage(LABELS, P, np.full(300, np.nan))


def test_selective_verdicts_are_the_bundles() -> None:
    band = Calibration(8.0, 0.0, 0.4, 0.3, 0.55, 50, 50)
    found = selective(LABELS, P, band)
    verdicts = np.array([band.verdict(float(p)) for p in P])
    decided = verdicts != "undecided"
    assert found.coverage == pytest.approx(decided.mean())
    assert found.sensitivity == pytest.approx((verdicts[(LABELS == 1) & decided] == "present").mean())
    assert found.specificity == pytest.approx((verdicts[(LABELS == 0) & decided] == "absent").mean())
    assert found.undecided_present == pytest.approx((~decided[LABELS == 1]).mean())
    assert found.undecided_absent == pytest.approx((~decided[LABELS == 0]).mean())
    alone = selective([0, 0], [0.4, 0.9], band)
    assert (alone.coverage, alone.sensitivity, alone.specificity, alone.undecided_present) == (0.5, None, 0.0, None)
    with pytest.raises(ValueError, match="cohort empty"):
        selective([], [], band)
