"""Metrics on plain arrays. Undefined ones raise; nothing is quietly zero."""

from __future__ import annotations

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
