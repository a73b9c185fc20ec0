"""Do probabilities mean what they say? Calibration error, reliability curve, Brier score and its parts, recalibration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from medvl.evaluation.calibration import logistic, pooled
from medvl.evaluation.intervals import BLOCK, Clusters, Weighted, draws, proportion
from medvl.evaluation.metrics import Array, binary, numbers, weighing

Binning = Literal["filled", "width"]


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10, binning: Binning = "filled") -> float:
    """Mean gap between probability and frequency over bins, weighted by their size.

    It is never negative, so it is above zero for the best of models and grows as rows get fewer: see `error_by_chance`.

    Args:
        labels: (N,) 0 or 1.
        probabilities: (N,) in [0, 1].
        bins: at most so many.
        binning: `filled` (equal numbers of rows, equal probabilities kept together) or `width` (Guo et al. 2017).

    Raises:
        ValueError: no rows, or a label or probability out of range.
    """
    y, p = _checked(labels, probabilities)
    return _error(y, p, bins, binning)


def error_of(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10, binning: Binning = "filled") -> Weighted:
    """`expected_calibration_error` as a statistic of draws, in the bins of the rows themselves.

    Raises:
        ValueError: as for `expected_calibration_error`.
    """
    y, p = _checked(labels, probabilities)
    places = _places(p, bins, binning)
    inside = np.zeros((len(y), int(places.max()) + 1))
    inside[np.arange(len(y)), places] = y - p

    def of(weights: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.abs(weights @ inside).sum(1) / weights.sum(1))

    return Weighted(of, len(y))


def ece_interval(
    labels: ArrayLike,
    probabilities: ArrayLike,
    clusters: ArrayLike,
    *,
    bins: int = 10,
    binning: Binning = "filled",
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of the expected calibration error, resampling whole patients.

    A draw's error is above the sample's as the sample's is above the truth, so percentiles would lie too high twice over. The
    interval is reflected instead (basic bootstrap: twice the value minus the percentiles), and reaches down to zero where the
    value is no larger than when each patient's residuals get a random sign (wild bootstrap of perfect calibration).

    Raises:
        ValueError: as for `expected_calibration_error`.
    """
    y, p = _checked(labels, probabilities)
    value = _error(y, p, bins, binning)
    values = draws(lambda rows: _error(y[rows], p[rows], bins, binning), clusters, n=n, seed=seed)
    lower, upper = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    low = max(2 * value - float(upper), 0.0)
    if value <= np.quantile(_flipped(y - p, _places(p, bins, binning), Clusters(clusters), n, seed), (1 + level) / 2):
        low = 0.0
    return low, max(2 * value - float(lower), low)


def _flipped(residual: Array, places: NDArray[np.int64], groups: Clusters, n: int, seed: int) -> Array:
    """(n,) calibration errors where each patient's residuals together get a random sign."""
    sums = np.zeros((groups.n, int(places.max()) + 1))
    np.add.at(sums, (groups.inverse, places), residual)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(n, groups.n))
    return np.asarray(np.abs(signs @ sums).sum(1) / len(residual))


def error_by_chance(
    probabilities: ArrayLike, bins: int = 10, binning: Binning = "filled", *, n: int = 200, seed: int = 0
) -> tuple[float, float]:
    """Mean and 95th percentile of the calibration error of a perfectly calibrated model with these probabilities.

    Labels are drawn from the probabilities, independently of each other.

    Source: Bröcker and Smith 2007.

    Raises:
        ValueError: no rows, or a probability out of range.
    """
    p = _checked(np.zeros(len(np.asarray(probabilities))), probabilities)[1]
    rng = np.random.default_rng(seed)
    values = [_error((rng.random(len(p)) < p).astype(np.float64), p, bins, binning) for _ in range(n)]
    return float(np.mean(values)), float(np.quantile(values, 0.95))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Frequency beside probability in K bins, empty ones left out.

    Args:
        mean_probability, frequency: (K,) float64; n: (K,) int64 rows.
        low, high: (K,) 95 % interval of the frequency.
    """

    mean_probability: Array
    frequency: Array
    n: NDArray[np.int64]
    low: Array
    high: Array


def reliability(
    labels: ArrayLike,
    probabilities: ArrayLike,
    bins: int = 10,
    *,
    binning: Binning = "filled",
    clusters: ArrayLike | None = None,
    seed: int = 0,
) -> Reliability:
    """The curve of a reliability plot.

    Args:
        labels: (N,) 0 or 1.
        probabilities: (N,) in [0, 1].
        bins: at most so many.
        binning: as for `expected_calibration_error`.
        clusters: (N,) patient of each row: intervals then resample patients within fixed bins, and are Wilson's where every row
            of a bin says the same. Without, Wilson's everywhere, which takes rows for independent.
        seed: of the draws.

    Raises:
        ValueError: no rows, or a label or probability out of range.
    """
    y, p = _checked(labels, probabilities)
    places, inverse = np.unique(_places(p, bins, binning), return_inverse=True)
    n = np.bincount(inverse)
    hits = np.bincount(inverse, y)
    low, high = proportion(hits, n)
    if clusters is not None:
        count = partial(np.bincount, minlength=len(places))

        def frequency(rows: NDArray[np.int64]) -> Array:
            among = count(inverse[rows])
            return np.where(among > 0, count(inverse[rows], y[rows]) / np.maximum(among, 1), np.nan)

        values = draws(frequency, clusters, seed=seed)
        mixed = (hits > 0) & (hits < n)
        if mixed.any():
            low[mixed], high[mixed] = np.nanquantile(values[:, mixed], [0.025, 0.975], axis=0)
    return Reliability(np.bincount(inverse, p) / n, hits / n, n, low, high)


@dataclass(frozen=True)
class Brier:
    """score = miscalibration - discrimination + uncertainty, exactly.

    Args:
        score: mean squared difference of probability and label.
        miscalibration: what the best rising recalibration of the same rows would take away, 0 for none.
        discrimination: what that recalibration is better than saying the prevalence of everybody.
        uncertainty: prevalence * (1 - prevalence).
    """

    score: float
    miscalibration: float
    discrimination: float
    uncertainty: float


def brier(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> Brier:
    """Brier score and its parts, without bins.

    Source: Brier 1950; Dimitriadis, Gneiting and Jordan 2021 (CORP), who replace Murphy's bins by isotonic regression.

    Raises:
        ValueError: no rows, or a label or probability out of range.
    """
    y, p = _checked(labels, probabilities)
    w = weighing(weights, len(y))
    w = w / w.sum()
    places, level = pooled(p, y, w)
    fitted = level[np.minimum(np.searchsorted(places, p), len(level) - 1)]
    score, best, base = float(w @ (p - y) ** 2), float(w @ (fitted - y) ** 2), float(w @ y)
    return Brier(score, score - best, base * (1 - base) - best, base * (1 - base))


@dataclass(frozen=True)
class Recalibration:
    """How probabilities would have to change: logit of the truth = intercept + slope * logit of what was said.

    Args:
        slope: 1 is right, below is too extreme, above too timid.
        intercept: beside that slope.
        in_the_large: intercept at slope 1: above 0 where too little was predicted over all.
    """

    slope: float
    intercept: float
    in_the_large: float


def recalibration(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> Recalibration:
    """Calibration slope and intercept; probabilities are held within 1e-6 of 0 and 1, where the logit has no end.

    Source: Cox 1958; Van Calster et al. 2019.

    Raises:
        ValueError: one class only, separated classes, equal probabilities, or a label or probability out of range.
    """
    y, p = _checked(labels, probabilities)
    w = weighing(weights, len(y))
    if len(np.unique(y[w > 0])) < 2:
        raise ValueError(f"recalibration needs both classes, found {int(y.sum())} present of {len(y)}")
    z = logit(np.clip(p, 1e-6, 1 - 1e-6))
    ones = np.ones((len(y), 1))
    intercept, slope = logistic(np.hstack([ones, z[:, None]]), y, w)
    return Recalibration(float(slope), float(intercept), float(logistic(ones, y, w, z)[0]))


def recalibration_of(labels: ArrayLike, probabilities: ArrayLike) -> Weighted:
    """(3,) slope, intercept and calibration in the large as a statistic of draws; NaN where `recalibration` refuses.

    Raises:
        ValueError: a label or probability out of range.
    """
    y, p = _checked(labels, probabilities)
    z = logit(np.clip(p, 1e-6, 1 - 1e-6))

    def of(weights: Array) -> Array:
        out = np.full((len(weights), 3), np.nan)
        step = max(1, BLOCK // len(y))
        for start in range(0, len(weights), step):
            some = slice(start, start + step)
            w = weights[some]
            (low, high), (below, above) = (_range(z, w * part) for part in (y, 1 - y))
            overlap, both = (low < above) & (below < high), np.isfinite(low) & np.isfinite(below)
            out[some][overlap, :2] = _newton(np.stack([z, np.ones_like(z)]), y, w[overlap])
            out[some][both, 2] = _newton(np.ones((1, len(z))), y, w[both], z)[:, 0]
        return out

    return Weighted(of, len(y))


def _range(z: Array, weights: Array) -> tuple[Array, Array]:
    """(D,) lowest and highest value (N,) with weight in each line (D, N); inf and -inf where none has any."""
    return np.where(weights > 0, z, np.inf).min(1), np.where(weights > 0, z, -np.inf).max(1)


def _newton(design: Array, goal: Array, weights: Array, known: Array | float = 0.0) -> Array:
    """(D, K) coefficients of a logistic regression on design (K, N) under each line of weights (D, N); NaN where it has none.

    Plain Newton steps for all lines at once; a line that they do not settle goes to `logistic`, which shortens them.
    """
    beta, k = np.zeros((len(weights), len(design))), len(design)
    squares = (design[:, None] * design).reshape(k * k, -1)
    open_ = np.ones(len(weights), dtype=bool)
    for _ in range(25):
        if not open_.any():
            break
        b, w = beta[open_], weights[open_]
        p = expit(b @ design + known)
        slope, bend = (w * (p - goal)) @ design.T, w * p * (1 - p)
        curvature = (bend @ squares.T).reshape(-1, k, k)
        fit = np.linalg.cond(curvature) < 1e12
        step = np.full_like(b, np.nan)
        step[fit] = np.linalg.solve(curvature[fit], slope[fit][..., None])[..., 0]
        beta[open_] = b - step
        done = ~(np.abs(step).max(1) >= 1e-9 * (1 + np.abs(beta[open_]).max(1)))
        open_[np.flatnonzero(open_)[done]] = False
    for d in np.flatnonzero(open_ | ~np.isfinite(beta).all(1)):
        try:
            beta[d] = logistic(design.T, goal, weights[d], known)
        except ValueError:
            beta[d] = np.nan
    return beta


def _checked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Array, Array]:
    y = binary(labels).astype(np.float64)
    p = numbers(probabilities, len(y), "probabilities")
    if not len(p) or p.min() < 0 or p.max() > 1:
        span = f"from {p.min():g} to {p.max():g}" if len(p) else "none"
        raise ValueError(f"probabilities must lie in [0, 1], found {span}")
    return y, p


def _places(p: Array, bins: int, binning: Binning) -> NDArray[np.int64]:
    """(N,) bin of each probability; equal ones share a bin: that of the middle one."""
    if binning == "width":
        return np.minimum((p * bins).astype(np.int64), bins - 1)
    k = min(bins, len(p))
    sizes = np.full(k, len(p) // k) + (np.arange(k) < len(p) % k)
    ranked = np.sort(p)
    middle = (np.searchsorted(ranked, p, "left") + np.searchsorted(ranked, p, "right") - 1) // 2
    return np.asarray(np.repeat(np.arange(k), sizes)[middle])


def _error(y: Array, p: Array, bins: int, binning: Binning) -> float:
    return float(np.abs(np.bincount(_places(p, bins, binning), y - p)).sum() / len(p))
