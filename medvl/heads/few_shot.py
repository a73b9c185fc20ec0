"""Heads for few labels on frozen features, and the curve of what more labels would bring.

Three ways to learn a finding: a linear probe (`probe`), the nearest class mean, and a probe that starts from the prompts: the
zero-shot margin is a column that the ridge hardly holds, so while labels are too few to say better, the prompts' answer stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.evaluation.fractions import FRACTIONS, SEEDS, fraction_subset
from medvl.evaluation.intervals import Statistic, Weighted, bootstrap
from medvl.heads.probe import PENALTIES, LinearProbe, fit_linear_probe

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
HOLD = 1e-6  # share of the ridge that the margin's column feels
FAR = 1e3  # a ridge under which nothing but the margin speaks


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Nearest class mean.

    Args:
        center: (P,) training mean, which is taken off every row before it is brought to unit length.
        means: (C, P) mean of these of each class, of unit length.

    Source: Snell et al. 2017 (prototypes); Wang et al. 2019, arXiv 1911.04623 (centre, then unit length).
    """

    center: Array
    means: Array

    def logits(self, features: ArrayLike) -> Array:
        """(N, C) cosines of features (N, P) with each class: a ranking, not yet a probability."""
        return np.asarray(_unit(np.asarray(features, dtype=np.float64) - self.center) @ self.means.T)


def fit_prototypes(features: ArrayLike, labels: ArrayLike, n_classes: int) -> Prototypes:
    """Means of the classes of labels (N,) from 0; negative labels are left out. Nothing is chosen, so no validation is needed.

    Raises:
        ConfigError: shapes do not fit, a label is beyond C, or a class has no row.
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels).astype(np.int64)
    if x.ndim != 2 or y.shape != (len(x),) or (y >= n_classes).any():
        raise ConfigError(f"features {x.shape} and labels {y.shape} do not fit {n_classes} classes, numbered from 0")
    x, y = x[y >= 0], y[y >= 0]
    sizes = np.bincount(y, minlength=n_classes)
    if not sizes.all():
        raise ConfigError(f"class sizes are {sizes.tolist()}: a class without a row has no mean; take more patients")
    center = x.mean(0)
    rows = _unit(x - center)
    return Prototypes(center, _unit(np.stack([rows[y == c].mean(0) for c in range(n_classes)])))


@dataclass(frozen=True, eq=False)
class PromptedProbe:
    """A probe whose last column is the zero-shot margin."""

    probe: LinearProbe

    def logits(self, features: ArrayLike, margins: ArrayLike) -> Array:
        """(N,) logit of the finding being present, from features (N, P) and zero-shot margins (N,)."""
        return self.probe.logits(_beside(features, margins))[:, 0]


def fit_prompted(
    training: tuple[ArrayLike, ArrayLike, ArrayLike],
    validation: tuple[ArrayLike, ArrayLike, ArrayLike],
    *,
    penalties: Sequence[float] = (*PENALTIES, FAR),
) -> PromptedProbe:
    """Logistic regression whose ridge pulls towards the prompts' answer instead of towards no answer.

    A margin is the embedding along the prompts' direction, so leaving its column (nearly) free makes the ridge act on what the
    weights add to a multiple of that direction. The strongest penalty leaves the zero-shot ranking as it is.

    Args:
        training: features (N, P), labels (N,) of 1, 0 or anything else for not known, and zero-shot margins (N,).
        validation: the same of other patients, on whom the penalty is chosen.
        penalties: ridges to try; the margin's column feels a share `HOLD` of them, so that it cannot run away.

    Raises:
        ConfigError: as `fit_linear_probe`, or margins that are not numbers.
    """
    (x, y, m), (held, y_held, m_held) = training, validation
    rows, kept = _beside(x, m), _beside(held, m_held)
    scales = np.ones(rows.shape[1])
    scales[-1] = HOLD
    one, other = np.asarray(y)[:, None], np.asarray(y_held)[:, None]
    return PromptedProbe(fit_linear_probe((rows, one), (kept, other), "multilabel", 1, penalties=penalties, scales=scales))


@dataclass(frozen=True)
class Point:
    """One share of the labels.

    Args:
        fraction: of the training patients; patients, rows: how many that is, on average over seeds.
        value: mean over seeds; None where no seed could learn.
        ci: 95 % interval of this mean over test patients, the heads held fixed.
        spread: least and greatest of the seeds: what the draw of training patients does.
        seeds: values by seed; refused: by seed, why there is none.
    """

    fraction: float
    patients: float
    rows: float
    value: float | None
    ci: tuple[float, float] | None
    spread: tuple[float, float] | None
    seeds: dict[int, float]
    refused: dict[int, str]


def efficiency(
    patients: ArrayLike,
    learn: Callable[[Rows, float, int], Statistic],
    test_patients: ArrayLike,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = SEEDS,
    labels: ArrayLike | None = None,
    draws: int = 1000,
) -> tuple[Point, ...]:
    """The curve: learn from shares of the training patients, drawn by seed, and measure each on the same test patients.

    Args:
        patients: (N,) of training rows; whole patients are drawn, and a share lies inside each larger one of its seed.
        learn: from row numbers, the fraction and the seed to a statistic of test rows; a ConfigError is a refusal.
        test_patients: (M,) of test rows.
        fractions: of training patients; for all of them there is one draw only.
        seeds: of the draws.
        labels: (N,) to stratify shares by, or None.
        draws: of the bootstrap over test patients.

    Raises:
        ConfigError: as `fraction_subset`.
    """
    who, out = np.asarray(patients), []
    for fraction in fractions:
        found: dict[int, Statistic] = {}
        refused: dict[int, str] = {}
        sizes = []
        for seed in seeds[:1] if fraction == 1 else seeds:
            rows = fraction_subset(who, fraction, seed, labels)
            sizes.append((len(np.unique(who[rows])), len(rows)))
            try:
                found[seed] = learn(rows, fraction, seed)
            except ConfigError as error:
                refused[seed] = str(error)
        out.append(_point(fraction, np.mean(sizes, 0), found, refused, np.asarray(test_patients), draws))
    return tuple(out)


def _point(
    fraction: float, size: Array, found: dict[int, Statistic], refused: dict[int, str], who: NDArray[np.generic], draws: int
) -> Point:
    if not found:
        return Point(fraction, float(size[0]), float(size[1]), None, None, None, {}, refused)
    everyone = np.arange(len(who))
    values = {seed: float(statistic(everyone)) for seed, statistic in found.items()}
    ci = bootstrap(mean_of(list(found.values())), who, n=draws)
    ends = (min(values.values()), max(values.values()))
    return Point(fraction, float(size[0]), float(size[1]), float(np.mean(list(values.values()))), ci, ends, values, refused)


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of statistics of the same rows, on the same draws."""
    quick = [s for s in statistics if isinstance(s, Weighted)]
    if len(quick) == len(statistics):
        return Weighted(lambda weights: np.asarray(np.mean([s.of(weights) for s in quick], axis=0)), quick[0].n)
    return lambda rows: float(np.mean([s(rows) for s in statistics]))


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _beside(features: ArrayLike, margins: ArrayLike) -> Array:
    x, m = np.asarray(features, dtype=np.float64), np.asarray(margins, dtype=np.float64)
    if x.ndim != 2 or m.shape != (len(x),) or not np.isfinite(m).all():
        raise ConfigError(f"features {x.shape} need one finite zero-shot margin each, found {m.shape}; leave unread rows out")
    return np.concatenate([x, m[:, None]], 1)
