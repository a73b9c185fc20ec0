"""Step functions of time: the baseline hazard, and the Kaplan-Meier estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Baseline:
    """Cumulative baseline hazard of one stratum.

    Args:
        times: (M,) rising event times.
        hazard: (M,) cumulative, at and after each.
        follow_up: the longest of training; nothing is known beyond.
    """

    times: Array
    hazard: Array
    follow_up: float

    def at(self, times: ArrayLike) -> Array:
        """Cumulative hazard at any times; beyond the follow-up it stays as it was, which is no statement about those times."""
        index = np.searchsorted(self.times, np.asarray(times, dtype=np.float64), side="right")
        return np.concatenate([[0.0], self.hazard])[index]

    def within(self, times: ArrayLike) -> Array:
        """The same, but refuses times that nobody was followed to.

        Raises:
            ConfigError: a time is beyond the follow-up, or not a number.
        """
        asked = np.atleast_1d(np.asarray(times, dtype=np.float64))
        beyond = asked[~(asked <= self.follow_up)]
        if len(beyond):
            raise ConfigError(
                f"survival at {beyond[0]:g} is not known: training patients were followed to {self.follow_up:g} at most"
            )
        return self.at(asked)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"times": self.times.tolist(), "hazard": self.hazard.tolist(), "follow_up": self.follow_up}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Baseline:
        """From `to_json`."""
        return cls(np.array(values["times"], float), np.array(values["hazard"], float), float(values["follow_up"]))


def checked(time: ArrayLike, event: ArrayLike, name: str = "follow-up") -> tuple[Array, NDArray[np.bool_]]:
    """Times float64 and events bool, both (N,).

    Raises:
        ConfigError: lengths differ, nobody is there, a time is negative or not finite, or an event is neither true nor false.
    """
    t, e = np.asarray(time, dtype=np.float64), np.asarray(event)
    if t.ndim != 1 or e.shape != t.shape or not len(t):
        raise ConfigError(f"{name}: times {t.shape} and events {e.shape} must be one value each for one patient or more")
    if not (np.isfinite(t).all() and (t >= 0).all()):
        raise ConfigError(f"{name}: times must be 0 or more, found {t[~(np.isfinite(t) & (t >= 0))][0]}; leave unknown ones out")
    if e.dtype != bool and not np.isin(e, (0, 1)).all():
        raise ConfigError(f"{name}: events must be true or false, found {sorted(set(e.tolist()) - {0, 1}, key=str)[:5]}")
    return t, e.astype(bool)


@dataclass(frozen=True, eq=False)
class KaplanMeier:
    """Product-limit estimate.

    Args:
        times: (M,) rising times with an event.
        survival: (M,) at and after each.
        follow_up: the longest.
    """

    times: Array
    survival: Array
    follow_up: float

    def at(self, times: ArrayLike) -> Array:
        """S(t): probability of no event by t."""
        return np.concatenate([[1.0], self.survival])[np.searchsorted(self.times, np.asarray(times, float), side="right")]

    def before(self, times: ArrayLike) -> Array:
        """S(t-): probability of no event before t."""
        return np.concatenate([[1.0], self.survival])[np.searchsorted(self.times, np.asarray(times, float), side="left")]


def kaplan_meier(time: ArrayLike, event: ArrayLike, *, censoring: bool = False) -> KaplanMeier:
    """Estimate of survival, or of staying uncensored: then who has an event at a time is not at risk of censoring at that time.

    Raises:
        ConfigError: values out of range.
    """
    t, e = checked(time, event)
    moments = np.unique(t)
    edges = np.append(moments, np.inf)
    events, ends = np.histogram(t[e], edges)[0], np.histogram(t, edges)[0]
    at_risk = len(t) - np.concatenate([[0], np.cumsum(ends)[:-1]])
    lost = ends - events if censoring else events
    base = at_risk - events if censoring else at_risk
    drop = np.where(lost > 0, 1 - lost / np.maximum(base, 1), 1.0)
    change = lost > 0
    return KaplanMeier(moments[change], np.asarray(np.cumprod(drop)[change], dtype=np.float64), float(t.max()))
