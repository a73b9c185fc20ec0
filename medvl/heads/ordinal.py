"""Ordinal scores: proportional odds on frozen features, its ridge chosen on validation patients.

Source: McCullagh 1980, J R Stat Soc B 42:109 (cumulative logits). One direction serves all cuts, so three grades of few patients
cost hardly more labels than two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from medvl.errors import ConfigError
from medvl.heads.probe import PENALTIES

Array = NDArray[np.float64]
Grades = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OrdinalProbe:
    """A fitted score: P(grade <= k) = sigmoid(cuts[k] - score).

    Args:
        center, scale: (P,) of the training features.
        weights: (P,) on standardised features.
        cuts: (C - 1,) rising.
        penalty: the ridge that was chosen.
    """

    center: Array
    scale: Array
    weights: Array
    cuts: Array
    penalty: float

    def score(self, features: ArrayLike) -> Array:
        """(N,) place of features (N, P) on the line that `cuts` divide; higher is a higher grade."""
        return np.asarray((np.asarray(features, dtype=np.float64) - self.center) / self.scale @ self.weights)

    def probabilities(self, score: ArrayLike) -> Array:
        """(N, C) of each grade, from scores (N,)."""
        below = expit(self.cuts[None] - np.asarray(score, dtype=np.float64)[:, None])
        edges = np.concatenate([np.zeros((len(below), 1)), below, np.ones((len(below), 1))], 1)
        return np.asarray(np.diff(edges, axis=1))

    def grades(self, score: ArrayLike) -> Grades:
        """(N,) median grade, which has the least expected absolute error: the cuts that a score lies above."""
        return np.asarray((np.asarray(score, dtype=np.float64)[:, None] > self.cuts[None]).sum(1), dtype=np.int64)


def fit_ordinal(
    training: tuple[ArrayLike, ArrayLike],
    validation: tuple[ArrayLike, ArrayLike],
    n_grades: int,
    *,
    penalties: Sequence[float] = PENALTIES,
) -> OrdinalProbe:
    """Mean log loss plus penalty / 2 times the squared weights, minimised by L-BFGS; the cuts are free.

    Args:
        training: features (N, P) and grades (N,) from 0; negative ones are not known and left out.
        validation: the same of other patients; the penalty with the least loss on them is taken.
        n_grades: C, 2 or more; with 2 it is logistic regression.
        penalties: ridges to try.

    Raises:
        ConfigError: a grade without a training row, no validation row, a grade beyond C, shapes that do not fit, or no penalty.
    """
    x, y = _checked(training, n_grades, "training")
    held, y_held = _checked(validation, n_grades, "validation")
    sizes = np.bincount(y, minlength=n_grades)
    if n_grades < 2 or not sizes.all() or not len(y_held):
        raise ConfigError(
            f"{n_grades} grades with {sizes.tolist()} training rows each and {len(y_held)} validation rows: every grade of two "
            "or more needs a row, and the penalty needs validation patients; merge grades, or take more patients"
        )
    center, spread = x.mean(0), x.std(0)
    scale = np.where(spread > 1e-12, spread, 1.0)
    rows, held = (x - center) / scale, (held - center) / scale
    share = np.cumsum(sizes)[:-1] / sizes.sum()
    cuts = np.log(share / (1 - share))
    start = np.concatenate([np.zeros(x.shape[1]), cuts[:1], np.log(np.diff(cuts))])
    best: tuple[float, Array, float] | None = None
    for penalty in sorted(penalties, reverse=True):
        known = (rows, y, penalty)
        start = minimize(_loss, start, known, "L-BFGS-B", jac=True, options={"maxiter": 500, "gtol": 1e-6}).x
        loss = _loss(start, held, y_held, 0.0)[0]
        if best is None or loss < best[0]:
            best = (loss, start, penalty)
    if best is None:
        raise ConfigError("no penalties to try; give at least one")
    return OrdinalProbe(center, scale, best[1][: x.shape[1]], _cuts(best[1][x.shape[1] :]), best[2])


def _checked(pair: tuple[ArrayLike, ArrayLike], n_grades: int, name: str) -> tuple[Array, Grades]:
    """Features and grades of the rows whose grade is known."""
    x, y = np.asarray(pair[0], dtype=np.float64), np.asarray(pair[1]).astype(np.int64)
    if x.ndim != 2 or y.shape != (len(x),):
        raise ConfigError(f"{name} features {x.shape} and grades {y.shape} do not fit; give (N, P) and (N,)")
    if (y >= n_grades).any():
        raise ConfigError(f"{name} grades reach {y.max()}, but there are {n_grades}, numbered from 0")
    return x[y >= 0], y[y >= 0]


def _cuts(free: Array) -> Array:
    """Rising cuts from the first one and the logs of the steps between them."""
    return np.cumsum(np.concatenate([free[:1], np.exp(free[1:])]))


def _loss(theta: Array, x: Array, y: Grades, penalty: float) -> tuple[float, Array]:
    """Penalised mean log loss and its gradient; theta is weights (P,), the first cut, and logs of the steps.

    The chance of a grade between cuts b < a is expit(a) expit(-b) (1 - exp(b - a)), which does not cancel.
    """
    weights, free = theta[: x.shape[1]], theta[x.shape[1] :]
    edges = np.concatenate([[-np.inf], _cuts(free), [np.inf]])
    score = x @ weights
    low, high = edges[y] - score, edges[y + 1] - score
    gap = np.diff(edges)
    with np.errstate(divide="ignore", over="ignore"):
        inside, push = np.log(-np.expm1(-gap)), 1 / np.expm1(gap)
    loss = -(log_expit(high) + log_expit(-low) + inside[y]).mean() + penalty / 2 * (weights**2).sum()
    up, down = (expit(-high) + push[y]) / len(y), -(expit(low) + push[y]) / len(y)
    pull = np.bincount(y, up, len(gap))[:-1] + np.bincount(y, down, len(gap))[1:]
    later = np.cumsum(pull[::-1])[::-1]
    steps = np.concatenate([later[:1], later[1:] * np.exp(free[1:])])
    return float(loss), np.concatenate([x.T @ (up + down) + penalty * weights, -steps])
