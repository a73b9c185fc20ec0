"""Folds that keep patients together and events even, and the ridge that predicts held-out patients best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.objectives.cox import Ties
from medvl.survival.cox import CoxFit, fit_cox
from medvl.survival.partial import likelihood, prepare
from medvl.survival.steps import checked

Array = NDArray[np.float64]
PENALTIES = tuple(float(p) for p in np.logspace(2, -4, 13))


def event_folds(event: ArrayLike, n_folds: int, seed: int, patients: ArrayLike | None = None) -> NDArray[np.int64]:
    """(N,) fold of every row; events and others are dealt out evenly, rows of one patient go together.

    Args:
        event: (N,) bool; a patient has the event if any of its rows has.
        n_folds: 2 or more.
        seed: of the deal.
        patients: (N,) ids; without them every row is a patient.

    Raises:
        ConfigError: fewer patients with the event than folds, or fewer than 2 folds.
    """
    e = np.asarray(event, dtype=bool)
    names, inverse = np.unique(np.arange(len(e)) if patients is None else np.asarray(patients), return_inverse=True)
    happened = np.bincount(inverse, e, len(names)) > 0
    if n_folds < 2 or happened.sum() < n_folds:
        raise ConfigError(f"{n_folds} folds need 2 folds and an event in each; {int(happened.sum())} patients have one")
    rng = np.random.default_rng(seed)
    # those with the event first, so that the others go on where they end and folds differ by one patient at most
    dealt = np.concatenate([rng.permutation(np.flatnonzero(happened)), rng.permutation(np.flatnonzero(~happened))])
    fold = np.empty(len(names), dtype=np.int64)
    fold[dealt] = np.arange(len(names)) % n_folds
    return fold[inverse]


@dataclass(frozen=True, eq=False)
class Choice:
    """A chosen ridge.

    Args:
        penalty: the best.
        tried: penalty and mean held-out log partial likelihood per event, or -inf where it could not be fitted.
    """

    penalty: float
    tried: tuple[tuple[float, float], ...]


def choose_penalty(
    x: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    *,
    validation: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    penalties: Sequence[float] = PENALTIES,
    ties: Ties = "efron",
    scales: ArrayLike = 1.0,
    n_folds: int = 5,
    seed: int = 0,
) -> Choice:
    """The ridge with the highest partial likelihood of patients that were not fitted on.

    Args:
        x: (N, P) of training patients, as `fit_cox` takes them.
        time: (N,) follow-up.
        event: (N,) bool.
        validation: features, time and event of validation patients. Without them, folds of training take turns, and each adds
            l(all patients) - l(all but the fold) at the coefficients that were fitted without it.
        penalties: to try.
        ties: of the fits.
        scales: (P,) or one number; a column's penalty is the chosen one times its scale, so 0 leaves it free.
        n_folds: of training, where there is no validation.
        seed: of the folds.

    Raises:
        ConfigError: no penalty could be fitted, or values are out of range.

    Source: Verweij and van Houwelingen 1993, Statistics in Medicine 12:2305.
    """
    rows, (t, e) = np.asarray(x, dtype=np.float64), checked(time, event)
    factor = np.asarray(scales, dtype=np.float64)
    parts: list[tuple[NDArray[np.bool_], tuple[ArrayLike, ArrayLike, ArrayLike] | None]]
    if validation is None:
        fold = event_folds(e, n_folds, seed)
        parts = [(fold != k, None) for k in range(n_folds)]
    else:
        parts = [(np.ones(len(t), dtype=bool), validation)]
    tried = []
    for penalty in penalties:
        total = 0.0
        for inside, held in parts:
            try:
                fit = fit_cox(rows[inside], t[inside], e[inside], penalty=penalty * factor, ties=ties)
            except ConfigError:
                total = -np.inf
                break
            total += partial_likelihood(fit, *held) if held else _gain(fit, rows, t, e, inside)
        n = e.sum() if validation is None else np.asarray(validation[2], dtype=bool).sum()
        tried.append((float(penalty), float(total / n)))
    best = max(tried, key=lambda pair: pair[1])
    if not np.isfinite(best[1]):
        raise ConfigError(f"no penalty of {list(penalties)} could be fitted; give larger ones, or take columns out")
    return Choice(best[0], tuple(tried))


def partial_likelihood(fit: CoxFit, x: ArrayLike, time: ArrayLike, event: ArrayLike) -> float:
    """Log partial likelihood of patients under a fit, one stratum.

    Raises:
        ConfigError: none of them has an event, or values are out of range.
    """
    data = prepare(x, time, event, None, None, fit.ties)
    return sum(likelihood(part, fit.coefficients) for part in data.strata_rows(data.x))


def _gain(fit: CoxFit, x: Array, time: Array, event: NDArray[np.bool_], inside: NDArray[np.bool_]) -> float:
    return partial_likelihood(fit, x, time, event) - partial_likelihood(fit, x[inside], time[inside], event[inside])
