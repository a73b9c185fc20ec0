"""How well survival is predicted: concordance, time-dependent AUC, Brier score. Undefined ones raise; nothing is quietly zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.survival.steps import KaplanMeier, checked, kaplan_meier

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Censoring:
    """Probability G of not being censored, for weights of 1 / G.

    Args:
        curve: Kaplan-Meier of censoring.
        tied: an event at t is weighed by G(t-), the chance of being watched up to it ("before"), or by G(t) ("at"), as
            scikit-survival does. They differ only where patients are censored at the time of another's event.
        last: longest follow-up.
    """

    curve: KaplanMeier
    tied: Literal["before", "at"]
    last: float

    def of_events(self, times: Array) -> Array:
        """G at times of events."""
        return self._positive(times, self.curve.before(times) if self.tied == "before" else self.curve.at(times))

    def of_survivors(self, time: float) -> float:
        """G of those who live beyond a time."""
        return float(self._positive(np.array([time]), self.curve.at([time]))[0])

    def _positive(self, times: Array, found: Array) -> Array:
        late = times[(times > self.last) | (found <= 0)]
        if len(late):
            raise ValueError(
                f"nobody was watched at time {late.min():g} (longest follow-up {self.last:g}), so nothing says how many were "
                "censored by then; take an earlier time or tau"
            )
        return found


def censoring(time: ArrayLike, event: ArrayLike, tied: Literal["before", "at"] = "before") -> Censoring:
    """The censoring distribution of patients who are censored as those that are measured.

    In cross-validation these are the training patients, whose times are independent of the errors measured. Where another
    cohort is evaluated, they are that cohort itself: follow-up elsewhere says nothing of how its patients were censored.
    """
    t, e = checked(time, event)
    return Censoring(kaplan_meier(t, e, censoring=True), tied, float(t.max()))


def harrell(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> float:
    """Harrell's C: share of comparable pairs where the higher risk fails first; equal risks count half. O(n log n).

    Args:
        time: (N,) follow-up, any unit.
        event: (N,) bool, True if it happened.
        risk: (N,) higher is worse.

    A pair is comparable where one had the event and the other was followed longer, or as long but censored.

    Raises:
        ValueError: no comparable pair.
    """
    later, lower, equal = _comparable(*columns(time, event, risk))
    if later.sum() == 0:
        raise ValueError("no comparable pair: nobody outlived an observed event")
    return float((lower + equal / 2).sum() / later.sum())


def uno(time: ArrayLike, event: ArrayLike, risk: ArrayLike, known: Censoring, tau: float | None = None) -> float:
    """Uno's C: pairs weighted by 1 / G**2 at the event, which does not depend on how patients were censored.

    Args:
        time: (N,) follow-up of test patients.
        event: (N,) bool.
        risk: (N,) higher is worse.
        known: how patients like these are censored.
        tau: only events before it count.

    Raises:
        ValueError: no comparable pair, or an event when nobody of `known` was watched.

    Source: Uno et al. 2011, Statistics in Medicine 30:1105.
    """
    t, e, r = columns(time, event, risk)
    later, lower, equal = _comparable(t, e, r)
    counted = (later > 0) & (t < np.inf if tau is None else t < tau)
    if not counted.any():
        raise ValueError(f"no comparable pair before {tau}: nobody outlived an observed event")
    weight = known.of_events(t[counted]) ** -2.0
    return float(weight @ (lower + equal / 2)[counted] / (weight @ later[counted]))


def dynamic_auc(time: ArrayLike, event: ArrayLike, risk: ArrayLike, at: ArrayLike, known: Censoring) -> tuple[Array, float]:
    """(T,) AUC of those with the event by each time against those who live beyond it, and their mean over the fall of survival.

    Args:
        time: (N,) follow-up of test patients.
        event: (N,) bool.
        risk: (N,), or (N, T) if it changes with time; higher is worse.
        at: (T,) rising times.
        known: how patients like these are censored.

    Raises:
        ValueError: at one of the times nobody had the event or nobody lived on, or nobody of `known` was watched.

    Source: Uno et al. 2007; Hung and Chiang 2010 (cumulative cases, dynamic controls); mean after Lambert and Chevret 2016.
    """
    t, e = checked(time, event)
    times = np.atleast_1d(np.asarray(at, dtype=np.float64))
    risks = np.broadcast_to(np.asarray(risk, dtype=np.float64).reshape(len(t), -1), (len(t), len(times)))
    values = np.empty(len(times))
    for k, moment in enumerate(times):
        cases, controls = e & (t <= moment), t > moment
        if not (cases.any() and controls.any()):
            raise ValueError(f"AUC at {moment:g} needs events by then and survivors beyond: {cases.sum()} and {controls.sum()}")
        order = np.sort(risks[controls, k])
        below, upto = (np.searchsorted(order, risks[cases, k], side=side) for side in ("left", "right"))
        weight = 1 / known.of_events(t[cases])
        values[k] = weight @ ((below + upto) / 2) / (weight.sum() * len(order))
    fall = -np.diff(np.concatenate([[1.0], kaplan_meier(t, e).at(times)]))
    return values, float(values @ fall / fall.sum()) if len(times) > 1 else float(values[0])


def brier(time: ArrayLike, event: ArrayLike, survival: ArrayLike, at: ArrayLike, known: Censoring) -> Array:
    """(T,) mean squared error of predicted survival (N, T), censored patients made up for by weights; 0 is best.

    Raises:
        ValueError: nobody of `known` was watched at one of the times.

    Source: Graf et al. 1999, Statistics in Medicine 18:2529; weights at events after Gerds and Schumacher 2006.
    """
    t, e = checked(time, event)
    times = np.atleast_1d(np.asarray(at, dtype=np.float64))
    s = np.asarray(survival, dtype=np.float64).reshape(len(t), len(times))
    values = np.empty(len(times))
    for k, moment in enumerate(times):
        dead, alive = e & (t <= moment), t > moment
        error = (s[dead, k] ** 2 / known.of_events(t[dead])).sum()
        if alive.any():
            error += ((1 - s[alive, k]) ** 2).sum() / known.of_survivors(moment)
        values[k] = error / len(t)
    return values


def integrated_brier(time: ArrayLike, event: ArrayLike, survival: ArrayLike, at: ArrayLike, known: Censoring) -> float:
    """Brier score averaged over rising times by the trapezoid rule.

    Raises:
        ValueError: fewer than two times, or `brier` raises.
    """
    times = np.asarray(at, dtype=np.float64)
    if times.ndim != 1 or len(times) < 2 or (np.diff(times) <= 0).any():
        raise ValueError(f"an integral needs two or more rising times, found {times.tolist()}")
    return float(np.trapezoid(brier(time, event, survival, times, known), times) / (times[-1] - times[0]))


def columns(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> tuple[Array, NDArray[np.bool_], Array]:
    """Times, events and risks, (N,) each.

    Raises:
        ValueError: lengths differ, or a time or risk is not a number.
    """
    t, e, r = np.asarray(time, dtype=np.float64), np.asarray(event, dtype=bool), np.asarray(risk, dtype=np.float64)
    if not (t.shape == e.shape == r.shape and t.ndim == 1):
        raise ValueError(f"times {t.shape}, events {e.shape} and risks {r.shape} must be one value each for every patient")
    if np.isnan(t).any() or np.isnan(r).any():
        raise ValueError(
            f"{np.isnan(t).sum()} times and {np.isnan(r).sum()} risks are not numbers; leave those patients out, and say so"
        )
    return t, e, r


def _comparable(time: Array, event: NDArray[np.bool_], risk: Array) -> tuple[Array, Array, Array]:
    """(N,) of each event: how many patients outlived it, how many of them have lower risk, and how many equal; 0 if censored."""
    n = len(time)
    out = np.zeros((3, n))
    order = np.lexsort((event, -time))  # falling time, censored before events of the same time
    rank = np.unique(risk[order], return_inverse=True)[1]
    out[:, order] = _earlier(rank, np.zeros(n, dtype=np.int64))
    # events of the same time are not comparable with each other
    deaths = order[event[order]]
    tie = np.unique(-time[deaths], return_inverse=True)[1]
    out[:, deaths] -= _earlier(rank[event[order]], tie)
    out[:, ~event] = 0
    return out[0], out[1], out[2]


def _earlier(rank: NDArray[np.int64], group: NDArray[np.int64]) -> Array:
    """(3, N): of those of the same group earlier in the array: how many, how many of lower rank, and of equal rank.

    Goes down the bits of the rank: whoever has a 1 passes all earlier ones that agree so far and have a 0.
    """
    n = len(rank)
    counts = np.zeros((3, n))
    if not n:
        return counts
    order = np.argsort(group, kind="stable")
    counts[0, order] = _place(group[order])
    for bit in range(int(rank.max()).bit_length() - 1, -1, -1):
        prefix, one = group[order], (rank[order] >> bit) & 1
        place = _place(prefix)
        zeros = np.cumsum(1 - one) - (1 - one)
        counts[1, order] += one * (zeros - zeros[np.arange(n) - place])
        group = group * 2 + ((rank >> bit) & 1)
        order = order[np.argsort(group[order], kind="stable")]
    counts[2, order] = _place(group[order])
    return counts


def _place(sorted_group: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) how many of the same group stand before each, in an array where groups are together."""
    index = np.arange(len(sorted_group))
    begins = np.concatenate([[True], sorted_group[1:] != sorted_group[:-1]])
    return index - np.maximum.accumulate(np.where(begins, index, 0))
