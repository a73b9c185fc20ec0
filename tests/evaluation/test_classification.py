"""Calls, labels, classes and grades against scikit-learn and torchmetrics; what is not defined is None or an error."""

from functools import partial

import numpy as np
import pytest
from sklearn import metrics as sk
from torch import tensor
from torchmetrics.functional.classification import multilabel_auroc

from medvl.evaluation.classification import (
    accuracy,
    at_threshold,
    balanced_accuracy,
    macro_f1,
    multi_label,
    ordinal_error,
    quadratic_kappa,
)
from medvl.evaluation.metrics import auroc, average_precision

RNG = np.random.default_rng(0)
LABELS, SCORES = RNG.integers(0, 2, 150), RNG.integers(0, 20, 150) / 20
GRADES, GUESSES = RNG.integers(0, 5, 200), RNG.integers(0, 5, 200)
GUESSES[:100] = GRADES[:100]


@pytest.mark.parametrize("weighted", [False, True])
def test_calls_equal_sklearn(weighted: bool) -> None:
    w = RNG.exponential(size=150) if weighted else None
    for threshold in (0.05, 0.5, 0.9):
        found, called = at_threshold(LABELS, SCORES, threshold, w), threshold <= SCORES
        score = {"sample_weight": w}
        assert found.sensitivity == pytest.approx(sk.recall_score(LABELS, called, **score))
        assert found.specificity == pytest.approx(sk.recall_score(LABELS, called, pos_label=0, **score))
        assert found.ppv == pytest.approx(sk.precision_score(LABELS, called, **score))
        assert found.npv == pytest.approx(sk.precision_score(LABELS, called, pos_label=0, **score))
        assert found.f1 == pytest.approx(sk.f1_score(LABELS, called, **score))
        assert found.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(LABELS, called, **score))
        assert found.youden == pytest.approx(sk.balanced_accuracy_score(LABELS, called, adjusted=True, **score))
        assert (found.n_present, found.n_absent, found.threshold) == (LABELS.sum(), 150 - LABELS.sum(), threshold)


def test_a_predictive_value_of_nothing_is_none() -> None:
    assert at_threshold(LABELS, SCORES, 2).ppv is None
    assert at_threshold(LABELS, SCORES, 2).f1 == 0
    assert at_threshold(LABELS, SCORES, -1).npv is None
    with pytest.raises(ValueError, match="0 present and 2 absent"):
        at_threshold([0, 0], [0.1, 0.9], 0.5)


@pytest.mark.parametrize(("metric", "theirs"), [(auroc, sk.roc_auc_score), (average_precision, sk.average_precision_score)])
def test_many_labels_with_unknown_entries(metric, theirs) -> None:
    labels, scores = RNG.integers(-1, 2, (120, 4)), RNG.integers(0, 30, (120, 4)) / 30
    weights = RNG.exponential(size=120)
    found = multi_label(labels, np.where(labels == -1, np.nan, scores), metric, weights=weights)
    rows = [labels[:, k] != -1 for k in range(4)]
    expected = [theirs(labels[r, k], scores[r, k], sample_weight=weights[r]) for k, r in enumerate(rows)]
    assert found.values == pytest.approx(tuple(expected))
    assert found.macro == pytest.approx(np.mean(expected))
    known = labels != -1
    pooled = theirs(labels[known], scores[known], sample_weight=np.repeat(weights[:, None], 4, 1)[known])
    assert found.micro == pytest.approx(pooled)
    assert found.n_known == known.sum()


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_many_labels_equal_torchmetrics(average) -> None:
    labels, scores = RNG.integers(-1, 2, (90, 3)), RNG.random((90, 3))
    theirs = multilabel_auroc(tensor(scores), tensor(labels), 3, average=average, ignore_index=-1)
    assert getattr(multi_label(labels, scores, auroc), average) == pytest.approx(float(theirs), abs=1e-6)


def test_a_label_with_one_class_is_an_error_or_none_and_never_zero() -> None:
    labels = np.array([[1, 0], [0, 0], [1, -1], [0, 0]])
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.8, 0.9], [0.1, 0.5]])
    with pytest.raises(ValueError, match="label 1 of 2: AUROC needs both classes, found 0 present and 3 absent"):
        multi_label(labels, scores, auroc)
    found = multi_label(labels, scores, auroc, leave_out=True)
    assert found.values == (1.0, None)
    assert found.macro == 1.0
    assert found.micro == sk.roc_auc_score([1, 0, 1, 0, 0, 0, 0], [0.9, 0.2, 0.8, 0.1, 0.1, 0.3, 0.5])
    with pytest.raises(ValueError, match="none of 1 labels"):
        multi_label(labels[:, 1:], scores[:, 1:], auroc, leave_out=True)
    with pytest.raises(ValueError, match="rows by labels"):
        multi_label(labels, scores[:, :1], auroc)


def test_any_metric_of_labels_scores_and_weights_will_do() -> None:
    labels, scores = RNG.integers(0, 2, (60, 3)), RNG.random((60, 3))

    def f1(y, s, w, threshold):
        return at_threshold(y, s, threshold, w).f1

    found = multi_label(labels, scores, partial(f1, threshold=0.5))
    assert found.macro == pytest.approx(sk.f1_score(labels, scores >= 0.5, average="macro"))
    assert found.micro == pytest.approx(sk.f1_score(labels, scores >= 0.5, average="micro"))


@pytest.mark.parametrize("weighted", [False, True])
def test_classes_and_grades_equal_sklearn(weighted: bool) -> None:
    w = RNG.exponential(size=200) if weighted else None
    assert accuracy(GRADES, GUESSES, w) == pytest.approx(sk.accuracy_score(GRADES, GUESSES, sample_weight=w))
    assert balanced_accuracy(GRADES, GUESSES, w) == pytest.approx(sk.balanced_accuracy_score(GRADES, GUESSES, sample_weight=w))
    assert macro_f1(GRADES, GUESSES, w) == pytest.approx(sk.f1_score(GRADES, GUESSES, average="macro", sample_weight=w))
    kappa = sk.cohen_kappa_score(GRADES, GUESSES, weights="quadratic", sample_weight=w)
    assert quadratic_kappa(GRADES, GUESSES, w) == pytest.approx(kappa)
    assert ordinal_error(GRADES, GUESSES, w) == pytest.approx(sk.mean_absolute_error(GRADES, GUESSES, sample_weight=w))


def test_kappa_counts_grades_by_value_not_by_place() -> None:
    # 4, 6, 10 are unevenly spaced; scikit-learn knows places only, unless every grade between is named.
    truth, said = RNG.choice([4, 6, 10], 80), RNG.choice([4, 6, 10], 80)
    assert quadratic_kappa(truth, said) == pytest.approx(
        sk.cohen_kappa_score(truth, said, weights="quadratic", labels=np.arange(4, 11))
    )
    assert quadratic_kappa([1, 2, 3], [1, 2, 3]) == 1
    assert quadratic_kappa([1, 3], [3, 1]) == -1
    with pytest.raises(ValueError, match="every grade is 2"):
        quadratic_kappa([2, 2], [2, 2])


def test_error_by_grade_gives_a_rare_grade_its_say() -> None:
    truth, said = [0] * 9 + [3], [0] * 10
    assert ordinal_error(truth, said) == pytest.approx(0.3)
    assert ordinal_error(truth, said, average="grades") == pytest.approx(1.5)


def test_a_class_without_a_true_row_is_an_error_and_can_be_left_out_by_name() -> None:
    with pytest.raises(ValueError, match="class 2 has no true row"):
        macro_f1([0, 1, 1], [0, 1, 2])
    assert macro_f1([0, 1, 1], [0, 1, 2], classes=[0, 1]) == pytest.approx((1 + 2 / 3) / 2)
    with pytest.raises(ValueError, match="class 3 has no true row"):
        macro_f1([0, 1, 1], [0, 1, 1], classes=range(4)[::3])
    for metric in (accuracy, balanced_accuracy, macro_f1, quadratic_kappa, ordinal_error):
        with pytest.raises(ValueError, match="cohort empty"):
            metric([], [])
        with pytest.raises(ValueError, match="predictions must be 2 numbers"):
            metric([0, 1], [0])
