"""From similarities to probabilities and verdicts, fitted on validation patients and only applied elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

Verdict = Literal["present", "absent", "undecided"]
UNDECIDED_SHARE = 0.08


@dataclass(frozen=True)
class Calibration:
    """Platt scaling of one finding and its operating point.

    Args:
        slope, offset: probability = sigmoid(slope * margin + offset), margin = cosine with present minus with absent prompts.
        threshold: probability that separates present from absent.
        low, high: between them the verdict is undecided.
        n_present, n_absent: validation regions it was fitted on.
    """

    slope: float
    offset: float
    threshold: float
    low: float
    high: float
    n_present: int
    n_absent: int

    def probability(self, margin: ArrayLike) -> NDArray[np.float64]:
        """Probabilities in [0, 1] of margins, any shape."""
        return np.asarray(expit(self.slope * np.asarray(margin, dtype=np.float64) + self.offset))

    def verdict(self, probability: float) -> Verdict:
        """Present, absent or undecided."""
        if self.low < probability < self.high:
            return "undecided"
        return "present" if probability >= self.threshold else "absent"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def calibrate(labels: ArrayLike, margins: ArrayLike) -> Calibration:
    """Fit scaling, threshold and undecided band on validation data.

    The threshold maximises sensitivity + specificity - 1 (Youden). The band holds the `UNDECIDED_SHARE` of validation regions
    whose logits lie nearest to it.

    Args:
        labels: (N,) 0 or 1.
        margins: (N,) present minus absent similarity.

    Source: Platt 1999, with his smoothed targets; the slope is kept positive, so that the order of scores never turns.

    Raises:
        ValueError: fewer than five of a class.
    """
    y, x = np.asarray(labels, dtype=np.float64), np.asarray(margins, dtype=np.float64)
    n1 = int(y.sum())
    n0 = len(y) - n1
    if min(n0, n1) < 5:
        raise ValueError(f"calibration needs at least 5 of each class, found {n1} present and {n0} absent")
    target = np.where(y == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    spread = max(float(x.std()), 1e-6)

    def loss(p: NDArray[np.float64]) -> float:
        z = np.exp(p[0]) / spread * x + p[1]
        return float(-(target * log_expit(z) + (1 - target) * log_expit(-z)).mean())

    best = minimize(
        loss,
        np.array([0.0, -float(x.mean() / spread)]),
        method="Nelder-Mead",
        options={"maxiter": 2000, "xatol": 1e-5, "fatol": 1e-9},
    )
    slope, offset = float(np.exp(best.x[0]) / spread), float(best.x[1])
    p = expit(slope * x + offset)
    threshold = _youden(y, p)
    distance = np.abs(logit(np.clip(p, 1e-9, 1 - 1e-9)) - logit(threshold))
    reach = float(np.quantile(distance, UNDECIDED_SHARE))
    low, high = expit(logit(threshold) - reach), expit(logit(threshold) + reach)
    return Calibration(slope, offset, threshold, float(low), float(high), n1, n0)


def _youden(y: NDArray[np.float64], p: NDArray[np.float64]) -> float:
    """The cut, midway between neighbouring scores, with the best sensitivity + specificity."""
    order = np.argsort(p)
    ranked, labels = p[order], y[order]
    absent_below = np.cumsum(labels == 0) / max((labels == 0).sum(), 1)
    present_above = 1 - np.cumsum(labels == 1) / max((labels == 1).sum(), 1)
    gain = (absent_below + present_above)[:-1]
    gain[ranked[1:] == ranked[:-1]] = -1
    k = int(gain.argmax())
    return float(np.clip((ranked[k] + ranked[k + 1]) / 2, 1e-6, 1 - 1e-6))


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> float:
    """Mean gap between probability and frequency over equally filled bins, weighted by their size."""
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    parts = np.array_split(np.argsort(p, kind="stable"), min(bins, len(p)))
    return float(sum(len(part) * abs(y[part].mean() - p[part].mean()) for part in parts) / len(p))
