"""Measures of `medvl.survival.measures` under lines of case weights: many draws of a bootstrap at once, by products of matrices.

Counts as weights give the measure of the rows repeated so often. A line for which a measure is not defined has NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.survival.measures import columns
from medvl.survival.steps import checked

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
PAIRS = 1 << 22


@dataclass(frozen=True, eq=False)
class Curves:
    """Product-limit estimates, one for each of D lines of weights.

    Args:
        times: (M,) rising times of all rows.
        survival: (D, M) at and after each.
        last: (D,) longest follow-up of a row with weight; -inf where no row has any.
    """

    times: Array
    survival: Array
    last: Array

    def at(self, times: ArrayLike) -> Array:
        """(D, T) S(t)."""
        return self._of(times, "right")

    def before(self, times: ArrayLike) -> Array:
        """(D, T) S(t-)."""
        return self._of(times, "left")

    def _of(self, times: ArrayLike, side: str) -> Array:
        index = np.searchsorted(self.times, np.atleast_1d(np.asarray(times, float)), side=side)  # type: ignore[call-overload]
        return np.concatenate([np.ones((len(self.survival), 1)), self.survival], 1)[:, index]


def weighted_kaplan_meier(time: ArrayLike, event: ArrayLike, weights: Array, *, censoring: bool = False) -> Curves:
    """`kaplan_meier` under each line of case weights (D, N): of survival, or of staying uncensored.

    Raises:
        ConfigError: times or events out of range.
    """
    t, e = checked(time, event)
    order = np.argsort(t, kind="stable")
    moments, starts = np.unique(t[order], return_index=True)
    events, others = (np.add.reduceat(np.where(kind, weights, 0.0)[:, order], starts, axis=1) for kind in (e, ~e))
    at_risk = (events + others)[:, ::-1].cumsum(1)[:, ::-1]
    lost, base = (others, at_risk - events) if censoring else (events, at_risk)
    drop = np.divide(lost, base, out=np.zeros_like(lost), where=lost > 0)
    last = np.where(events + others > 0, moments, -np.inf).max(1)
    return Curves(moments, np.cumprod(1 - drop, axis=1), last)


def weighted_harrell(time: ArrayLike, event: ArrayLike, risk: ArrayLike, weights: Array) -> Array:
    """(D,) Harrell's C under each line of case weights (D, N), a pair weighing their product. O(D N**2), in bounded memory."""
    t, e, r = columns(time, event, risk)
    return _concordance(t, e, r, weights, np.flatnonzero(e), weights[:, e])


def weighted_uno(
    time: ArrayLike, event: ArrayLike, risk: ArrayLike, weights: Array, known: Curves, tau: float | None = None
) -> Array:
    """(D,) Uno's C under each line of case weights (D, N); `known`: chance of staying uncensored, by line. Else as `uno`."""
    t, e, r = columns(time, event, risk)
    counted = np.flatnonzero(e & (t < (np.inf if tau is None else tau)))
    return _concordance(t, e, r, weights, counted, _undone(known, t[counted], weights[:, counted], power=2))


def weighted_auc(time: ArrayLike, event: ArrayLike, risk: ArrayLike, weights: Array, known: Curves, at: ArrayLike) -> Array:
    """(D, T) AUC by each time under each line of case weights (D, N); else as `dynamic_auc`."""
    t, e, r = columns(time, event, risk)
    times = np.atleast_1d(np.asarray(at, dtype=np.float64))
    out = np.empty((len(weights), len(times)))
    for k, moment in enumerate(times):
        cases, controls = np.flatnonzero(e & (t <= moment)), np.flatnonzero(t > moment)
        own, other = _undone(known, t[cases], weights[:, cases]), weights[:, controls]
        hits, pairs = np.zeros(len(weights)), own.sum(1) * other.sum(1)
        for some in np.array_split(np.arange(len(cases)), 1 + len(cases) * len(controls) // PAIRS):
            better = _better(r[cases[some], None], r[controls])
            hits += np.einsum("di,di->d", other @ better.T, own[:, some])
        out[:, k] = _ratio(hits, pairs)
    return out


def mean_auc(time: ArrayLike, event: ArrayLike, weights: Array, at: ArrayLike, values: Array) -> Array:
    """(D,) mean of AUCs (D, T) at rising times over the fall of survival; else as `dynamic_auc`."""
    level = weighted_kaplan_meier(time, event, weights).at(at)
    fall = -np.diff(level, axis=1, prepend=1.0)
    return _ratio((values * fall).sum(1), fall.sum(1))


def weighted_brier(time: ArrayLike, event: ArrayLike, survival: Array, weights: Array, known: Curves, at: ArrayLike) -> Array:
    """(D, T) Brier score of predicted survival (N, T) under each line of case weights (D, N); else as `brier`."""
    s = np.asarray(survival, dtype=np.float64)
    return np.stack(
        [
            _ratio(dead @ s[gone, k] ** 2 + alive @ (1 - s[left, k]) ** 2, weights.sum(1))
            for k, (gone, dead, left, alive) in enumerate(_fates(time, event, weights, known, at))
        ],
        axis=1,
    )


def weighted_brier_of_curve(
    time: ArrayLike, event: ArrayLike, level: Array, weights: Array, known: Curves, at: ArrayLike
) -> Array:
    """(D, T) Brier score of one predicted survival for everybody, (D, T) by line, under each line of case weights (D, N)."""
    return np.stack(
        [
            _ratio(dead.sum(1) * level[:, k] ** 2 + alive.sum(1) * (1 - level[:, k]) ** 2, weights.sum(1))
            for k, (_, dead, _, alive) in enumerate(_fates(time, event, weights, known, at))
        ],
        axis=1,
    )


def integrated(values: Array, at: ArrayLike) -> Array:
    """(D,) mean of values (D, T) over rising times by the trapezoid rule.

    Raises:
        ValueError: fewer than two times, or they do not rise.
    """
    times = np.asarray(at, dtype=np.float64)
    if times.ndim != 1 or len(times) < 2 or (np.diff(times) <= 0).any():
        raise ValueError(f"an integral needs two or more rising times, found {times.tolist()}")
    return np.asarray(np.trapezoid(values, times, axis=1) / (times[-1] - times[0]))


def _fates(
    time: ArrayLike, event: ArrayLike, weights: Array, known: Curves, at: ArrayLike
) -> Iterator[tuple[Rows, Array, Rows, Array]]:
    """At each time: rows with the event by then and (D, .) their weights, rows that live beyond and theirs; censoring undone."""
    t, e = checked(time, event)
    for moment in np.atleast_1d(np.asarray(at, dtype=np.float64)):
        gone, left = np.flatnonzero(e & (t <= moment)), np.flatnonzero(t > moment)
        chance = _usable(known, known.at([moment]), np.array([moment]))
        alive = np.divide(weights[:, left], chance, out=np.zeros((len(weights), len(left))), where=weights[:, left] > 0)
        yield gone, _undone(known, t[gone], weights[:, gone]), left, alive


def _undone(known: Curves, times: Array, own: Array, power: int = 1) -> Array:
    """(D, K) weights of events at times (K,) over their chance of being watched up to then; NaN where nobody was."""
    chance = _usable(known, known.before(times), times) ** power
    return np.asarray(np.divide(own, chance, out=np.zeros_like(own), where=own > 0))


def _usable(known: Curves, chance: Array, times: Array) -> Array:
    """Chances (D, K) of staying uncensored, NaN where nobody was watched at that time."""
    return np.where((chance > 0) & (times <= known.last[:, None]), chance, np.nan)


def _concordance(t: Array, e: NDArray[np.bool_], r: Array, weights: Array, counted: Rows, own: Array) -> Array:
    """(D,) share of pairs in order, of events `counted` that weigh `own` (D, K) with rows that weigh `weights`."""
    pairs, hits = np.zeros((2, len(weights)))
    for some in np.array_split(np.arange(len(counted)), 1 + len(counted) * len(t) // PAIRS):
        at, mine = t[counted[some], None], own[:, some]
        later = (t > at) | ((t == at) & ~e)
        beyond = weights @ later.T.astype(np.float64)
        mine = np.where(beyond > 0, mine, 0.0)
        pairs += np.einsum("di,di->d", beyond, mine)
        hits += np.einsum("di,di->d", weights @ (later * _better(r[counted[some], None], r)).T, mine)
    return _ratio(hits, pairs)


def _better(higher: Array, lower: Array) -> Array:
    """1 where the first risk is above the second, half where they are equal."""
    return np.asarray((lower < higher) + 0.5 * (lower == higher))


def _ratio(hits: Array, pairs: Array) -> Array:
    return np.asarray(np.divide(hits, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
