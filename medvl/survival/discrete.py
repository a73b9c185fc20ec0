"""Discrete-time survival on frozen features: a logistic hazard in each interval of the follow-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from medvl.errors import ConfigError
from medvl.objectives.hazards import discrete_hazard_loss, hazard_targets, quantile_cuts
from medvl.survival.steps import checked

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DiscreteFit:
    """A fitted model.

    Args:
        cuts: (K + 1,) edges of the intervals, 0 to the last event of training.
        bias: (K,) logit of the hazard at the training mean.
        weights: (P, K) or, with proportional odds, (P, 1).
        center: (P,) training means.
        follow_up: longest of training.
        n, n_events: training patients and events.
    """

    cuts: Array
    bias: Array
    weights: Array
    center: Array
    follow_up: float
    n: int
    n_events: int

    def log_survival(self, x: ArrayLike) -> Array:
        """(N, K + 1) log probability of no event by each edge."""
        rows = np.asarray(x, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self.center) or not np.isfinite(rows).all():
            raise ConfigError(f"features {rows.shape} must be finite rows of {len(self.center)} values")
        logits = self.bias + (rows - self.center) @ self.weights
        return np.concatenate([np.zeros((len(rows), 1)), -np.logaddexp(0, logits).cumsum(1)], axis=1)

    def log_hazard(self, x: ArrayLike) -> Array:
        """(N,) log cumulative hazard by the last edge, less that of the training mean; higher is worse."""
        mean = float(np.log(-self.log_survival(self.center[None])[0, -1]))
        return np.asarray(np.log(-self.log_survival(x)[:, -1]) - mean)

    def survival(self, x: ArrayLike, times: ArrayLike) -> Array:
        """(N, T) probability of no event by each of T times; within an interval the hazard is constant, after the last edge 0.

        Raises:
            ConfigError: a time is beyond the follow-up of training.
        """
        asked = np.atleast_1d(np.asarray(times, dtype=np.float64))
        if not (asked <= self.follow_up).all():
            late = asked[~(asked <= self.follow_up)][0]
            raise ConfigError(f"survival at {late:g} is not known: training patients were followed to {self.follow_up:g} at most")
        edges = self.log_survival(x)
        return np.asarray(np.exp(np.array([np.interp(asked, self.cuts, row) for row in edges]).reshape(len(edges), -1)))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        arrays = {k: getattr(self, k).tolist() for k in ("cuts", "bias", "weights", "center")}
        return {**arrays, "follow_up": self.follow_up, "n": self.n, "n_events": self.n_events}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DiscreteFit:
        """From `to_json`."""
        arrays = {k: np.array(values[k], dtype=np.float64) for k in ("cuts", "bias", "weights", "center")}
        return cls(**arrays, follow_up=float(values["follow_up"]), n=int(values["n"]), n_events=int(values["n_events"]))


def fit_discrete(
    x: ArrayLike, time: ArrayLike, event: ArrayLike, *, penalty: float, n_intervals: int = 10, proportional: bool = True
) -> DiscreteFit:
    """Minimise the discrete hazard loss + penalty * sum(weights**2) / 2; biases are free.

    Args:
        x: (N, P) finite features, on the scale on which the penalty should act.
        time: (N,) follow-up of 0 and more.
        event: (N,) bool.
        penalty: ridge per patient who tells something, above 0 or, where nothing separates the events, 0.
        n_intervals: wanted, cut at quantiles of the event times.
        proportional: one weight a feature, the odds ratio in all intervals; else one in every interval.

    Raises:
        ConfigError: values out of range, no event after time 0, or no minimum was found.

    Source: Gensheimer and Narasimhan 2019; curves between edges after Kvamme and Borgan 2021 (constant hazard interpolation).
    """
    t, e = checked(time, event)
    rows = np.asarray(x, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(t) or not np.isfinite(rows).all():
        raise ConfigError(f"features {rows.shape} must be finite rows for {len(t)} patients; fill in what is missing first")
    if not (np.isfinite(penalty) and penalty >= 0):
        raise ConfigError(f"a penalty must be 0 or more, found {penalty}")
    cuts = quantile_cuts(t, e, n_intervals)
    center, k, p = rows.mean(0), len(cuts) - 1, rows.shape[1]
    data = [torch.from_numpy(v) for v in (rows - center, t, e, cuts)]
    size = p if proportional else p * k

    def value(flat: Array) -> tuple[float, Array]:
        leaf = torch.from_numpy(flat).requires_grad_()
        bias, weights = leaf[:k], leaf[k:].reshape(p, -1) if size else leaf.new_zeros(0, 1)
        loss = discrete_hazard_loss(bias + data[0] @ weights, *data[1:]) + penalty / 2 * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item(), leaf.grad.numpy().copy()  # type: ignore[union-attr]

    start = np.concatenate([_marginal(*data[1:]), np.zeros(size)])
    options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    found = minimize(value, start, jac=True, method="L-BFGS-B", options=options)
    if not np.isfinite(found.fun) or np.abs(found.jac).max() > 1e-4:
        raise ConfigError(f"no minimum of the hazards' loss was found ({found.message}); give a larger penalty than {penalty}")
    weights = found.x[k:].reshape(p, -1) if size else np.zeros((0, 1))
    return DiscreteFit(cuts, found.x[:k], weights, center, float(t.max()), len(t), int(e.sum()))


def _marginal(time: torch.Tensor, event: torch.Tensor, cuts: torch.Tensor) -> Array:
    """(K,) logit of each interval's share of deaths, kept off 0 and 1."""
    target, told = hazard_targets(time, event, cuts)
    share = ((target.sum(0) + 0.5) / (told.sum(0) + 1)).double().numpy()
    return np.asarray(np.log(share / (1 - share)))
