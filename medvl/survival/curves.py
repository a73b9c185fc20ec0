"""Curves of groups: Kaplan-Meier with intervals and numbers at risk, log-rank, cumulative incidence, and a figure of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.survival.steps import checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
COLOURS = ("#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
NAMES: Mapping[int, tuple[str, ...]] = {2: ("low", "high"), 3: ("low", "medium", "high")}


@dataclass(frozen=True)
class RiskGroups:
    """Cuts of a risk score, from validation patients.

    Args:
        cuts: rising; a risk equal to a cut is in the lower group.
        names: from the lowest risk to the highest.
    """

    cuts: tuple[float, ...]
    names: tuple[str, ...]

    def assign(self, risk: ArrayLike) -> NDArray[np.str_]:
        """(N,) name of the group of each risk."""
        return np.array(self.names)[np.searchsorted(self.cuts, np.asarray(risk, dtype=np.float64), side="left")]


def risk_groups(validation_risk: ArrayLike, n_groups: int = 3) -> RiskGroups:
    """Cuts at equal shares of VALIDATION risks (2 groups: the median, 3: tertiles); never pass those of the test.

    Raises:
        ConfigError: fewer than 2 groups, or so many equal risks that a group would be empty.
    """
    risk = np.asarray(validation_risk, dtype=np.float64)
    cuts = np.quantile(risk, np.linspace(0, 1, n_groups + 1)[1:-1]) if n_groups > 1 and len(risk) else np.zeros(0)
    groups = np.searchsorted(cuts, risk, side="left")
    if not len(cuts) or len(np.unique(groups)) < n_groups:
        raise ConfigError(f"{len(np.unique(risk))} different risks of {len(risk)} patients do not make {n_groups} groups")
    return RiskGroups(tuple(float(c) for c in cuts), NAMES.get(n_groups, tuple(f"group {k + 1}" for k in range(n_groups))))


@dataclass(frozen=True, eq=False)
class Curve:
    """Kaplan-Meier of one group.

    Args:
        times: (M,) from 0; survival, low, high: (M,) at and after each, interval by log(-log).
        censored: (C,) times of those not seen to have the event.
        n, n_events: of the group.
        median: time at which survival falls to a half, infinite if it does not.
        followed: (N,) all follow-up times, sorted.
    """

    times: Array
    survival: Array
    low: Array
    high: Array
    censored: Array
    n: int
    n_events: int
    median: float
    followed: Array

    def at_risk(self, times: ArrayLike) -> NDArray[np.int64]:
        """How many were still followed just before each time."""
        return len(self.followed) - np.searchsorted(self.followed, np.asarray(times, dtype=np.float64), side="left")

    def at(self, times: ArrayLike) -> tuple[Array, Array, Array]:
        """Survival and its interval at any times."""
        index = np.searchsorted(self.times, np.asarray(times, dtype=np.float64), side="right") - 1
        return self.survival[index], self.low[index], self.high[index]


def curve(time: ArrayLike, event: ArrayLike, level: float = 0.95) -> Curve:
    """Kaplan-Meier of one group.

    Raises:
        ConfigError: nobody is in it, or values are out of range.
    """
    t, e = checked(time, event)
    fitted = KaplanMeierFitter(alpha=1 - level).fit(t, e)
    bounds = fitted.confidence_interval_survival_function_.to_numpy()
    values = fitted.survival_function_
    return Curve(
        values.index.to_numpy(dtype=np.float64),
        values.iloc[:, 0].to_numpy(),
        bounds[:, 0],
        bounds[:, 1],
        np.sort(t[~e]),
        len(t),
        int(e.sum()),
        float(fitted.median_survival_time_),
        np.sort(t),
    )


def log_rank(time: ArrayLike, event: ArrayLike, group: ArrayLike) -> tuple[float, float]:
    """Chi-squared and p that all groups have one survival curve.

    Raises:
        ValueError: fewer than two groups, or no event.
    """
    t, e = checked(time, event)
    names = np.asarray(group).astype(str)
    if len(np.unique(names)) < 2 or not e.any():
        raise ValueError(f"log-rank needs two groups and an event, found {len(np.unique(names))} and {int(e.sum())}")
    found = multivariate_logrank_test(t, names, e)
    return float(found.test_statistic), float(found.p_value)


def cumulative_incidence(time: ArrayLike, cause: ArrayLike, of: int, at: ArrayLike) -> Array:
    """(T,) probability of an event of cause `of` by each time, when others (positive numbers; 0 is censored) can come first.

    One minus Kaplan-Meier, with the others as censored, is larger: it speaks of a world where nobody dies of anything else.

    Raises:
        ConfigError: values out of range.

    Source: Aalen and Johansen 1978.
    """
    kinds = np.asarray(cause)
    t, any_event = checked(time, kinds > 0)
    moments = np.unique(t[any_event])
    index = np.searchsorted(moments, t[any_event])
    total = np.bincount(index, minlength=len(moments))
    ours = np.bincount(index, kinds[any_event] == of, len(moments))
    at_risk = len(t) - np.searchsorted(np.sort(t), moments, side="left")
    before = np.concatenate([[1.0], np.cumprod(1 - total / at_risk)[:-1]])
    steps = np.concatenate([[0.0], np.cumsum(before * ours / at_risk)])
    return steps[np.searchsorted(moments, np.asarray(at, dtype=np.float64), side="right")]


def draw_groups(
    path: Path,
    curves: Mapping[str, Curve],
    *,
    title: str,
    p: float | None = None,
    unit: str = "days",
    ticks: Sequence[float] | None = None,
) -> None:
    """Write `figure_of_groups` to a file, whose ending says the format; other arguments as there."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = figure_of_groups(curves, title=title, p=p, unit=unit, ticks=ticks)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150)


def figure_of_groups(
    curves: Mapping[str, Curve],
    *,
    title: str = "",
    p: float | None = None,
    unit: str = "days",
    ticks: Sequence[float] | None = None,
    colours: Sequence[str] = COLOURS,
) -> Figure:
    """Survival curves with their intervals, censoring marks and the numbers at risk below.

    Args:
        curves: by name of the group, in order of risk.
        title: of the figure.
        p: of the log-rank test; shown if given.
        unit: of the times.
        ticks: times to mark and count at; by default six from 0 to the longest follow-up.
        colours: of the groups.
    """
    from matplotlib.figure import Figure

    longest = max(float(c.followed[-1]) for c in curves.values())
    marks = list(ticks) if ticks is not None else _round_ticks(longest)
    figure = Figure(figsize=(6.4, 4.0 + 0.48 * len(curves)), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[10, 0.6 + len(curves)])
    for row, (name, c) in enumerate(curves.items()):
        colour = colours[row % len(colours)]
        top.step(c.times, c.survival, where="post", color=colour, label=f"{name} (n = {c.n}, events {c.n_events})")
        top.fill_between(c.times, c.low, c.high, step="post", color=colour, alpha=0.15, linewidth=0)
        if len(c.censored):
            top.plot(c.censored, c.at(c.censored)[0], "|", color=colour, markersize=5)
        below.text(-0.015, row, name, color=colour, ha="right", va="center", transform=below.get_yaxis_transform())
        for x, count in zip(marks, c.at_risk(marks), strict=True):
            below.text(x, row, str(count), ha="center", va="center", fontsize=9)
    top.set(ylim=(0, 1.02), xlim=(-0.02 * longest, 1.02 * longest), ylabel="survival")
    if title:
        figure.suptitle(title)
    told = None if p is None else "log-rank p < 0.0001" if p < 1e-4 else f"log-rank p = {p:.2g}"
    top.legend(
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        fontsize=9,
        title=told,
        title_fontsize=9,
        alignment="left",
    )
    below.set(ylim=(len(curves) - 0.5, -0.5), xlabel=f"time, {unit}", xticks=marks, yticks=[])
    below.set_title("number at risk", loc="left", fontsize=9)
    for axis, sides in ((top, ("top", "right")), (below, ("top", "right", "left"))):
        axis.spines[list(sides)].set_visible(False)
    return figure


def _round_ticks(longest: float) -> list[float]:
    """About six round times from 0."""
    rough = longest / 5
    size = 10 ** np.floor(np.log10(max(rough, 1e-9)))
    step = next(size * k for k in (1, 2, 2.5, 5, 10) if size * k >= rough * 0.85)
    return [float(v) for v in np.arange(0, longest * 1.001, step)]
