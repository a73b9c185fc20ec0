"""Metrics of calls and grades: at a threshold, over labels, over classes, on ordinal scores. Undefined ones raise or are None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.evaluation.metrics import Array, binary, numbers, weighing

Metric = Callable[[NDArray[np.bool_], Array, Array], float]


@dataclass(frozen=True)
class Operating:
    """What a threshold does.

    Args:
        threshold: rows at or above it are called present.
        n_present, n_absent: rows of each class.
        sensitivity, specificity, balanced_accuracy, youden, f1: always defined.
        ppv: None where nothing is called present; npv: None where nothing is called absent.
    """

    threshold: float
    n_present: int
    n_absent: int
    sensitivity: float
    specificity: float
    ppv: float | None
    npv: float | None
    f1: float
    balanced_accuracy: float
    youden: float


def at_threshold(labels: ArrayLike, scores: ArrayLike, threshold: float, weights: ArrayLike | None = None) -> Operating:
    """Every metric of calls at a threshold.

    Args:
        labels: (N,) 0 or 1.
        scores: (N,) higher means present.
        threshold: chosen on other patients.
        weights: (N,) of rows; predictive values then refer to the weighted prevalence.

    Raises:
        ValueError: only one class, or what `auroc` refuses.
    """
    y = binary(labels)
    called, w = numbers(scores, len(y), "scores") >= threshold, weighing(weights, len(y))
    tp, fn, fp, tn = (float(w[y == a][called[y == a] == b].sum()) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0)))
    if not tp + fn or not fp + tn:
        raise ValueError(f"a threshold needs both classes, found {int(y.sum())} present and {int((~y).sum())} absent")
    sensitivity, specificity = tp / (tp + fn), tn / (fp + tn)
    return Operating(
        threshold=float(threshold),
        n_present=int(y.sum()),
        n_absent=int((~y).sum()),
        sensitivity=sensitivity,
        specificity=specificity,
        ppv=tp / (tp + fp) if tp + fp else None,
        npv=tn / (tn + fn) if tn + fn else None,
        f1=2 * tp / (2 * tp + fp + fn),
        balanced_accuracy=(sensitivity + specificity) / 2,
        youden=sensitivity + specificity - 1,
    )


@dataclass(frozen=True)
class MultiLabel:
    """One metric over K labels.

    Args:
        values: by label, None where it was left out for want of a class.
        macro: mean of the values; micro: of all known entries together, those of left-out labels too.
        n_known: entries with an answer, of all N * K.
    """

    values: tuple[float | None, ...]
    macro: float
    micro: float
    n_known: int


def multi_label(
    labels: ArrayLike, scores: ArrayLike, metric: Metric, *, weights: ArrayLike | None = None, leave_out: bool = False
) -> MultiLabel:
    """A metric of each label, their mean, and that of all entries pooled; entries of -1 (unknown) count nowhere.

    Args:
        labels: (N, K) 0, 1, or -1 for unknown.
        scores: (N, K); may be NaN where unknown.
        metric: of (labels, scores, weights), as `auroc` or `average_precision`.
        weights: (N,) of rows.
        leave_out: a label with one class only becomes None and is not in the mean; else it is an error.

    Raises:
        ValueError: arrays of different shapes, a label with one class only, or none with both.
    """
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if y.ndim != 2 or y.shape != s.shape:
        raise ValueError(f"labels {y.shape} and scores {s.shape} must both be rows by labels")
    w = np.repeat(weighing(weights, len(y))[:, None], y.shape[1], axis=1)
    known = y != -1
    values: list[float | None] = []
    for k in range(y.shape[1]):
        rows = known[:, k]
        found = set(y[rows, k].tolist())
        if leave_out and found < {0, 1}:
            values.append(None)
            continue
        try:
            values.append(metric(y[rows, k], s[rows, k], w[rows, k]))
        except ValueError as error:
            raise ValueError(f"label {k} of {y.shape[1]}: {error}") from error
    defined = [v for v in values if v is not None]
    if not defined:
        raise ValueError(f"none of {y.shape[1]} labels has both classes")
    return MultiLabel(tuple(values), float(np.mean(defined)), metric(y[known], s[known], w[known]), int(known.sum()))


def accuracy(labels: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Share of rows of the right class.

    Raises:
        ValueError: no rows, or lengths differ.
    """
    y, p, w = _pair(labels, predicted, weights)
    return float(w[y == p].sum() / w.sum())


def balanced_accuracy(labels: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean over the true classes of the share of their rows that is found.

    Raises:
        ValueError: no rows, lengths differ, or a class is predicted that is never true.
    """
    y, p, w = _pair(labels, predicted, weights)
    return float(np.mean([w[(y == c) & (p == c)].sum() / w[y == c].sum() for c in _classes(y, p, w)]))


def macro_f1(
    labels: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None, *, classes: ArrayLike | None = None
) -> float:
    """Mean F1 over classes.

    Args:
        labels: (N,) true classes.
        predicted: (N,) classes.
        weights: (N,) of rows.
        classes: to average over; those of labels and predictions if None.

    Raises:
        ValueError: no rows, lengths differ, or a class has no true row.
    """
    y, p, w = _pair(labels, predicted, weights)
    scores = []
    for c in _classes(y, p, w, classes):
        hits = w[(y == c) & (p == c)].sum()
        scores.append(2 * hits / (w[y == c].sum() + w[p == c].sum()))
    return float(np.mean(scores))


def quadratic_kappa(labels: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Agreement of two gradings beyond chance, disagreements counted by their square (Cohen 1968).

    It is one minus the mean squared difference over that of the same grades paired at random, so grades need not be evenly
    spaced: their values count, not their ranks.

    Raises:
        ValueError: no rows, lengths differ, or both gradings are one and the same constant.
    """
    y, p, w = _pair(labels, predicted, weights)
    w = w / w.sum()
    my, mp = float(w @ y), float(w @ p)
    chance = float(w @ (y - my) ** 2 + w @ (p - mp) ** 2 + (my - mp) ** 2)
    if chance == 0:
        raise ValueError(f"kappa is not defined: every grade is {my:g}")
    return float(1 - w @ (y - p) ** 2 / chance)


def ordinal_error(
    labels: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None, *, average: Literal["rows", "grades"] = "rows"
) -> float:
    """Mean absolute difference of grades, in grades.

    Args:
        labels: (N,) true grades.
        predicted: (N,) grades, whole or not.
        weights: (N,) of rows.
        average: over `rows`, or over true `grades`, each by its own mean, so that a common grade does not decide
            (Baccianella 2009).

    Raises:
        ValueError: no rows, or lengths differ.
    """
    y, p, w = _pair(labels, predicted, weights)
    if average == "rows":
        return float(w @ np.abs(y - p) / w.sum())
    grades = np.unique(y[w > 0])
    return float(np.mean([w[y == g] @ np.abs(g - p[y == g]) / w[y == g].sum() for g in grades]))


def _pair(labels: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array, Array]:
    y = np.asarray(labels, dtype=np.float64)
    if not y.size:
        raise ValueError("no rows to judge; is the cohort empty?")
    y = numbers(y, y.size, "labels")
    return y, numbers(predicted, len(y), "predictions"), weighing(weights, len(y))


def _classes(y: Array, p: Array, w: Array, classes: ArrayLike | None = None) -> Array:
    """The classes to average over, each with a true row of some weight."""
    every = np.unique(np.concatenate([y[w > 0], p[w > 0]]) if classes is None else np.asarray(classes, dtype=np.float64))
    missing = every[~np.isin(every, y[w > 0])]
    if len(missing):
        raise ValueError(f"class {missing[0]:g} has no true row, so its share found is not defined; name the classes to average")
    return np.asarray(every)
