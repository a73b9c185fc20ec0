"""Measures of survival predictions against scikit-survival, R and a loop over pairs."""

import numpy as np
import pytest
from cohorts import reference
from lifelines.utils import concordance_index
from sksurv.metrics import (
    brier_score,
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.util import Surv

from medvl.survival.measures import brier, censoring, dynamic_auc, harrell, integrated_brier, uno


def _cohort(seed: int, n: int = 150, decimals: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow-up, events, and risks with ties; with few decimals the times tie as well."""
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=n), 1)
    death, censor = rng.exponential(10, n) / np.exp(risk), rng.uniform(2, 30, n)
    return np.round(np.minimum(death, censor), decimals) + 1, death <= censor, risk


@pytest.mark.parametrize("decimals", [6, 0])
@pytest.mark.parametrize("seed", range(5))
def test_all_measures_equal_scikit_survival(seed: int, decimals: int) -> None:
    t, e, r = _cohort(seed, decimals=decimals)
    train_t, train_e, _ = _cohort(seed + 100, 300, decimals)
    train_t[0] = t.max() + 1
    ours, train, test = censoring(train_t, train_e, "at"), Surv.from_arrays(train_e, train_t), Surv.from_arrays(e, t)
    assert harrell(t, e, r) == pytest.approx(concordance_index_censored(e, t, r)[0], abs=1e-12)
    assert harrell(t, e, r) == pytest.approx(concordance_index(t, -r, e), abs=1e-12)
    tau = float(np.quantile(t, 0.8))
    for limit in (tau, None):
        assert uno(t, e, r, ours, limit) == pytest.approx(concordance_index_ipcw(train, test, r, limit)[0], abs=1e-12)
    at = np.array([2.5, 4.5, 7.5, 11.5])
    for risk in (r, np.random.default_rng(seed).normal(size=(150, 4))):
        auc, mean = cumulative_dynamic_auc(train, test, risk, at)
        found = dynamic_auc(t, e, risk, at, ours)
        assert np.allclose(found[0], auc, atol=1e-12)
        assert found[1] == pytest.approx(mean, abs=1e-12)
    s = np.sort(np.random.default_rng(seed).random((150, 4)))[:, ::-1]
    assert np.allclose(brier(t, e, s, at, ours), brier_score(train, test, s, at)[1], atol=1e-12)
    assert integrated_brier(t, e, s, at, ours) == pytest.approx(integrated_brier_score(train, test, s, at), abs=1e-12)


def test_concordance_equals_r() -> None:
    d, r = reference()
    assert harrell(d.time, d.event, d.a) == pytest.approx(r["harrell"][0], abs=1e-12)
    # R's weights are G(t-), as ours are unless told otherwise
    assert uno(d.time, d.event, d.a, censoring(d.time, d.event)) == pytest.approx(r["uno"][0], abs=1e-9)
    assert uno(d.time, d.event, d.a, censoring(d.time, d.event, "at")) != pytest.approx(r["uno"][0], abs=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_harrell_equals_a_loop_over_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    t, e, r = rng.integers(0, 6, 30), rng.random(30) < 0.5, rng.integers(0, 4, 30) / 3
    good = pairs = 0.0
    for i in range(30):
        for j in range(30):
            if e[i] and (t[j] > t[i] or (t[j] == t[i] and not e[j])):
                pairs += 1
                good += (r[j] < r[i]) + 0.5 * (r[j] == r[i])
    assert harrell(t, e, r) == pytest.approx(good / pairs, abs=1e-14)


def test_by_hand_and_without_pairs() -> None:
    assert harrell([2, 5, 9], [True, False, True], [0.4, 0.1, 0.4]) == 0.75
    assert harrell([3, 3], [True, False], [1.0, 0.0]) == 1.0
    for t, e in (([1, 2], [False, False]), ([2, 2], [True, True]), ([2.0], [True])):
        with pytest.raises(ValueError, match="nobody outlived"):
            harrell(t, e, np.zeros(len(t)))
    with pytest.raises(ValueError, match="1 risks are not numbers"):
        harrell([1, 2], [True, True], [np.nan, 0])


def test_the_censoring_of_training_is_used_not_that_of_the_test() -> None:
    t, e, r = _cohort(0)
    train_t, train_e, _ = _cohort(5, 300)
    other = censoring(train_t, np.random.default_rng(0).random(300) < 0.4)
    at = [3.0, 6.0]
    mine = censoring(train_t, train_e)
    assert uno(t, e, r, mine, 9.0) != uno(t, e, r, other, 9.0)
    assert dynamic_auc(t, e, r, at, mine)[1] != dynamic_auc(t, e, r, at, other)[1]
    full = np.tile([0.7, 0.4], (150, 1))
    assert (brier(t, e, full, at, mine) != brier(t, e, full, at, other)).all()


def test_uno_does_not_move_with_censoring_while_harrell_does() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    # hazards cross, so who is comparable matters
    risk = rng.integers(0, 2, n).astype(float)
    death = np.where(risk == 1, rng.weibull(0.7, n), rng.weibull(2.0, n)) * 10
    found = []
    for rate in (0.02, 0.15):
        censor = rng.exponential(1 / rate, n)
        t, e = np.minimum(death, censor), death <= censor
        found.append((harrell(t, e, risk), uno(t, e, risk, censoring(t, e), 8.0), harrell(t, e & (t < 8), risk)))
    assert abs(found[0][1] - found[1][1]) < 0.01
    assert abs(found[0][0] - found[1][0]) > 0.05
    whole = harrell(np.minimum(death, 8.0), death < 8.0, risk)
    assert found[1][1] == pytest.approx(whole, abs=0.01)


def test_brier_of_the_truth_beats_that_of_the_average() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    death, censor = rng.exponential(10, 3000) / np.exp(x), rng.uniform(2, 30, 3000)
    t, e, at = np.minimum(death, censor), death <= censor, np.array([2.0, 5, 10])
    known = censoring(t, e)
    truth = np.exp(-at / 10 * np.exp(x)[:, None])
    average = np.tile(truth.mean(0), (3000, 1))
    assert brier(t, e, truth, at, known) == pytest.approx((truth * (1 - truth)).mean(0), abs=0.01)
    assert integrated_brier(t, e, truth, at, known) < integrated_brier(t, e, average, at, known)


def test_times_when_nobody_was_watched_are_refused() -> None:
    t, e, r = _cohort(0)
    short = censoring([1.0, 2.0, 3.0], [True, False, True])
    for call in (
        lambda: uno(t, e, r, short),
        lambda: dynamic_auc(t, e, r, [5.0], short),
        lambda: brier(t, e, np.full(150, 0.5), [5.0], short),
    ):
        with pytest.raises(ValueError, match="longest follow-up 3"):
            call()
    gone = censoring([1.0, 2.0], [True, False])
    with pytest.raises(ValueError, match="nobody was watched at time 2"):
        brier([1.0, 5.0], [True, True], [0.5, 0.5], [2.0], gone)


def test_what_is_not_defined_raises() -> None:
    t, e, r = _cohort(0)
    known = censoring(t, e)
    with pytest.raises(ValueError, match="0 and 150"):
        dynamic_auc(t, e, r, [0.5], known)
    with pytest.raises(ValueError, match=r"no comparable pair before 0\.5"):
        uno(t, e, r, known, 0.5)
    with pytest.raises(ValueError, match="two or more rising times"):
        integrated_brier(t, e, np.full(150, 0.5), [5.0], known)
    with pytest.raises(ValueError, match="no comparable pair"):
        uno(t, np.zeros(150, dtype=bool), r, known)


def test_nobody_censored_weighs_all_alike() -> None:
    t, _, r = _cohort(0)
    e = np.ones(150, dtype=bool)
    assert uno(t, e, r, censoring(t, e)) == pytest.approx(harrell(t, e, r), abs=1e-12)
