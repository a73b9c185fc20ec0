"""Whether predicted survival at a fixed time is what happens: in groups against Kaplan-Meier, and as a smooth curve (ICI)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from lifelines import KaplanMeierFitter
from numpy.typing import ArrayLike, NDArray

from medvl.survival.cox import fit_cox
from medvl.survival.steps import checked

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Patients of like prediction: how many, events by then, mean predicted survival, and Kaplan-Meier with its 95 % interval."""

    n: int
    n_events: int
    predicted: float
    observed: float
    low: float
    high: float


def calibration_groups(time: ArrayLike, event: ArrayLike, survival: ArrayLike, at: float, n_groups: int = 5) -> tuple[Group, ...]:
    """Predicted survival against Kaplan-Meier in groups of about equal size, from the lowest prediction up.

    Args:
        time: (N,) follow-up.
        event: (N,) bool.
        survival: (N,) predicted probability of no event by `at`.
        at: the time.
        n_groups: cut at quantiles of the prediction; equal predictions stay together, so there may be fewer.

    Raises:
        ValueError: a group was not followed to that time, or a prediction is no probability.
    """
    t, e, s = _checked(time, event, survival)
    edges = np.unique(np.quantile(s, np.linspace(0, 1, n_groups + 1)[1:-1]))
    place = np.searchsorted(edges, s, side="left")
    groups = []
    for k in np.unique(place):
        inside = place == k
        if t[inside].max() < at and not e[inside][t[inside] == t[inside].max()].all():
            raise ValueError(f"nobody of a group of {inside.sum()} was followed to {at:g}; take an earlier time or fewer groups")
        fitted = KaplanMeierFitter().fit(t[inside], e[inside])
        index = max(fitted.survival_function_.index.searchsorted(at, side="right") - 1, 0)
        low, high = fitted.confidence_interval_survival_function_.iloc[index]
        seen = float(fitted.survival_function_.iloc[index, 0])
        died = int((e & (t <= at))[inside].sum())
        groups.append(Group(int(inside.sum()), died, float(s[inside].mean()), seen, float(low), float(high)))
    return tuple(groups)


def integrated_calibration(time: ArrayLike, event: ArrayLike, survival: ArrayLike, at: float) -> tuple[float, Array]:
    """Mean absolute difference (ICI) of predicted survival and the smooth observed one, and (N,) that observed one.

    The observed one is a Cox model of restricted cubic splines (3 knots) in log(-log(survival)), at time `at`.

    Raises:
        ValueError: predictions hardly differ, or a prediction is no probability.
        ConfigError: no event, or `at` is beyond the follow-up.

    Source: Austin, Harrell and van Klaveren 2020, Statistics in Medicine 39:2714.
    """
    t, e, s = _checked(time, event, survival)
    score = np.log(-np.log(np.clip(s, 1e-10, 1 - 1e-10)))
    knots = np.quantile(score, [0.1, 0.5, 0.9])
    if (np.diff(knots) < 1e-8).any():
        raise ValueError("predictions hardly differ, so they have no calibration curve; compare their mean with Kaplan-Meier")
    x = np.stack([score, _spline(score, knots)], 1)
    seen = fit_cox(x, t, e).survival(x, [at])[:, 0]
    return float(np.abs(seen - s).mean()), seen


def _spline(x: Array, knots: Array) -> Array:
    """Harrell's restricted cubic spline term of three knots: linear beyond the outer ones."""
    a, b, c = knots
    cubes = [np.maximum(x - k, 0) ** 3 for k in (a, b, c)]
    return np.asarray((cubes[0] - cubes[1] * (c - a) / (c - b) + cubes[2] * (b - a) / (c - b)) / (c - a) ** 2)


def _checked(time: ArrayLike, event: ArrayLike, survival: ArrayLike) -> tuple[Array, NDArray[np.bool_], Array]:
    t, e = checked(time, event)
    s = np.asarray(survival, dtype=np.float64)
    if s.shape != t.shape or not ((s >= 0) & (s <= 1)).all():
        raise ValueError(f"predicted survival {s.shape} must be a probability for each of {len(t)} patients")
    return t, e, s
