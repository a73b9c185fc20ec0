"""One set of bootstrap draws for a whole evaluation, as weights of patients.

Drawing patients with replacement gives each of them a count. A statistic that takes counts as weights has the value it would have
on the repeated rows, so all draws are computed at once, and statistics of the same draw (two models, many findings) are paired.

Source: Efron & Tibshirani 1993, chapters 6 and 13 (percentile interval). Whole patients: rows of one are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.evaluation.intervals import proportion

Array = NDArray[np.float64]
LEVEL = 0.95


class Draws:
    """Counts of each patient in each of `n` draws.

    Args:
        patients: every patient of the evaluation.
        n: draws; seed: of them.
    """

    def __init__(self, patients: Sequence[str] | ArrayLike, n: int = 1000, seed: int = 0) -> None:
        self.names = np.unique(np.asarray(patients, dtype=str))
        size = len(self.names)
        rng = np.random.default_rng(seed)
        self.counts = rng.multinomial(size, np.full(size, 1 / size), size=n).astype(np.float64) if size else np.zeros((n, 0))

    def weights(self, patients: ArrayLike) -> Array:
        """(B + 1, N) how often each row's patient was drawn; the first line is the cohort itself, ones."""
        place = np.searchsorted(self.names, np.asarray(patients, dtype=str))
        return np.concatenate([np.ones((1, len(place))), self.counts[:, place]])


def interval(values: Array, level: float = LEVEL) -> tuple[float, float] | None:
    """Percentile interval of draws (B,); None where fewer than half of them give a value."""
    known = values[np.isfinite(values)]
    if len(known) < max(len(values) / 2, 2):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def p_value(differences: Array) -> float | None:
    """Two-sided bootstrap p of "no difference": twice the smaller share of draws on either side of 0, with the +1 correction."""
    known = differences[np.isfinite(differences)]
    if len(known) < max(len(differences) / 2, 2):
        return None
    tail = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return float(min(1.0, 2 * (tail + 1) / (len(known) + 1)))


def estimate(values: Array, digits: int = 4) -> dict[str, Any]:
    """`value` and `ci` of a statistic (B + 1,) under `Draws.weights`, the cohort's own first; NA, with why, where undefined."""
    if not np.isfinite(values[0]):
        return missing("not defined on this cohort")
    found = interval(values[1:])
    out: dict[str, Any] = {"value": round(float(values[0]), digits), "ci": None}
    if found is None:
        return out | {"note": "no interval: fewer than half of the draws have both outcomes"}
    return out | {"ci": [round(v, digits) for v in found]}


def missing(why: str) -> dict[str, Any]:
    """A stated NA."""
    return {"value": None, "ci": None, "na": why}


def rate(hits: ArrayLike, patients: ArrayLike, draws: Draws) -> dict[str, Any]:
    """Estimate of the mean of (N,) shares in [0, 1].

    Where all are 0 or all are 1, draws cannot vary, and the interval is Wilson's over patients instead.
    """
    values = np.asarray(hits, dtype=np.float64)
    told = estimate(weighted_mean(values, draws.weights(patients)))
    if len(values) and values.min() == values.max() and values[0] in (0.0, 1.0):
        n = len(np.unique(np.asarray(patients)))
        low, high = proportion(n * values[0], n)
        told |= {"ci": [round(float(low), 4), round(float(high), 4)], "note": "interval: Wilson over patients"}
    return told


def weighted_mean(values: ArrayLike, weights: Array) -> Array:
    """(B,) mean of (N,) values under each line of weights; NaN values are left out, and so is a draw without any weight."""
    v = np.asarray(values, dtype=np.float64)
    known = np.isfinite(v)
    w = weights[:, known]
    total = w.sum(1)
    return np.asarray(np.divide(w @ v[known], total, out=np.full(len(w), np.nan), where=total > 0))


def weighted_concordance(time: ArrayLike, event: ArrayLike, risk: ArrayLike, weights: Array) -> Array:
    """(B,) Harrell's C under each line of weights (B, N); equal risks count half. NaN without a comparable pair."""
    t, e, r = np.asarray(time, float), np.asarray(event, bool), np.asarray(risk, float)
    later = e[:, None] & ((t[None] > t[:, None]) | ((t[None] == t[:, None]) & ~e[None]))
    good = later * ((r[None] < r[:, None]) + 0.5 * (r[None] == r[:, None]))
    pairs, hits = (np.einsum("bi,bi->b", weights @ m.astype(np.float64), weights) for m in (later, good))
    return np.asarray(np.divide(hits, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))
