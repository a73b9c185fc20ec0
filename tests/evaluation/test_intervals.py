"""Intervals: against scipy, against what they promise in simulated studies, and quick enough to be used everywhere."""

import time

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipy_bootstrap

from medvl.evaluation.intervals import Weighted, bootstrap, draws, paired_bootstrap, proportion
from medvl.evaluation.metrics import auroc, auroc_of, average_precision, average_precision_of


def _study(n_patients: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and patients: one to four rows each, alike within a patient."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n_patients), rng.integers(1, 5, n_patients))
    own = rng.normal(size=n_patients)[who]
    labels = (rng.random(len(who)) < expit(own - 0.5)).astype(int)
    return labels, (own + labels + rng.normal(0, 1, len(who))).round(1), who


def test_bootstrap_draws_whole_patients() -> None:
    patients = np.array(["b", "a", "c", "a", "b", "a", "d"])
    counts = {"a": 3, "b": 2, "c": 1, "d": 1}
    seen = []

    def statistic(rows: np.ndarray) -> float:
        names, times = np.unique(patients[rows], return_counts=True)
        for name, n in zip(names, times, strict=True):
            assert n % counts[name] == 0
            assert set(np.flatnonzero(patients == name)) <= set(rows)
        assert sum(n // counts[name] for name, n in zip(names, times, strict=True)) == 4
        seen.append(len(rows))
        return float(len(rows))

    bootstrap(statistic, patients, n=60)
    assert len(set(seen)) > 3


@pytest.mark.parametrize(("plain", "quick"), [(auroc, auroc_of), (average_precision, average_precision_of)])
def test_a_batch_of_weights_gives_the_draws_that_repeated_rows_give(plain, quick) -> None:
    labels, scores, who = _study(25, 0)
    assert len(np.unique(scores)) < len(scores)
    slow = draws(lambda rows: plain(labels[rows], scores[rows]), who, n=200, seed=4)
    np.testing.assert_allclose(draws(quick(labels, scores), who, n=200, seed=4), slow, atol=1e-12)
    assert quick(labels, scores)(np.arange(len(labels))) == pytest.approx(plain(labels, scores), abs=1e-12)


def test_draws_without_both_classes_are_drawn_again_either_way() -> None:
    labels, scores = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 1]), np.random.default_rng(0).normal(size=10)

    def area(rows: np.ndarray) -> float:
        return auroc(labels[rows], scores[rows])

    first = bootstrap(area, np.arange(10), n=100, seed=3)
    assert first == bootstrap(area, np.arange(10), n=100, seed=3)
    assert first == pytest.approx(bootstrap(auroc_of(labels, scores), np.arange(10), n=100, seed=3))
    assert first != bootstrap(area, np.arange(10), n=100, seed=4)
    for none in (lambda rows: auroc(np.zeros(10)[rows], scores[rows]), auroc_of(np.zeros(10), scores)):
        with pytest.raises(ValueError, match="too few patients"):
            bootstrap(none, np.arange(10), n=20)
    with pytest.raises(ValueError, match="class missing"):
        auroc_of(labels, scores)(np.array([1, 2]))
    with pytest.raises(ValueError, match="cohort empty"):
        bootstrap(area, [])


def test_a_higher_level_is_wider() -> None:
    values = np.random.default_rng(0).normal(size=10)
    narrow, wide = (bootstrap(lambda r: values[r].mean(), np.arange(10), level=level) for level in (0.5, 0.95))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_bca_equals_scipy_on_the_same_draws() -> None:
    values = np.random.default_rng(3).exponential(size=40)
    mine = draws(lambda rows: float(values[rows].mean()), np.arange(40), n=800, seed=5)
    result = scipy_bootstrap((values,), np.mean, n_resamples=2, method="percentile", rng=0)
    result.bootstrap_distribution = mine
    theirs = scipy_bootstrap((values,), np.mean, n_resamples=0, bootstrap_result=result, method="BCa").confidence_interval
    found = bootstrap(lambda rows: float(values[rows].mean()), np.arange(40), n=800, seed=5, method="bca")
    assert found == pytest.approx(tuple(theirs), abs=1e-10)
    assert found != bootstrap(lambda rows: float(values[rows].mean()), np.arange(40), n=800, seed=5)
    mean = Weighted(lambda w: w @ values / w.sum(1), 40)
    assert bootstrap(mean, np.arange(40), n=800, seed=5, method="bca") == pytest.approx(found, abs=1e-10)


def test_bca_leaves_out_patients_and_says_when_it_cannot() -> None:
    values, who = np.random.default_rng(3).exponential(size=40), np.arange(40)
    once = bootstrap(lambda rows: float(values[rows].mean()), who, n=300, method="bca")
    thrice = bootstrap(lambda rows: float(np.tile(values, 3)[rows].mean()), np.tile(who, 3), n=300, method="bca")
    assert once == pytest.approx(thrice)
    labels = np.array([1] + [0] * 9)
    with pytest.raises(ValueError, match="without one of 1 patients"):
        bootstrap(auroc_of(labels, np.arange(10)), np.arange(10), n=50, method="bca")
    with pytest.raises(ValueError, match="hardly varies"):
        bootstrap(lambda rows: 1.0, np.arange(10), n=50, method="bca")


def _coverage(studies: int, n_draws: int) -> dict[str, float]:
    """Share of studies whose 95 % interval holds the true mean, 0: 40 patients of 4 rows that are alike."""
    rng = np.random.default_rng(8)
    hits = {"patients": 0, "rows": 0}
    for study in range(studies):
        values = np.repeat(rng.normal(0, 1, 40), 4) + rng.normal(0, 0.3, 160)
        mean = Weighted(lambda w, v=values: w @ v / w.sum(1), 160)
        for name, clusters in (("patients", np.repeat(np.arange(40), 4)), ("rows", np.arange(160))):
            low, high = bootstrap(mean, clusters, n=n_draws, seed=study)
            hits[name] += low <= 0 <= high
    return {name: n / studies for name, n in hits.items()}


def test_it_covers_the_truth_in_about_95_of_100_studies_and_only_by_patient() -> None:
    # By rows the standard error is too small by sqrt(1 + 3 * 0.917) = 1.94: coverage 2 * Phi(1.96 / 1.94) - 1 = 69 %.
    found = _coverage(120, 150)
    assert 0.88 <= found["patients"] <= 0.99
    assert 0.58 <= found["rows"] <= 0.78


@pytest.mark.slow
def test_it_covers_the_truth_in_about_95_of_100_studies_and_only_by_patient_at_length() -> None:
    found = _coverage(1500, 600)
    assert 0.92 <= found["patients"] <= 0.96
    assert 0.65 <= found["rows"] <= 0.73


@pytest.mark.slow
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_interval_of_an_area_covers_it(method) -> None:
    big = _study(60_000, 1)
    truth = auroc(*big[:2])
    hits = 0
    for study in range(250):
        labels, scores, who = _study(60, 100 + study)
        low, high = bootstrap(auroc_of(labels, scores), who, n=400, seed=study, method=method)
        hits += low <= truth <= high
    assert 0.9 <= hits / 250 <= 0.98


def test_a_paired_difference_shares_its_draws() -> None:
    labels, scores, who = _study(40, 2)
    worse = scores + np.random.default_rng(0).normal(0, 0.3, len(scores))
    a, b = auroc_of(labels, scores), auroc_of(labels, worse)
    found = paired_bootstrap(a, b, who, n=400, seed=1)
    slow = paired_bootstrap(lambda r: auroc(labels[r], scores[r]), lambda r: auroc(labels[r], worse[r]), who, n=400, seed=1)
    assert (found.value, found.low, found.high, found.p) == pytest.approx((slow.value, slow.low, slow.high, slow.p), abs=1e-10)
    assert found.value == pytest.approx(auroc(labels, scores) - auroc(labels, worse))
    alone = [bootstrap(x, who, n=400, seed=1) for x in (a, b)]
    assert found.high - found.low < 0.5 * min(high - low for low, high in alone)
    same = paired_bootstrap(a, a, who, n=100)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_p_of_a_paired_difference_agrees_with_its_interval() -> None:
    for seed in range(12):
        labels, scores, who = _study(40, seed)
        other = scores + np.random.default_rng(seed).normal(0, 1.2, len(scores))
        d = paired_bootstrap(auroc_of(labels, scores), auroc_of(labels, other), who, n=300, seed=seed)
        assert 2 / 301 <= d.p <= 1
        if abs(d.p - 0.05) > 0.015:
            assert (d.p < 0.05) == (d.low > 0 or d.high < 0)
    far = paired_bootstrap(auroc_of([0, 1] * 30, [0, 1] * 30), auroc_of([0, 1] * 30, [1, 0] * 30), np.arange(60), n=99)
    assert (far.value, far.p) == (1, 0.02)


def test_a_thousand_draws_of_two_thousand_rows_are_quick() -> None:
    labels, scores, who = _study(800, 3)
    scores = scores + np.random.default_rng(0).normal(0, 0.001, len(scores))
    start = time.perf_counter()
    bootstrap(auroc_of(labels, scores), who, n=1000)
    assert time.perf_counter() - start < 2
    assert len(labels) > 1900


@pytest.mark.parametrize("method", ["wilson", "exact"])
def test_proportions_equal_scipys(method) -> None:
    for n in (1, 5, 40):
        for k in range(n + 1):
            for level in (0.8, 0.95):
                theirs = binomtest(k, n).proportion_ci(level, method=method)
                assert proportion(k, n, level=level, method=method) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    low, high = proportion([0, 3, 9], [9, 9, 9], method=method)
    assert low.shape == high.shape == (3,)
    for k, n in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="0 <= hits <= n"):
            proportion(k, n, method=method)
