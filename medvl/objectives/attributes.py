"""Learning from report-derived attributes: every term ignores what the report does not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medvl.data.targets import KindTargets, Targets
from medvl.errors import ConfigError
from medvl.objectives.registry import Objective, Options, Scene, Sizes


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


class AttributeHeads(nn.Module):
    """One linear layer over a kind's pooled features that answers all its attributes.

    Args:
        width: of the features.
        kind: its attributes.
        pairs: two logits for each binary attribute, as in a softmax of two, instead of one.
    """

    def __init__(self, width: int, kind: KindTargets, *, pairs: bool = False) -> None:
        super().__init__()
        self.pairs = pairs
        n_binary = len(kind.binary) * (2 if pairs else 1)
        self.sizes = [n_binary, *(len(values) for values in kind.classes.values()), 0 if pairs else len(kind.numbers)]
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, features: Tensor) -> list[Tensor]:
        """Binary logits (B, K), one (B, n) per class attribute, and numbers (B, M), float32; M is 0 with `pairs`."""
        binary, *rest = self.linear(features.to(self.linear.weight.dtype)).float().split(self.sizes, dim=1)
        if self.pairs:
            absent, present = binary.unflatten(1, (-1, 2)).unbind(-1)
            binary = present - absent
        return [binary, *rest]


def attribute_loss(outputs: list[Tensor], targets: Targets, class_weight: float = 0.3, number_weight: float = 0.5) -> Tensor:
    """() weighted sum of binary, class and number terms, each a mean over what is known; `outputs` as of `AttributeHeads`."""
    binary, *classes, numbers = outputs
    device = binary.device
    loss = masked_bce(binary, torch.tensor(targets.binary, device=device))
    for k, logits in enumerate(classes):
        known = torch.tensor(targets.classes[:, k].astype(np.int64), device=device)
        loss = loss + class_weight * masked_cross_entropy(logits, known)
    return loss + number_weight * masked_smooth_l1(numbers, torch.tensor(targets.numbers, device=device))


def softmax_attribute_loss(outputs: list[Tensor], targets: Targets) -> Tensor:
    """() unweighted sum over attributes of the mean cross-entropy over rows where each is known; numbers are left out."""
    binary, *classes, _ = outputs
    known = torch.tensor(targets.binary, device=binary.device)
    terms = [masked_bce(binary[:, k], known[:, k]) for k in range(known.shape[1])]
    known = torch.tensor(targets.classes.astype(np.int64), device=binary.device)
    terms += [masked_cross_entropy(logits, known[:, k]) for k, logits in enumerate(classes)]
    return torch.stack(terms).sum() if terms else binary.sum() * 0.0


class AttributeOptions(Options):
    """How attributes are weighed.

    Args:
        form: `binary` pools all binary attributes into one mean; `release` gives each attribute its own softmax and its own mean.
        class_weight: of each class attribute. number_weight: of the numbers. Neither is used by `release`.
    """

    form: Literal["binary", "release"] = "binary"
    class_weight: float = 0.3
    number_weight: float = 0.5


class Attributes(Objective):
    """What reports say of each region, from pooled features, by heads of its own: `heads[kind]`.

    Source: RenalCLIP (arXiv 2508.16569), multi-task image pre-training: L = sum_k sum_i CE(z_ik, y_ik) / n_k over known y_ik.
    Departures: binary attributes share one mean, so that one seldom mentioned does not weigh as much as one always mentioned,
    and sizes are learnt as numbers. `form: release` undoes both; with it, sizes are not learnt.
    """

    options_type = AttributeOptions
    needs = ("pooled",)
    options: AttributeOptions

    def __init__(self, options: AttributeOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        pairs = options.form == "release"
        self.heads = nn.ModuleDict({name: AttributeHeads(sizes.pooled, kind, pairs=pairs) for name, kind in sizes.kinds.items()})

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from pooled (B, P).

        Raises:
            ConfigError: `form` is not the one that the heads were made for.
        """
        heads = cast(AttributeHeads, self.heads[scene.kind])
        if heads.pairs != (self.options.form == "release"):
            raise ConfigError(
                f"objective attributes: its heads are of another form than {self.options.form}; keep one in all stages"
            )
        outputs = heads(found["pooled"])
        if heads.pairs:
            return softmax_attribute_loss(outputs, scene.targets)
        return attribute_loss(outputs, scene.targets, self.options.class_weight, self.options.number_weight)
