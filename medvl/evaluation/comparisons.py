"""Is one model better than another on the same patients? DeLong by patient, permutation, and many questions at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from medvl.evaluation.intervals import Clusters
from medvl.evaluation.metrics import Array, binary, numbers


@dataclass(frozen=True)
class Comparison:
    """Model `a` minus model `b`.

    Args:
        difference: of the statistic.
        low, high: 95 % interval; None where the method gives none.
        p: two-sided.
        method: in words, for the table's note.
    """

    difference: float
    low: float | None
    high: float | None
    p: float
    method: str


def delong(labels: ArrayLike, a: ArrayLike, b: ArrayLike, clusters: ArrayLike | None = None) -> Comparison:
    """Difference of two AUROCs on the same rows, with a normal interval and test.

    Args:
        labels: (N,) 0 or 1.
        a: (N,) scores of one model, higher means present.
        b: (N,) scores of the other; scales need not agree.
        clusters: (N,) patient of each row; each row is a patient of its own if None.

    Source: DeLong et al. 1988; with clusters Obuchowski 1997, to which it reduces when each patient has one row.

    Raises:
        ValueError: fewer than two patients with a class, or different areas without any variance.
    """
    y = binary(labels)
    scores = [numbers(x, len(y), "scores") for x in (a, b)]
    groups = Clusters(np.arange(len(y)) if clusters is None else clusters)
    if groups.n_rows != len(y):
        raise ValueError(f"{groups.n_rows} patients for {len(y)} labels; give one for each row")
    parts = [_placements(y, s) for s in scores]
    difference = float(parts[0][y].mean() - parts[1][y].mean())
    variance = _variance(y, parts[0] - parts[1], difference, groups)
    name = "DeLong" if groups.n == len(y) else "DeLong by patient (Obuchowski)"
    if variance <= 1e-18:
        if abs(difference) > 1e-12:
            raise ValueError(f"the areas differ by {difference:.3f} without any variance; use a permutation test")
        return Comparison(difference, difference, difference, 1.0, name)
    error = float(np.sqrt(variance))
    reach = float(norm.ppf(0.975)) * error
    return Comparison(difference, difference - reach, difference + reach, float(2 * norm.sf(abs(difference) / error)), name)


def _placements(y: NDArray[np.bool_], scores: Array) -> Array:
    """(N,) share of the other class that each row is on the right side of, ties half; the mean of each class is the AUROC."""
    n1, n0 = int(y.sum()), int((~y).sum())
    if min(n1, n0) < 2:
        raise ValueError(f"DeLong needs two rows of each class, found {n1} present and {n0} absent")
    ranks = rankdata(scores)
    out = np.empty(len(y))
    out[y] = (ranks[y] - rankdata(scores[y])) / n0
    out[~y] = 1 - (ranks[~y] - rankdata(scores[~y])) / n1
    return out


def _variance(y: NDArray[np.bool_], part: Array, mean: float, groups: Clusters) -> float:
    """Obuchowski's variance of a mean placement, or of a difference of two."""
    total, sums = 0.0, []
    for name, mask in (("present", y), ("absent", ~y)):
        own = groups.inverse[mask]
        patients = len(np.unique(own))
        if patients < 2:
            raise ValueError(f"only {patients} patient has rows with the finding {name}; two are needed")
        sums.append(np.bincount(own, part[mask] - mean, groups.n) / mask.sum())
        total += patients / (patients - 1) * float(sums[-1] @ sums[-1])
    return total + 2 * groups.n / (groups.n - 1) * float(sums[0] @ sums[1])


def permutation(
    statistic: Callable[[Array], float],
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike,
    n: int = 2000,
    seed: int = 0,
    *,
    ranks: bool = False,
) -> Comparison:
    """Difference of a statistic between two models, tested by swapping their scores within whole patients.

    It asks whether the models are interchangeable, so their scores must be on one scale (calibrated probabilities), or be
    ranked first for statistics that only see order. All swaps are tried where they are at most `n`.

    Args:
        statistic: value for (N,) scores of all rows.
        a: (N,) scores of one model.
        b: (N,) scores of the other.
        clusters: (N,) patient of each row.
        n: random swaps.
        seed: of the swaps.
        ranks: compare ranks within each model (Bandos et al. 2005), right for AUROC and concordance of unlike scales.

    Raises:
        ValueError: lengths differ, or what `statistic` refuses.
    """
    groups = Clusters(clusters)
    one, two = (numbers(x, groups.n_rows, "scores") for x in (a, b))
    if ranks:
        one, two = rankdata(one), rankdata(two)
    seen = statistic(one) - statistic(two)
    exact = groups.n < 32 and 2**groups.n <= n
    swaps = product((False, True), repeat=groups.n) if exact else np.random.default_rng(seed).random((n, groups.n)) < 0.5
    beyond = total = 0
    for swap in swaps:
        here = np.asarray(swap)[groups.inverse]
        value = statistic(np.where(here, two, one)) - statistic(np.where(here, one, two))
        beyond += abs(value) >= abs(seen) - 1e-12
        total += 1
    name = f"permutation by patient, {'all' if exact else 'random'} {total} swaps"
    return Comparison(float(seen), None, None, beyond / total if exact else (beyond + 1) / (total + 1), name)


def adjust(p_values: ArrayLike, method: Literal["holm", "bh"] = "holm") -> Array:
    """(K,) p values adjusted for K questions, in the order given.

    Args:
        p_values: (K,) in [0, 1].
        method: `holm` (Holm 1979) bounds the chance of any false claim; `bh` (Benjamini and Hochberg 1995) the share of false
            claims among those made, for questions that are independent or positively dependent.

    Raises:
        ValueError: a value outside [0, 1] or NaN.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p values must be a list of numbers in [0, 1], found {p.tolist()}")
    k, order, out = len(p), np.argsort(p), np.empty(len(p))
    if method == "holm":
        out[order] = np.maximum.accumulate((k - np.arange(k)) * p[order])
    else:
        out[order] = np.minimum.accumulate((k / np.arange(1, k + 1) * p[order])[::-1])[::-1]
    return np.asarray(out.clip(max=1.0))
