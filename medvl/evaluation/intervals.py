"""How far a number may be off: bootstrap over whole patients, paired differences, intervals of proportions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, norm

Array = NDArray[np.float64]
Statistic = Callable[[NDArray[np.int64]], Any]
BLOCK = 1 << 18


@dataclass(frozen=True)
class Weighted:
    """A statistic that is read off row weights, many draws at once: no draw copies or sorts rows.

    Args:
        of: (D, N) float64 weights to (D,) values, or (D, ...) arrays, with NaN where a draw has none (one class).
        n: rows.

    Called with row numbers it is a statistic like any other.
    """

    of: Callable[[Array], Array]
    n: int

    def __call__(self, rows: NDArray[np.int64]) -> Any:
        """The value for an array of row numbers; ValueError where there is none."""
        value = self.of(np.bincount(rows, minlength=self.n)[None].astype(np.float64))[0]
        if np.isnan(value).any():
            raise ValueError("the statistic is not defined for these rows; is a class missing?")
        return value


@dataclass(frozen=True)
class Difference:
    """One statistic minus another on the same rows, its interval, and a two-sided p value."""

    value: float
    low: float
    high: float
    p: float


class Clusters:
    """N rows by the patient they belong to.

    Args:
        of_rows: (N,) patient of each row.

    Raises:
        ValueError: no rows.
    """

    def __init__(self, of_rows: ArrayLike) -> None:
        names, self.inverse = np.unique(np.asarray(of_rows), return_inverse=True)
        self.n, self.n_rows = len(names), len(self.inverse)
        if not self.n:
            raise ValueError("no rows to resample; is the cohort empty?")
        self.rows = np.split(np.argsort(self.inverse, kind="stable"), np.cumsum(np.bincount(self.inverse))[:-1])

    def values(self, statistic: Statistic, picks: list[NDArray[np.int64]]) -> Iterator[Any]:
        """Values of draws, each an array of patient numbers; draws without one are passed over."""
        if isinstance(statistic, Weighted):
            counts = np.stack([np.bincount(p, minlength=self.n) for p in picks]).astype(np.float64)
            yield from (v for v in statistic.of(counts[:, self.inverse]) if not np.isnan(v).any())
            return
        for pick in picks:
            try:
                value = statistic(np.concatenate([self.rows[p] for p in pick]))
            except ValueError:
                continue
            yield value

    def left_out(self, statistic: Statistic) -> Array:
        """(G,) values without one patient each."""
        everyone = np.arange(self.n)
        step = max(1, BLOCK // self.n_rows)
        out: list[Any] = []
        for start in range(0, self.n, step):
            out += self.values(statistic, [np.delete(everyone, g) for g in everyone[start : start + step]])
        return np.array(out, dtype=np.float64)


class Draws:
    """Draws of whole patients that every statistic of one evaluation shares, so that any two of them are paired.

    Args:
        patients: every patient of the evaluation, in any order and any number of times.
        n: draws; seed: of them.

    Source: Efron and Tibshirani 1993, chapter 6; a draw with replacement is a multinomial count of each patient.
    """

    def __init__(self, patients: ArrayLike, n: int = 1000, seed: int = 0) -> None:
        self.names, self.seed = np.unique(np.asarray(patients, dtype=str)), seed
        size = len(self.names)
        rng = np.random.default_rng(seed)
        self.counts = rng.multinomial(size, np.full(size, 1 / size), size=n).astype(np.float64) if size else np.zeros((n, 0))

    def weights(self, patients: ArrayLike) -> Array:
        """(n + 1, N) how often each row's patient was drawn; the first line is the cohort itself, ones."""
        place = np.searchsorted(self.names, np.asarray(patients, dtype=str))
        return np.concatenate([np.ones((1, len(place))), self.counts[:, place]])

    def values(self, statistic: Weighted, patients: ArrayLike) -> Array:
        """(n + 1, ...) of a statistic of rows whose patients are given, the cohort's own first; NaN where a draw has none."""
        return statistic.of(self.weights(patients))


def draws(statistic: Statistic, clusters: ArrayLike, *, n: int = 1000, seed: int = 0) -> Array:
    """(n, ...) values of a statistic, a number or an array, in n bootstrap draws of whole patients.

    Args:
        statistic: value for an array of row numbers, or `Weighted`; a draw for which it raises ValueError (one class) is drawn
            again.
        clusters: (N,) patient of each row.
        n: draws.
        seed: of the draws. The same patients are drawn for every statistic of the same clusters and seed.

    Raises:
        ValueError: hardly any draw gives a value, or there are no rows.
    """
    groups, rng = Clusters(clusters), np.random.default_rng(seed)
    values: list[Any] = []
    step = max(1, BLOCK // groups.n_rows) if isinstance(statistic, Weighted) else 1
    tried = 0
    while len(values) < n and tried < 4 * n:
        size = min(step, 4 * n - tried, n - len(values))
        values += groups.values(statistic, [rng.integers(groups.n, size=groups.n) for _ in range(size)])
        tried += size
    if len(values) < max(n // 2, 1):
        raise ValueError(f"only {len(values)} of {tried} bootstrap draws gave a value; too few patients with both outcomes")
    return np.array(values, dtype=np.float64)


def bootstrap(
    statistic: Statistic,
    clusters: ArrayLike,
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    method: Literal["percentile", "bca"] = "percentile",
) -> tuple[float, float]:
    """Interval of a statistic, resampling whole patients.

    Args:
        statistic: value for an array of row numbers, or `Weighted`; a draw for which it raises ValueError (one class) is drawn
            again.
        clusters: (N,) patient of each row.
        n: draws.
        seed: of the draws.
        level: coverage.
        method: `percentile`, or `bca`: corrected for bias and skew, by leaving out one patient at a time.

    Source: Efron 1987 (BCa); Field and Welsh 2007 (whole clusters).

    Raises:
        ValueError: hardly any draw gives a value, or for `bca` a patient without whom there is none, or a statistic that does
            not vary.
    """
    values = draws(statistic, clusters, n=n, seed=seed)
    at = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        at = _corrected(statistic, Clusters(clusters), values, at)
    low, high = np.quantile(values, at)
    return float(low), float(high)


def _corrected(statistic: Statistic, groups: Clusters, values: Array, at: Array) -> Array:
    """The quantiles that BCa takes instead of `at`."""
    whole = float(statistic(np.arange(groups.n_rows)))
    share = float((values < whole).mean() + (values <= whole).mean()) / 2
    parts = groups.left_out(statistic)
    if len(parts) < groups.n:
        raise ValueError(f"without one of {groups.n - len(parts)} patients there is no value; use the percentile method")
    away = parts.mean() - parts
    if not 0 < share < 1 or not away.any():
        raise ValueError("the statistic hardly varies between draws; BCa is not defined, use the percentile method")
    lean = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    z = norm.ppf(share) + norm.ppf(at)
    return np.asarray(norm.cdf(norm.ppf(share) + z / (1 - lean * z)))


def paired_bootstrap(
    a: Statistic, b: Statistic, clusters: ArrayLike, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Difference:
    """`a` minus `b` on the same draws of patients, with its percentile interval.

    The p value is the smallest 1 - level at which the interval would leave out zero, counting each draw's side of zero
    (Davison and Hinkley 1997, with one added to the counts: never below 2 / (n + 1)).

    Args:
        a: statistic of row numbers; `Weighted` is quick where both are.
        b: what is taken away.
        clusters: (N,) patient of each row.
        n: draws.
        seed: of the draws.
        level: coverage.

    Raises:
        ValueError: hardly any draw gives both values, or all rows together do not.
    """
    both: Statistic = partial(_minus, a, b)
    if isinstance(a, Weighted) and isinstance(b, Weighted):
        first, second = a.of, b.of
        both = Weighted(lambda weights: first(weights) - second(weights), a.n)
    values = draws(both, clusters, n=n, seed=seed)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(both(np.arange(np.asarray(clusters).shape[0]))), float(low), float(high), p_of_zero(values))


def p_of_zero(differences: Array) -> float:
    """Two-sided p of no difference from draws of it: twice the smaller share on either side of zero, one added to the counts."""
    side = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (side + 1) / (len(differences) + 1))


def _minus(a: Statistic, b: Statistic, rows: NDArray[np.int64]) -> float:
    return float(a(rows) - b(rows))


def proportion(
    hits: ArrayLike, n: ArrayLike, *, level: float = 0.95, method: Literal["wilson", "exact"] = "wilson"
) -> tuple[Array, Array]:
    """(low, high) of proportions of independent rows, any shape; several rows of a patient need `bootstrap`.

    Args:
        hits: how often it was so.
        n: of how many.
        level: coverage.
        method: `wilson` (Wilson 1927; on average at the level) or `exact` (Clopper and Pearson 1934; at least the level).

    Raises:
        ValueError: n is zero, or hits lie outside 0 to n.
    """
    k, m = np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64)
    if not ((m > 0) & (k >= 0) & (k <= m)).all():
        raise ValueError("a proportion needs counts with 0 <= hits <= n and n > 0")
    if method == "exact":
        tail = (1 - level) / 2
        low = np.where(k == 0, 0.0, beta.ppf(tail, np.maximum(k, 1e-9), m - k + 1))
        high = np.where(k == m, 1.0, beta.ppf(1 - tail, k + 1, np.maximum(m - k, 1e-9)))
        return low, high
    z = float(norm.ppf((1 + level) / 2))
    centre, reach = k + z**2 / 2, z * np.sqrt(k * (m - k) / m + z**2 / 4)
    low, high = (centre - reach) / (m + z**2), (centre + reach) / (m + z**2)
    return np.where(k == 0, 0.0, low), np.where(k == m, 1.0, high)
