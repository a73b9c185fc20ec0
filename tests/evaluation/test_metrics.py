"""Metrics against scikit-learn, lifelines and brute force; the bootstrap against what it promises."""

import numpy as np
import pytest
from lifelines.utils import concordance_index
from sklearn.metrics import roc_auc_score

from medvl.evaluation.intervals import bootstrap
from medvl.evaluation.metrics import auroc, concordance


@pytest.mark.parametrize("levels", [3, 10**9])
def test_auroc_equals_sklearn_with_and_without_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for n in (7, 60, 333):
        labels = rng.random(n) < 0.3
        labels[:2] = (True, False)
        scores = rng.integers(levels, size=n) + labels * levels // 4
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_says_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="0 present and 3 absent"):
        auroc([0, 0, 0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="both classes"):
        auroc([], [])
    for odd in (-1, 2):
        with pytest.raises(ValueError, match="0 or 1"):
            auroc([0, 1, odd], [1.0, 2.0, 3.0])


def test_concordance_equals_lifelines_with_tied_times_and_risks() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        time = rng.integers(1, 12, 60)
        event = rng.random(60) < 0.6
        risk = rng.integers(0, 6, 60) - 0.3 * time
        assert concordance(time, event, risk) == pytest.approx(concordance_index(time, -risk, event), abs=1e-12)


def test_concordance_by_hand_and_without_pairs() -> None:
    # Comparable: the first event with the two others; the last event with nobody. Right once, level once.
    assert concordance([2, 5, 9], [True, False, True], [0.4, 0.1, 0.4]) == 0.75
    # Censored at the moment of an event: it outlived that event.
    assert concordance([3, 3], [True, False], [1.0, 0.0]) == 1.0
    for time, event in (([3, 3], [True, True]), ([1, 2], [False, False]), ([1, 2], [False, True])):
        with pytest.raises(ValueError, match="no comparable pair"):
            concordance(time, event, [1.0, 0.0])


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


def test_bootstrap_covers_the_truth_in_about_95_of_100_studies_and_only_with_clusters() -> None:
    rng = np.random.default_rng(8)
    hits = {"patients": 0, "rows": 0}
    studies = 120
    for study in range(studies):
        values = np.repeat(rng.normal(0, 1, 40), 4) + rng.normal(0, 0.3, 160)
        for name, clusters in (("patients", np.repeat(np.arange(40), 4)), ("rows", np.arange(160))):
            low, high = bootstrap(lambda rows, v=values: float(v[rows].mean()), clusters, n=150, seed=study)
            hits[name] += low <= 0 <= high
    assert 0.87 < hits["patients"] / studies < 0.99
    assert hits["rows"] / studies < 0.8


def test_bootstrap_repeats_by_seed_widens_with_level_and_draws_undefined_values_again() -> None:
    labels, scores = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 1]), np.random.default_rng(0).normal(size=10)

    def area(rows: np.ndarray) -> float:
        return auroc(labels[rows], scores[rows])

    first = bootstrap(area, np.arange(10), n=100, seed=3)
    assert first == bootstrap(area, np.arange(10), n=100, seed=3)
    assert first != bootstrap(area, np.arange(10), n=100, seed=4)
    narrow, wide = (
        bootstrap(lambda r: scores[r].mean(), np.arange(10), level=0.5),
        bootstrap(lambda r: scores[r].mean(), range(10)),
    )
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    with pytest.raises(ValueError, match="too few patients"):
        bootstrap(lambda rows: auroc(np.zeros(10)[rows], scores[rows]), np.arange(10), n=20)
