"""Cox's partial likelihood on tensors, in log space: Breslow's and Efron's ties, strata, case weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from medvl.errors import ConfigError

Ties = Literal["breslow", "efron"]


def cox_negative_log_likelihood(
    risk: Tensor,
    time: Tensor,
    event: Tensor,
    *,
    ties: Ties = "breslow",
    strata: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """() negative log partial likelihood over the (weighted) number of events.

    Args:
        risk: (N,) log hazard ratios, higher is worse.
        time: (N,) follow-up; rows where it is NaN (the endpoint is not known) are left out.
        event: (N,) bool, True if it happened. An event at follow-up 0 counts like any other.
        ties: what is done with events at the same time.
        strata: (N,) int; risk sets do not reach across strata.
        weights: (N,) case weights of 0 and more; a tie's events share their mean weight, as in R's survival.

    Returns:
        Zero with a gradient of zeros when there is no event.

    Raises:
        ConfigError: `ties` is neither.

    Source: Cox 1972; Breslow 1974; Efron 1977; weights after Therneau and Grambsch 2000, section 7.1.
    """
    if ties not in ("breslow", "efron"):
        raise ConfigError(f"ties are handled by breslow or efron, not {ties}")
    keep = ~torch.isnan(time)
    if weights is not None:
        keep &= weights > 0  # a row of no weight is in no risk set; log(0) would make its gradient NaN
    # rows that are left out still belong to the graph
    nothing = torch.where(keep, risk, 0.0).sum() * 0.0
    risk, time, event = risk[keep], time[keep], event[keep].bool()
    mass = torch.ones_like(risk) if weights is None else weights[keep].to(risk.dtype)
    groups = torch.zeros_like(time, dtype=torch.long) if strata is None else strata[keep]
    total = nothing
    for stratum in torch.unique(groups):
        inside = groups == stratum
        if bool(event[inside].any()):
            total = total - _stratum(risk[inside], time[inside], event[inside], mass[inside], ties)
    return total / mass[event].sum() if bool(event.any()) else total


def _stratum(risk: Tensor, time: Tensor, event: Tensor, weights: Tensor, ties: Ties) -> Tensor:
    """() log partial likelihood of one stratum with an event; the risk set is a running log-sum-exp over falling times."""
    order = torch.argsort(time, descending=True, stable=True)
    risk, time, event, weights = risk[order], time[order], event[order], weights[order]
    running = torch.logcumsumexp(risk + weights.log(), 0)
    last_of_tie = torch.searchsorted(-time, -time, right=True) - 1
    at_risk, died, mass = running[last_of_tie][event], risk[event], weights[event]
    if ties == "breslow":
        plain: Tensor = (mass * (died - at_risk)).sum()
        return plain
    _, tie, count = torch.unique_consecutive(time[event], return_inverse=True, return_counts=True)
    log_died = _grouped_logsumexp(died + mass.log(), tie, len(count))[tie]
    start = torch.cumsum(count, 0) - count
    share = (torch.arange(len(tie), device=tie.device) - start[tie]).to(risk.dtype) / count[tie]
    mean_mass = torch.zeros(len(count), dtype=mass.dtype, device=mass.device).index_add(0, tie, mass) / count
    # log(R - share * D) = log R + log(1 - share * exp(log D - log R)), with share below 1 and D at most R
    left = at_risk + torch.log1p(-share * torch.exp(log_died - at_risk))
    total: Tensor = (mass * died).sum() - (mean_mass[tie] * left).sum()
    return total


def _grouped_logsumexp(values: Tensor, group: Tensor, n: int) -> Tensor:
    """(n,) log-sum-exp of the values of each group; every group has one at least."""
    top = torch.full((n,), -torch.inf, dtype=values.dtype, device=values.device)
    top = top.scatter_reduce(0, group, values.detach(), "amax")
    total: Tensor = torch.zeros_like(top).index_add(0, group, torch.exp(values - top[group])).log() + top
    return total
