"""Linear probes: what frozen features know, by logistic regression whose ridge is chosen on validation patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

from medvl.errors import ConfigError
from medvl.objectives.balance import Balancing, balance

Array = NDArray[np.float64]
Task = Literal["multiclass", "multilabel"]
PENALTIES = tuple(float(p) for p in np.logspace(1, -5, 13))


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe.

    Args:
        center, scale: (P,) of the training features.
        weights: (P, C) on standardised features; bias: (C,).
        penalties: ridge chosen for all classes together, or for each label.
    """

    center: Array
    scale: Array
    weights: Array
    bias: Array
    penalties: tuple[float, ...]

    def logits(self, features: ArrayLike) -> Array:
        """(N, C) logits of features (N, P): of classes, or of each label being present."""
        rows = (np.asarray(features, dtype=np.float64) - self.center) / self.scale
        return np.asarray(rows @ self.weights + self.bias)


def fit_linear_probe(
    training: tuple[ArrayLike, ArrayLike],
    validation: tuple[ArrayLike, ArrayLike],
    task: Task,
    n_classes: int,
    *,
    balancing: Balancing = "none",
    penalties: Sequence[float] = PENALTIES,
    scales: ArrayLike = 1.0,
) -> LinearProbe:
    """Mean weighted log loss plus penalty / 2 times the squared weights, by Newton (2 classes) or L-BFGS; the bias is free.

    Args:
        training: features (N, P), and labels: (N,) classes, or (N, C) with 1 present and 0 absent; other values are left out.
        validation: the same of other patients; the penalty with the least loss on them, weighed as in training, is taken.
        task: one class of several, or several labels, each by itself.
        n_classes: C.
        balancing: draws and weights of a class multiplied, as `balance` gives them: what balanced training minimises on average.
        penalties: ridges to try.
        scales: (P,) or one number; a column's penalty is the chosen one times its scale, so 0 leaves it free.

    Raises:
        ConfigError: a class has no training row, a label no known validation row, or shapes do not fit.
    """
    x, y = _checked(training, task, n_classes, "training")
    x_held, y_held = _checked(validation, task, n_classes, "validation")
    center, spread = x.mean(0), x.std(0)
    scale = np.where(spread > 1e-12, spread, 1.0)
    rows, held = (x - center) / scale, (x_held - center) / scale
    columns = [(y, y_held, n_classes)] if task == "multiclass" else [(y[:, k], y_held[:, k], 2) for k in range(n_classes)]
    ridge = np.broadcast_to(np.asarray(scales, dtype=np.float64), (x.shape[1],))[:, None]
    fits = [_fit_best((rows, known), (held, known_held), n, balancing, penalties, ridge) for known, known_held, n in columns]
    if task == "multiclass":
        ((weights, bias, penalty),) = fits
        return LinearProbe(center, scale, weights, bias, (penalty,))
    weights = np.stack([w[:, 1] - w[:, 0] for w, _, _ in fits], 1)
    return LinearProbe(center, scale, weights, np.array([b[1] - b[0] for _, b, _ in fits]), tuple(p for _, _, p in fits))


def class_weights(labels: NDArray[np.int64], n_classes: int, balancing: Balancing) -> Array:
    """(C,) weight of a row of each class in the expected loss: how often it is drawn times how much it counts; mean 1 over rows.

    Raises:
        ConfigError: a class has no row.
    """
    counts = np.bincount(labels[labels >= 0], minlength=n_classes)
    if not counts.all():
        raise ConfigError(
            f"class sizes are {counts.tolist()}: nothing to learn from for one; leave it out, or take more patients"
        )
    found = balance(torch.as_tensor(labels), n_classes, balancing)
    drawn = np.bincount(labels[labels >= 0], found.draw.numpy()[labels >= 0], n_classes) / counts
    each = drawn if found.weights is None else drawn * found.weights.double().numpy()
    return np.asarray(each * counts.sum() / (each * counts).sum())


def _checked(pair: tuple[ArrayLike, ArrayLike], task: Task, n_classes: int, name: str) -> tuple[Array, NDArray[np.int64]]:
    """Features and labels as arrays; labels that are not known become -1."""
    x, y = np.asarray(pair[0], dtype=np.float64), np.asarray(pair[1]).astype(np.int64)
    wanted = (len(x),) if task == "multiclass" else (len(x), n_classes)
    if x.ndim != 2 or y.shape != wanted:
        raise ConfigError(f"{name} features {x.shape} and labels {y.shape} do not fit {task}; labels should be {wanted}")
    top = n_classes if task == "multiclass" else 2
    if task == "multiclass" and (y >= top).any():
        raise ConfigError(f"{name} labels reach {y.max()}, but there are {n_classes} classes, numbered from 0")
    return x, np.where((y >= 0) & (y < top), y, -1)


def _fit_best(
    training: tuple[Array, NDArray[np.int64]],
    validation: tuple[Array, NDArray[np.int64]],
    n_classes: int,
    balancing: Balancing,
    penalties: Sequence[float],
    scales: Array,
) -> tuple[Array, Array, float]:
    """Weights, bias and penalty with the least loss on held-out rows; each fit starts from the next stronger penalty's."""
    (x, y), (held, y_held) = training, validation
    if not (y_held >= 0).any():
        raise ConfigError("no validation row has a known label, so no penalty can be chosen; add patients or leave the label out")
    each = class_weights(y, n_classes, balancing)
    x, y, held, y_held = x[y >= 0], y[y >= 0], held[y_held >= 0], y_held[y_held >= 0]
    start = np.zeros((x.shape[1] + 1) * n_classes)
    best: tuple[float, Array, float] | None = None
    for penalty in sorted(penalties, reverse=True):
        known = (x, y, each[y], penalty * scales)
        if n_classes == 2:
            start = _newton(start, *known)
        else:
            start = minimize(_loss, start, known, "L-BFGS-B", jac=True, options={"maxiter": 2000, "gtol": 1e-7}).x
        loss = _loss(start, held, y_held, each[y_held], 0 * scales)[0]
        if best is None or loss < best[0]:
            best = (loss, start, penalty)
    if best is None:
        raise ConfigError("no penalties to try; give at least one")
    theta = best[1].reshape(-1, n_classes)
    return theta[:-1], theta[-1], best[2]


def _newton(theta: Array, x: Array, y: NDArray[np.int64], weights: Array, penalty: Array) -> Array:
    """Two classes by Newton's method, with halved steps: correlated features do not slow it down as they do gradients.

    With w and -w the classes carry half the squared norm of one direction 2 w, hence half the penalty on it.
    """
    half = theta.reshape(x.shape[1] + 1, 2)
    here, loss = half[:, 1] - half[:, 0], _loss(theta, x, y, weights, penalty)[0]
    rows, ridge = np.concatenate([x, np.ones((len(x), 1))], 1), np.append(penalty[:, 0] / 2, 0)
    share = weights / weights.sum()
    for _ in range(100):
        p = expit(rows @ here)
        gradient = rows.T @ (share * (p - y)) + ridge * here
        if np.abs(gradient).max() < 1e-8:
            break
        curvature = (rows * (share * p * (1 - p))[:, None]).T @ rows + np.diag(ridge + 1e-12)
        step = np.linalg.solve(curvature, gradient)
        for length in 0.5 ** np.arange(30):
            there = here - length * step
            lower = _loss(np.stack([-there / 2, there / 2], 1).ravel(), x, y, weights, penalty)[0]
            if lower <= loss:
                break
        else:
            break
        here, loss = there, lower
    return np.stack([-here / 2, here / 2], 1).ravel()


def _loss(theta: Array, x: Array, y: NDArray[np.int64], weights: Array, penalty: Array) -> tuple[float, Array]:
    """Penalised weighted mean log loss and its gradient for flat (P + 1, C) parameters; penalty (P, 1)."""
    table = theta.reshape(x.shape[1] + 1, -1)
    logits = x @ table[:-1] + table[-1]
    rows, total = np.arange(len(y)), weights.sum()
    loss = (weights * (logsumexp(logits, axis=1) - logits[rows, y])).sum() / total
    slope = softmax(logits, axis=1)
    slope[rows, y] -= 1
    slope *= (weights / total)[:, None]
    gradient = np.concatenate([x.T @ slope + penalty * table[:-1], slope.sum(0)[None]])
    return float(loss + (penalty * table[:-1] ** 2).sum() / 2), gradient.ravel()
