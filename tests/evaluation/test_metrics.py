"""Metrics against scikit-learn and torchmetrics, with ties and weights."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from medvl.evaluation.metrics import auroc, average_of, average_precision, median_of


@pytest.mark.parametrize("levels", [3, 10**9])
def test_auroc_equals_sklearn_with_and_without_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for n in (7, 60, 333):
        labels = rng.random(n) < 0.3
        labels[:2] = (True, False)
        scores = rng.integers(levels, size=n) + labels * levels // 4
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_weighted_areas_equal_sklearn(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for n in (8, 90, 400):
        labels = (rng.random(n) < 0.3).astype(int)
        labels[:2] = (1, 0)
        scores = rng.integers(levels, size=n) / levels + 0.2 * labels
        for weights in (None, rng.exponential(size=n), rng.integers(0, 3, n) + (np.arange(n) < 2)):
            assert auroc(labels, scores, weights) == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-9)
            theirs = average_precision_score(labels, scores, sample_weight=weights)
            assert average_precision(labels, scores, weights) == pytest.approx(theirs, abs=1e-9)


def test_areas_equal_torchmetrics_with_ties() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, 200), rng.integers(0, 30, 200) / 30
    pair = tensor(scores), tensor(labels)
    assert auroc(labels, scores) == pytest.approx(float(binary_auroc(*pair)), abs=1e-6)
    assert average_precision(labels, scores) == pytest.approx(float(binary_average_precision(*pair)), abs=1e-6)


def test_whole_weights_are_repeated_rows_and_zero_weight_leaves_a_row_out() -> None:
    rng = np.random.default_rng(3)
    labels, scores, times = rng.integers(0, 2, 60), rng.integers(0, 9, 60), rng.integers(0, 4, 60)
    again = np.repeat(np.arange(60), times)
    for metric in (auroc, average_precision):
        assert metric(labels, scores, times) == pytest.approx(metric(labels[again], scores[again]), abs=1e-12)


def test_averages_and_medians_of_draws_are_those_of_repeated_rows() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(9, size=41).astype(float)
    values[[2, 30]] = np.nan
    counts = np.concatenate([rng.multinomial(41, np.full(41, 1 / 41), size=30), np.eye(41, dtype=int)[2:3]])
    means, medians = (statistic(values).of(counts.astype(float)) for statistic in (average_of, median_of))
    for mean, median, count in zip(means[:-1], medians[:-1], counts[:-1], strict=True):
        assert mean == pytest.approx(np.nanmean(np.repeat(values, count)), abs=1e-12)
        assert median == np.nanmedian(np.repeat(values, count))
    assert np.isnan(means[-1])
    assert np.isnan(medians[-1])


def test_average_precision_by_hand() -> None:
    # Found at ranks 1, 3 (tied with the absent row of rank 2) of 4: 1/2 * 1 + 1/2 * 2/3.
    assert average_precision([1, 0, 1, 0], [4, 3, 3, 1]) == pytest.approx(0.5 + 1 / 3)
    assert average_precision([1, 0, 0, 0], [1, 1, 1, 1]) == 0.25


@pytest.mark.parametrize("metric", [auroc, average_precision])
def test_what_is_not_defined_is_an_error(metric) -> None:
    for labels in ([1, 1, 1], [0, 0, 0]):
        with pytest.raises(ValueError, match="both classes"):
            metric(labels, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="1 present and 0 absent"):
        metric([0, 1], [1, 2], [0, 1])
    with pytest.raises(ValueError, match="1 NaN"):
        metric([0, 1], [1, np.nan])
    for weights in ([1, -1], [1, np.nan], [0, 0], [1, 1, 1]):
        with pytest.raises(ValueError, match="weights must be 2 finite numbers"):
            metric([0, 1], [1, 2], weights)


def test_auroc_says_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="0 present and 3 absent"):
        auroc([0, 0, 0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="both classes"):
        auroc([], [])
    for odd in (-1, 2):
        with pytest.raises(ValueError, match="0 or 1"):
            auroc([0, 1, odd], [1.0, 2.0, 3.0])
