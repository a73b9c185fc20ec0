"""From similarities to probabilities and verdicts, fitted on validation patients and only applied elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression
from scipy.special import expit, log_expit, logit
from scipy.stats import norm

from medvl.evaluation.intervals import Clusters, draws
from medvl.evaluation.metrics import Array, binary, numbers, weighing

Verdict = Literal["present", "absent", "undecided"]
Method = Literal["platt", "temperature", "isotonic"]
Target = Literal["youden", "sensitivity", "specificity"]
UNDECIDED_SHARE = 0.08
LEAST_SLOPE = 1e-6


@dataclass(frozen=True)
class Calibration:
    """The probability of one finding and its operating point.

    Args:
        slope, offset: probability = sigmoid(slope * margin + offset), margin = cosine with present minus with absent prompts.
        threshold: probability that separates present from absent.
        low, high: between them the verdict is undecided.
        n_present, n_absent: validation regions it was fitted on.
        method: `platt`, `temperature` (offset 0), or `isotonic`, which goes by `knots` instead of slope and offset.
        knots: ascending (margin, probability), joined by straight lines and level beyond the ends.
        covariance: variance of slope, covariance, variance of offset, over patients; None where not fitted.
        band: (low, high) at each knot, over patients; empty where not fitted.
    """

    slope: float
    offset: float
    threshold: float
    low: float
    high: float
    n_present: int
    n_absent: int
    method: Method = "platt"
    knots: tuple[tuple[float, float], ...] = ()
    covariance: tuple[float, float, float] | None = None
    band: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Lists, as JSON has them, become tuples."""
        for name in ("knots", "band"):
            object.__setattr__(self, name, tuple((float(a), float(b)) for a, b in getattr(self, name)))
        if self.covariance is not None:
            a, b, c = self.covariance
            object.__setattr__(self, "covariance", (float(a), float(b), float(c)))
        if self.method not in ("platt", "temperature", "isotonic") or (self.method == "isotonic") != bool(self.knots):
            raise ValueError(f"calibration method {self.method!r} with {len(self.knots)} knots; only isotonic has knots")

    def probability(self, margin: ArrayLike) -> NDArray[np.float64]:
        """Probabilities in [0, 1] of margins, any shape; never falling with the margin."""
        x = np.asarray(margin, dtype=np.float64)
        if self.knots:
            return np.asarray(np.interp(x, *np.transpose(self.knots)))
        return np.asarray(expit(self.slope * x + self.offset))

    def interval(self, margin: float, level: float = 0.95) -> tuple[float, float] | None:
        """Where the probability of a margin would lie for other validation patients; None where not fitted (no `clusters`).

        Delta method on the logit for `platt` and `temperature`; for `isotonic` the stored band, at 95 % whatever `level`.
        """
        x = float(margin)
        if self.band:
            places = [knot[0] for knot in self.knots]
            low, high = (float(np.interp(x, places, side)) for side in np.transpose(self.band))
            return low, high
        if self.covariance is None:
            return None
        a, b, c = self.covariance
        reach = float(norm.ppf((1 + level) / 2)) * max(a * x * x + 2 * b * x + c, 0.0) ** 0.5
        z = self.slope * x + self.offset
        return float(expit(z - reach)), float(expit(z + reach))

    def verdict(self, probability: float) -> Verdict:
        """Present, absent or undecided."""
        if self.low < probability < self.high:
            return "undecided"
        return "present" if probability >= self.threshold else "absent"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what was not fitted is left out."""
        plain = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != plain[name]}


def calibrate(
    labels: ArrayLike,
    margins: ArrayLike,
    method: Method = "platt",
    *,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    target: Target = "youden",
    at: float = 0.95,
    undecided_share: float = UNDECIDED_SHARE,
    seed: int = 0,
) -> Calibration:
    """Fit probabilities, threshold and undecided band on validation data.

    All methods fit Platt's smoothed targets (present (n1 + 1) / (n1 + 2), absent 1 / (n0 + 2)), so no probability is 0 or 1.

    Args:
        labels: (N,) 0 or 1.
        margins: (N,) present minus absent similarity.
        method: `platt` (slope and offset; the slope is kept positive, so that the order of scores never turns), `temperature`
            (slope only; for margins that are logits already), or `isotonic` (any rising curve; wants many regions).
        weights: (N,) of regions.
        clusters: (N,) patient of each region; if given, `Calibration.interval` is fitted too.
        target: what the threshold maximises or holds: `youden` sensitivity + specificity - 1; `sensitivity`, the highest
            threshold that keeps it at `at` or more; `specificity`, the lowest that does.
        at: of `target`, in (0, 1].
        undecided_share: of validation regions, those whose logits lie nearest to the threshold.
        seed: of the draws for the isotonic band.

    Source: Platt 1999; Guo et al. 2017 (temperature); Zadrozny and Elkan 2002 (isotonic).

    Raises:
        ValueError: fewer than five of a class, margins that never vary or are not numbers, or `at` outside (0, 1].
    """
    y = binary(labels)
    x, w = numbers(margins, len(y), "margins"), weighing(weights, len(y))
    n1, n0 = int(y.sum()), int((~y).sum())
    if min(n0, n1) < 5:
        raise ValueError(f"calibration needs at least 5 of each class, found {n1} present and {n0} absent")
    w = w / w.mean()
    m1, m0 = float(w[y].sum()), float(w[~y].sum())
    goal = np.where(y, (m1 + 1) / (m1 + 2), 1 / (m0 + 2))
    fitted: dict[str, Any] = {"method": method}
    fitted["slope"], fitted["offset"], moved = _sigmoid(x, goal, w, with_offset=method != "temperature")
    if method == "isotonic":
        fitted["knots"] = _curve(x, goal, w)
        if clusters is not None:
            fitted["band"] = _band(x, goal, w, clusters, [knot[0] for knot in fitted["knots"]], seed)
    elif clusters is not None and moved:
        fitted["covariance"] = _sandwich(x, goal, w, fitted["slope"], fitted["offset"], clusters, method != "temperature")
    p = Calibration(threshold=0.5, low=0.5, high=0.5, n_present=n1, n_absent=n0, **fitted).probability(x)
    threshold = _threshold(y, p, w, target, at)
    distance = np.abs(logit(np.clip(p, 1e-9, 1 - 1e-9)) - logit(threshold))
    reach = float(np.quantile(distance, undecided_share))
    low, high = (float(expit(logit(threshold) + side * reach)) for side in (-1, 1))
    return Calibration(threshold=threshold, low=low, high=high, n_present=n1, n_absent=n0, **fitted)


def logistic(design: Array, goal: Array, weights: Array, known: Array | float = 0.0) -> Array:
    """(K,) coefficients of a logistic regression without penalty, by Newton steps.

    Args:
        design: (N, K), of columns about 1 in size.
        goal: (N,) in [0, 1].
        weights: (N,).
        known: (N,) added to the logit (offset).

    Raises:
        ValueError: it does not converge: the classes are separated, or columns depend on each other.
    """
    beta = np.zeros(design.shape[1])

    def loss(b: Array) -> float:
        z = design @ b + known
        return float(-(weights * (goal * log_expit(z) + (1 - goal) * log_expit(-z))).sum())

    now = loss(beta)
    for _ in range(100):
        p = expit(design @ beta + known)
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design
        try:
            step = np.linalg.solve(curvature, design.T @ (weights * (p - goal)))
        except np.linalg.LinAlgError:
            break
        size = 1.0
        while (after := loss(beta - size * step)) > now + 1e-12 * abs(now) and size > 1e-8:
            size /= 2
        beta, now = beta - size * step, after
        if np.abs(step).max() < 1e-9 * (1 + np.abs(beta).max()):
            return beta
    raise ValueError("the logistic fit has no finite answer: the classes are separated, or the scores never vary")


def _sigmoid(x: Array, goal: Array, w: Array, *, with_offset: bool) -> tuple[float, float, bool]:
    """Slope, offset, and whether the slope was free to move (not held above zero)."""
    spread = float(x.std() if with_offset else np.sqrt((x * x).mean()))
    if spread < 1e-12:
        raise ValueError("every margin is the same; there is nothing to calibrate")
    ones = np.ones((len(x), 1))
    scaled = x[:, None] / spread
    if with_offset:
        centre = float(x.mean()) / spread
        slope, offset = logistic(np.hstack([scaled - centre, ones]), goal, w)
        if slope > LEAST_SLOPE:
            return float(slope) / spread, float(offset - slope * centre), True
        held = LEAST_SLOPE * scaled[:, 0]
        return LEAST_SLOPE / spread, float(logistic(ones, goal, w, held)[0]), False
    slope = float(logistic(scaled, goal, w)[0])
    return max(slope, LEAST_SLOPE) / spread, 0.0, slope > LEAST_SLOPE


def _sandwich(
    x: Array, goal: Array, w: Array, slope: float, offset: float, clusters: ArrayLike, with_offset: bool
) -> tuple[float, float, float]:
    """Covariance of slope and offset over patients (Liang and Zeger 1986), times G / (G - 1)."""
    groups = Clusters(clusters)
    if groups.n_rows != len(x) or groups.n < 2:
        raise ValueError(
            f"{groups.n_rows} patients' rows, {groups.n} patients, for {len(x)} margins; give one for each, two at least"
        )
    design = np.stack([x, np.ones(len(x))], 1)[:, : 1 + with_offset]
    p = expit(slope * x + offset)
    bread = np.linalg.inv((design * (w * p * (1 - p))[:, None]).T @ design)
    each = design * (w * (p - goal))[:, None]
    sums = np.stack([np.bincount(groups.inverse, column, groups.n) for column in each.T], 1)
    found = np.zeros((2, 2))
    found[: 1 + with_offset, : 1 + with_offset] = bread @ (sums.T @ sums) @ bread * groups.n / (groups.n - 1)
    return float(found[0, 0]), float(found[0, 1]), float(found[1, 1])


def pooled(x: Array, goal: Array, w: Array) -> tuple[Array, Array]:
    """Ascending distinct (K,) values and the rising (K,) curve that fits best in squares; ties are one point."""
    places, inverse = np.unique(x, return_inverse=True)
    weight = np.bincount(inverse, w)
    kept = weight > 0
    means = np.bincount(inverse, w * goal)[kept] / weight[kept]
    return places[kept], np.asarray(isotonic_regression(means, weights=weight[kept]).x)


def _curve(x: Array, goal: Array, w: Array) -> tuple[tuple[float, float], ...]:
    """Knots of the rising curve: the ends of each level stretch."""
    places, level = pooled(x, goal, w)
    inner = (level[1:-1] == level[:-2]) & (level[1:-1] == level[2:])
    kept = np.concatenate([[True], ~inner, [True]])[: len(level)]
    return tuple((float(a), float(b)) for a, b in zip(places[kept], level[kept], strict=True))


def _band(
    x: Array, goal: Array, w: Array, clusters: ArrayLike, places: list[float], seed: int
) -> tuple[tuple[float, float], ...]:
    """95 % percentiles at the knots, refitted on draws of patients."""

    def refit(rows: NDArray[np.int64], at: Array) -> Array:
        return np.asarray(np.interp(at, *pooled(x[rows], goal[rows], w[rows])))

    values = draws(partial(refit, at=np.array(places)), clusters, n=200, seed=seed)
    return tuple((float(a), float(b)) for a, b in np.quantile(values, [0.025, 0.975], axis=0).T)


def _threshold(y: NDArray[np.bool_], p: Array, w: Array, target: Target, at: float) -> float:
    """The cut, midway between neighbouring probabilities, that `target` asks for."""
    if not 0 < at <= 1:
        raise ValueError(f"a threshold cannot hold {target} at {at}; give a share in (0, 1]")
    places, inverse = np.unique(p, return_inverse=True)
    present, absent = np.bincount(inverse, w * y), np.bincount(inverse, w * ~y)
    specificity = np.concatenate([[0.0], absent.cumsum() / absent.sum()])
    sensitivity = 1 - np.concatenate([[0.0], present.cumsum() / present.sum()])
    middle = (places[1:] + places[:-1]) / 2
    cuts = np.concatenate([[1e-6], np.where(middle > places[:-1], middle, places[1:]), [1 - 1e-6]])
    if target == "youden":
        k = int((sensitivity + specificity)[1:-1].argmax()) + 1 if len(places) > 1 else 0
    elif target == "sensitivity":
        k = int(np.flatnonzero(sensitivity >= at - 1e-12)[-1])
    else:
        k = int(np.flatnonzero(specificity >= at - 1e-12)[0])
    return float(np.clip(cuts[k], 1e-6, 1 - 1e-6))
