"""Discrete-time survival: follow-up cut into intervals, one logit of dying in each, on tensors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from medvl.errors import ConfigError


def quantile_cuts(time: ArrayLike, event: ArrayLike, n_intervals: int) -> NDArray[np.float64]:
    """(K + 1,) rising float64 edges of at most `n_intervals` intervals, from 0 to the last event, about as many events in each.

    Args:
        time: (N,) follow-up of training patients; NaN is left out.
        event: (N,) bool.
        n_intervals: wanted; fewer come back where events are too few or tied for distinct edges.

    Raises:
        ConfigError: no interval is wanted, or there is no event after time 0.
    """
    t, e = np.asarray(time, dtype=np.float64), np.asarray(event, dtype=bool)
    happened = t[e & np.isfinite(t) & (t > 0)]
    if n_intervals < 1 or not len(happened):
        raise ConfigError(f"{n_intervals} intervals from {len(happened)} events after time 0: both must be at least 1")
    edges = np.quantile(happened, np.linspace(0, 1, n_intervals + 1)[1:], method="inverted_cdf")
    return np.concatenate([[0.0], np.unique(edges)])


def hazard_targets(time: Tensor, event: Tensor, cuts: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) float targets, 1 in the interval of the event, and (N, K) bool of the intervals a patient tells something of.

    Args:
        time: (N,) follow-up; a row of NaN tells nothing.
        event: (N,) bool.
        cuts: (K + 1,) rising edges; interval k is (cuts[k], cuts[k + 1]], the first takes time 0 in as well.

    An event counts in its interval, and in none after it. A censored patient counts as having survived the intervals it passed
    at least the middle of. So who was censored at time 0 tells nothing, and an event at time 0 is one of the first interval.
    Whoever was followed beyond the last edge survived all intervals, whatever came later.

    Source: Gensheimer and Narasimhan 2019 (PeerJ 7:e6257), equations 3 and 4; their intervals are closed on the left.
    """
    known = ~torch.isnan(time)[:, None]
    cuts = cuts.to(time)
    low, high = cuts[:-1], cuts[1:]
    t, happened = time[:, None], event.bool()[:, None] & known
    first = torch.arange(len(low), device=time.device) == 0
    inside = ((t > low) | (first & (t <= low))) & (t <= high)
    passed = torch.where(happened, t > high, t >= (low + high) / 2)
    died = inside & happened
    return died.to(torch.get_default_dtype()), (passed | died) & known


def discrete_hazard_loss(logits: Tensor, time: Tensor, event: Tensor, cuts: Tensor, weights: Tensor | None = None) -> Tensor:
    """() negative log likelihood of discrete hazards over the (weighted) number of patients who tell something.

    Args:
        logits: (N, K) of dying in interval k, having lived to its begin.
        time: (N,) follow-up; NaN tells nothing.
        event: (N,) bool.
        cuts: (K + 1,) rising edges, as `hazard_targets` takes them.
        weights: (N,) case weights.

    Returns:
        Zero with a gradient of zeros when nobody tells anything.

    Raises:
        ConfigError: the logits do not fit the cuts.
    """
    if logits.ndim != 2 or logits.shape[1] != len(cuts) - 1:
        raise ConfigError(f"logits {tuple(logits.shape)} do not fit {len(cuts) - 1} intervals")
    target, told = hazard_targets(time, event, cuts)
    each = binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    each = torch.where(told, each, 0.0).sum(1)
    mass = told.any(1).to(logits.dtype) * (1.0 if weights is None else weights.to(logits.dtype))
    total = mass.sum()
    return (each * mass).sum() / torch.where(total > 0, total, torch.ones_like(total))
