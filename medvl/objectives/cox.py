"""Cox's partial likelihood on tensors, in log space."""

from __future__ import annotations

import torch
from torch import Tensor


def cox_negative_log_likelihood(risk: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """() negative log partial likelihood over the number of events, ties after Breslow.

    Args:
        risk: (N,) log hazard ratios, higher is worse.
        time: (N,) follow-up.
        event: (N,) bool, True if it happened.

    Returns:
        Zero with a gradient path when there is no event.

    Source: Cox 1972, Breslow 1974; the risk set sum is a running log-sum-exp over falling times, with tied times sharing theirs.
    """
    order = torch.argsort(time, descending=True, stable=True)
    risk, time, event = risk[order], time[order], event[order].to(risk.dtype)
    running = torch.logcumsumexp(risk, 0)
    last_of_tie = torch.searchsorted(-time, -time, right=True) - 1
    terms = (risk - running[last_of_tie]) * event
    return -terms.sum() / event.sum().clamp_min(1)


def fit_ridge_cox(features: Tensor, time: Tensor, event: Tensor, penalty: float) -> Tensor:
    """(P,) float64 coefficients of a ridge Cox model on standardised (N, P) features, by L-BFGS.

    Args:
        features: standardised float64.
        time: (N,) follow-up.
        event: (N,) bool, True if it happened.
        penalty: weight of half the squared norm, per event.

    Raises:
        ValueError: fewer than ten events.
    """
    if int(event.sum()) < 10:
        raise ValueError(f"a survival model needs at least 10 events, found {int(event.sum())}")
    weights = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = cox_negative_log_likelihood(features @ weights, time, event) + penalty / 2 * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[arg-type]
    return weights.detach()
