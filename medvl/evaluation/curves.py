"""Curves of one finding as plain lists for a results file, thinned to what a figure can show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from medvl.evaluation.decisions import net_benefit, risk_coverage
from medvl.evaluation.estimates import estimate
from medvl.evaluation.intervals import Draws
from medvl.evaluation.reliability import (
    ece_interval,
    error_by_chance,
    expected_calibration_error,
    recalibration,
    recalibration_of,
    reliability,
)

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
POINTS = 101
THRESHOLDS = np.round(np.arange(0.01, 1.0, 0.01), 2)


def plain(values: Array, digits: int = 4) -> list[float]:
    """Rounded floats for JSON."""
    return [round(float(v), digits) for v in values]


def roc_points(labels: Labels, probability: Array) -> dict[str, list[float]]:
    """False and true positive rate at every distinct score from the highest down, from (0, 0) to (1, 1)."""
    order = np.argsort(-probability, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(probability[order]) != 0, True])
    y = labels[order]
    tpr, fpr = (np.concatenate([[0.0], np.cumsum(part)[ends] / part.sum()]) for part in (y == 1, y == 0))
    turn = _corners(fpr, tpr)
    return {"fpr": plain(fpr[turn]), "tpr": plain(tpr[turn])}


def _corners(x: Array, y: Array) -> NDArray[np.int64]:
    """Points where the curve turns; those between lie on straight lines."""
    if len(x) < 3:
        return np.arange(len(x))
    before, after = np.diff(np.stack([x, y]))[:, :-1], np.diff(np.stack([x, y]))[:, 1:]
    straight = np.isclose(before[0] * after[1], before[1] * after[0], atol=1e-12)
    return np.concatenate([[0], np.flatnonzero(~straight) + 1, [len(x) - 1]])


def calibration_of(labels: Labels, probability: Array, patients: NDArray[np.str_], bins: int, draws: Draws) -> dict[str, Any]:
    """Expected calibration error with its interval and what chance alone gives, slope and intercept, reliability curve."""
    n, seed = len(draws.counts), draws.seed
    value = expected_calibration_error(labels, probability, bins)
    low, high = ece_interval(labels, probability, patients, bins=bins, n=n, seed=seed)
    usual, most = error_by_chance(probability, bins, seed=seed)
    ece = {"value": round(value, 4), "ci": [round(low, 4), round(high, 4)]}
    ece |= {"if_calibrated": round(usual, 4), "if_calibrated_95": round(most, 4)}
    curve = reliability(labels, probability, bins, clusters=patients, seed=seed)
    points = {name: plain(getattr(curve, name)) for name in ("mean_probability", "frequency", "low", "high")}
    again = _recalibration(labels, probability, patients, draws)
    return {"ece": ece, "recalibration": again, "reliability": {**points, "n": curve.n.tolist()}}


def _recalibration(labels: Labels, probability: Array, patients: NDArray[np.str_], draws: Draws) -> dict[str, Any]:
    """Slope, intercept and calibration in the large with their intervals; NA with its reason."""
    try:
        recalibration(labels, probability)
    except ValueError as error:
        return {"na": str(error)}
    values = draws.values(recalibration_of(labels, probability), patients)
    return {name: estimate(values[:, k], 3) for k, name in enumerate(("slope", "intercept", "in_the_large"))}


def decision_curve(labels: Labels, probability: Array, patients: NDArray[np.str_], draws: int, seed: int) -> dict[str, Any]:
    """Net benefit of the model and of treating all, at thresholds of 1 to 99 %; pointwise interval of the model over patients."""
    found = net_benefit(labels, probability, THRESHOLDS, patients, n=draws, seed=seed)
    told = {name: plain(getattr(found, name)) for name in ("model", "low", "high", "treat_all")}
    return {"threshold": plain(THRESHOLDS, 2), **told}


def risk_coverage_curve(labels: Labels, probability: Array, threshold: float) -> dict[str, Any]:
    """Errors among the answers that lie farthest from the threshold (in logits), for rising shares of answers."""
    doubt = -np.abs(logit(np.clip(probability, 1e-9, 1 - 1e-9)) - logit(threshold))
    found = risk_coverage(labels, probability, doubt, threshold=threshold)
    keep = np.unique(np.linspace(0, len(found.coverage) - 1, min(POINTS, len(found.coverage))).astype(int))
    told = {"coverage": plain(found.coverage[keep]), "error": plain(found.risk[keep])}
    return told | {"area": round(found.area, 4), "excess": round(found.excess, 4)}
