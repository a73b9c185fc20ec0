"""Optimiser and schedule, one way for every stage."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from medvl.recipe import StageConfig


def adamw(groups: Iterable[tuple[nn.Module, float]], config: StageConfig, extra: Iterable[Tensor] = ()) -> torch.optim.AdamW:
    """AdamW over (module, rate factor) groups; vectors and scalars are not decayed."""
    parameters: list[dict[str, Any]] = []
    for module, factor in groups:
        rate = config.learning_rate * factor
        tensors = [p for p in module.parameters() if p.requires_grad]
        parameters.append({"params": [p for p in tensors if p.ndim > 1], "lr": rate, "weight_decay": config.weight_decay})
        parameters.append({"params": [p for p in tensors if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
    parameters.append({"params": list(extra), "lr": config.learning_rate, "weight_decay": 0.0})
    return torch.optim.AdamW([group for group in parameters if group["params"]], betas=(0.9, 0.98))


def schedule(optimiser: torch.optim.Optimizer, config: StageConfig) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then cosine down to a hundredth of each group's rate."""

    def factor(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / config.warmup
        done = min(1.0, (step - config.warmup) / max(1, config.steps - config.warmup))
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
