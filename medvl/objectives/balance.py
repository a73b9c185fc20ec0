"""Rare classes in fine-tuning: draw them more often, or let them weigh more, but not both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from medvl.errors import ConfigError

Balancing = Literal["loss", "sampler", "none", "double_balancing"]


@dataclass(frozen=True, eq=False)
class Balance:
    """How often samples are drawn and how much classes weigh.

    Args:
        draw: (N,) float64 probability of each sample, summing to 1; 0 where its class is unknown.
        weights: (C,) float32 of the cross-entropy, or None when all weigh alike.
        per_sample: the weighted sum is divided by the number of samples instead of the sum of their weights.
    """

    draw: Tensor
    weights: Tensor | None
    per_sample: bool = False


def balance(labels: Tensor, n_classes: int, how: Balancing = "loss") -> Balance:
    """Draws and weights for (N,) int labels, negative where unknown.

    Args:
        labels: class of each sample.
        n_classes: C.
        how: `loss` weighs classes by 1 / n_c and draws evenly; `sampler` draws by 1 / n_c and weighs evenly; `none` does neither;
            `double_balancing` does both, after which the rarer class counts n_big / n_small times as much as the other.

    Raises:
        ConfigError: a class has no sample, so that it cannot be balanced.

    Source: RenalCLIP's downstream classification does both (`double_balancing`), with the loss divided by the number of samples:
    at 80 to 320 the minority has 80 % of the loss. The others give it 50 %, or 20 % with `none`.
    """
    known = labels >= 0
    counts = torch.bincount(labels[known].long(), minlength=n_classes).double()
    if how != "none" and bool((counts == 0).any()):
        raise ConfigError(f"class sizes are {counts.long().tolist()}: an empty class cannot be balanced; merge it or use none")
    rarity = 1 / counts.clamp_min(1)
    draw = (rarity[labels.clamp_min(0).long()] if how in ("sampler", "double_balancing") else torch.ones(len(labels))) * known
    draw = draw.double() / draw.double().sum()
    if how == "double_balancing":
        return Balance(draw, rarity.float(), per_sample=True)
    return Balance(draw, (rarity * len(labels[known]) / n_classes).float() if how == "loss" else None)


def balanced_cross_entropy(logits: Tensor, labels: Tensor, balanced: Balance) -> Tensor:
    """() cross-entropy of (B, C) logits with (B,) labels, negative ones left out, weighed as `balanced` says.

    A mean over the weights of the batch, unless `balanced.per_sample`.
    """
    known = labels >= 0
    weights = (
        torch.ones(logits.shape[1], device=logits.device) if balanced.weights is None else balanced.weights.to(logits.device)
    )
    each = weights[labels.clamp_min(0).long()] * known
    loss = functional.cross_entropy(logits.float(), labels.clamp_min(0).long(), reduction="none") * each
    total = known.sum().clamp_min(1) if balanced.per_sample else each.sum().clamp_min(1e-12)
    return loss.sum() / total
