"""Learning from report-derived attributes: every term ignores what the report does not say."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def masked_bce(logits: Tensor, targets: Tensor, positive_weight: Tensor | None = None) -> Tensor:
    """() mean binary cross-entropy over entries whose target is 0 or 1.

    Args:
        logits: (B, K) float.
        targets: (B, K) with 1 present, 0 absent; anything else (unmentioned, uncertain) is left out.
        positive_weight: (K,) weight of the positives, or None.

    Returns:
        Zero with a gradient path when nothing is known.
    """
    known = (targets == 0) | (targets == 1)
    loss = functional.binary_cross_entropy_with_logits(
        logits, targets.clamp(0, 1).to(logits.dtype), pos_weight=positive_weight, reduction="none"
    )
    return (loss * known).sum() / known.sum().clamp_min(1)


def masked_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """() mean cross-entropy of (B, C) logits over rows whose (B,) class is not negative."""
    known = targets >= 0
    loss = functional.cross_entropy(logits, targets.clamp_min(0), reduction="none")
    return (loss * known).sum() / known.sum().clamp_min(1)


def masked_smooth_l1(predicted: Tensor, targets: Tensor) -> Tensor:
    """() mean smooth L1 of (B, M) standardised values over targets that are not NaN."""
    known = torch.isfinite(targets)
    loss = functional.smooth_l1_loss(predicted, torch.nan_to_num(targets), reduction="none")
    return (loss * known).sum() / known.sum().clamp_min(1)
