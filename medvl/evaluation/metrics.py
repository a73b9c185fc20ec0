"""Metrics on plain arrays. Undefined ones raise; nothing is quietly zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve, ties counted half (Mann-Whitney).

    Args:
        labels: (N,) 0 or 1.
        scores: (N,) higher means present.

    Raises:
        ValueError: only one class, or a label that is neither 0 nor 1.
    """
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, found {sorted(set(y.tolist()))[:5]}")
    n1 = int((y == 1).sum())
    n0 = len(y) - n1
    if n1 == 0 or n0 == 0:
        raise ValueError(f"AUROC needs both classes, found {n1} present and {n0} absent")
    return float((rankdata(s)[y == 1].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def concordance(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> float:
    """Harrell's C: share of comparable pairs where the higher risk fails first; equal risks count half.

    Args:
        time: (N,) follow-up, any unit.
        event: (N,) bool, True if it happened.
        risk: (N,) higher is worse.

    Raises:
        ValueError: no comparable pair.
    """
    t, e, r = np.asarray(time, float), np.asarray(event, bool), np.asarray(risk, float)
    good = pairs = 0.0
    for i in np.flatnonzero(e):
        later = (t > t[i]) | ((t == t[i]) & ~e)
        pairs += later.sum()
        good += (r[later] < r[i]).sum() + 0.5 * (r[later] == r[i]).sum()
    if pairs == 0:
        raise ValueError("no comparable pair: nobody outlived an observed event")
    return float(good / pairs)


def recall_at(similarity: NDArray[np.floating], k: int) -> float:
    """Share of rows whose own column (the diagonal) is among the k most similar; a tie costs its expected place."""
    own = np.diag(similarity)[:, None]
    above = (similarity > own).sum(1)
    tied = (similarity == own).sum(1)
    return float(np.clip((k - above) / tied, 0, 1).mean())


def median_rank(similarity: NDArray[np.floating]) -> float:
    """Median rank (1 is best) of the diagonal among its row, ties at their middle."""
    own = np.diag(similarity)[:, None]
    return float(np.median((similarity > own).sum(1) + ((similarity == own).sum(1) + 1) / 2))


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], clusters: ArrayLike, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a statistic, resampling whole patients.

    Args:
        statistic: value for an array of row numbers; a draw for which it raises ValueError (one class) is drawn again.
        clusters: (N,) patient of each row.
        n: draws.
        seed: of the draws.
        level: coverage.

    Raises:
        ValueError: hardly any draw gives a value.
    """
    names, inverse = np.unique(np.asarray(clusters), return_inverse=True)
    rows_of = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    rng = np.random.default_rng(seed)
    values: list[float] = []
    for _ in range(4 * n):
        picks = rng.integers(len(names), size=len(names))
        try:
            values.append(statistic(np.concatenate([rows_of[p] for p in picks])))
        except ValueError:
            continue
        if len(values) == n:
            break
    if len(values) < n // 2:
        raise ValueError(f"only {len(values)} of {4 * n} bootstrap draws gave a value; too few patients with both outcomes")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
