"""Is acting on it better than not? Net benefit over thresholds, and what is gained by leaving the doubtful to a person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.evaluation.calibration import Calibration
from medvl.evaluation.intervals import Weighted, bootstrap, draws
from medvl.evaluation.metrics import Array, binary, numbers


@dataclass(frozen=True, eq=False)
class NetBenefit:
    """A decision curve over T thresholds; treating nobody has net benefit 0 everywhere.

    Args:
        thresholds, model, treat_all: (T,) float64; net benefit in true positives per row.
        gain: (T,) model minus the better of all and none, each chosen on these rows.
        low, high: (T,) interval of `model`; gain_low, gain_high: of `gain`; None without clusters.
    """

    thresholds: Array
    model: Array
    treat_all: Array
    gain: Array
    low: Array | None = None
    high: Array | None = None
    gain_low: Array | None = None
    gain_high: Array | None = None

    @property
    def treat_none(self) -> Array:
        """(T,) zeros."""
        return np.zeros_like(self.model)


def net_benefit(
    labels: ArrayLike,
    probabilities: ArrayLike,
    thresholds: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> NetBenefit:
    """Decision curve: TP / N - FP / N * t / (1 - t), where t is the probability from which one would act.

    Args:
        labels: (N,) 0 or 1, of a cohort with the prevalence of use: the curve means little in an enriched one.
        probabilities: (N,) calibrated, in [0, 1].
        thresholds: (T,) in (0, 1); rows at or above are treated.
        clusters: (N,) patient of each row, for pointwise intervals.
        n: draws.
        seed: of the draws.
        level: of the intervals.

    Source: Vickers and Elkin 2006.

    Raises:
        ValueError: no rows, a threshold outside (0, 1), or what `auroc` refuses of labels and probabilities.
    """
    y = binary(labels)
    p, t = numbers(probabilities, len(y), "probabilities"), np.asarray(thresholds, dtype=np.float64).ravel()
    if not len(y) or not ((t > 0) & (t < 1)).all():
        raise ValueError(f"net benefit needs rows and thresholds in (0, 1), found {len(y)} rows and {t.tolist()}")
    odds = t / (1 - t)
    each = np.where(y[:, None], 1.0, -odds)
    treated = each * (p[:, None] >= t)

    def of(weights: Array) -> Array:
        """(D, 3, T): model, treating all, and the gain over the better default."""
        total = weights.sum(1, keepdims=True)
        model, everybody = weights @ treated / total, weights @ each / total
        return np.stack([model, everybody, model - np.maximum(everybody, 0)], 1)

    model, everybody, gain = of(np.ones((1, len(y))))[0]
    if clusters is None:
        return NetBenefit(t, model, everybody, gain)
    values = draws(Weighted(of, len(y)), clusters, n=n, seed=seed)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return NetBenefit(t, model, everybody, gain, low[0], high[0], low[2], high[2])


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Error among the k least doubtful of N rows, for every k.

    Args:
        coverage, risk: (N,) float64, k / N and the share of wrong calls among those.
        area: mean risk over coverages (AURC); excess: above that of a doubt that puts every wrong call last.
        low, high: interval of `area`, None without clusters.
    """

    coverage: Array
    risk: Array
    area: float
    excess: float
    low: float | None = None
    high: float | None = None


def risk_coverage(
    labels: ArrayLike,
    probabilities: ArrayLike,
    doubt: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    threshold: float = 0.5,
    n: int = 1000,
    seed: int = 0,
) -> RiskCoverage:
    """What is gained by leaving the most doubtful rows undecided.

    Args:
        labels: (N,) 0 or 1.
        probabilities: (N,) in [0, 1].
        doubt: (N,) higher is left undecided sooner; rows of equal doubt come in any order, at its expectation.
        clusters: (N,) patient of each row, for an interval of the area.
        threshold: present from here on, from validation.
        n: draws.
        seed: of the draws.

    Source: Geifman and El-Yaniv 2017; Geifman, Uziel and El-Yaniv 2019 (excess).

    Raises:
        ValueError: no rows, or what `auroc` refuses of labels and numbers.
    """
    y = binary(labels)
    wrong = ((numbers(probabilities, len(y), "probabilities") >= threshold) != y).astype(np.float64)
    d = numbers(doubt, len(y), "doubts")
    if not len(y):
        raise ValueError("no rows to decide on; is the cohort empty?")
    risk = _risk(wrong, d)
    area = float(risk.mean())
    excess = area - float(_risk(wrong, wrong).mean())
    k = np.arange(1, len(y) + 1)
    if clusters is None:
        return RiskCoverage(k / len(y), risk, area, excess)
    low, high = bootstrap(lambda rows: float(_risk(wrong[rows], d[rows]).mean()), clusters, n=n, seed=seed)
    return RiskCoverage(k / len(y), risk, area, excess, low, high)


def _risk(wrong: Array, doubt: Array) -> Array:
    """(N,) expected share of wrong calls among the k least doubtful."""
    _, inverse, counts = np.unique(doubt, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, wrong) / counts
    return np.asarray(np.repeat(means, counts).cumsum() / np.arange(1, len(doubt) + 1))


@dataclass(frozen=True)
class Selective:
    """Verdicts at a bundle's threshold and undecided band.

    Args:
        coverage: share of rows with a verdict.
        sensitivity, specificity: among the rows of a class that have a verdict; None where none has.
        undecided_present, undecided_absent: share of each class without a verdict; None for a class without rows.
    """

    n: int
    coverage: float
    sensitivity: float | None
    specificity: float | None
    undecided_present: float | None
    undecided_absent: float | None


def selective(labels: ArrayLike, probabilities: ArrayLike, calibration: Calibration) -> Selective:
    """Sensitivity and specificity where the model commits itself, and how often it does.

    Args:
        labels: (N,) 0 or 1.
        probabilities: (N,) from `calibration`.
        calibration: with threshold and band from validation patients.

    Raises:
        ValueError: no rows, or what `auroc` refuses of labels and probabilities.
    """
    y = binary(labels)
    p = numbers(probabilities, len(y), "probabilities")
    if not len(y):
        raise ValueError("no rows to decide on; is the cohort empty?")
    decided = ~((calibration.low < p) & (p < calibration.high))
    called = p >= calibration.threshold
    return Selective(
        n=len(y),
        coverage=float(decided.mean()),
        sensitivity=_share(called[y & decided]),
        specificity=_share(~called[~y & decided]),
        undecided_present=_share(~decided[y]),
        undecided_absent=_share(~decided[~y]),
    )


def _share(hits: NDArray[np.bool_]) -> float | None:
    return float(hits.mean()) if len(hits) else None
