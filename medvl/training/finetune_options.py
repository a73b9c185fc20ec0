"""What fine-tuning may be told: the task, the head, what learns and how fast."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from medvl.heads.probe import Task
from medvl.objectives.balance import Balancing


class FineTuneConfig(BaseModel):
    """How to fine-tune. RenalCLIP's release is `head="batch_norm", balancing="double_balancing", select="last"`.

    Args:
        task: one class of several, or several labels of which some may be unknown; n_outputs: how many.
        head: `linear`, or two layers with `batch_norm` and ReLU (RenalCLIP) or `layer_norm` and GELU (Cardiac-CLIP) between.
        hidden: width between them.
        frozen: only the head learns; the encoder is in evaluation mode and read once, without augmentation.
        drifting_batch_norm: leave a frozen encoder's normalisation in training mode, as RenalCLIP's probe does: its statistics
            move to the new data, and the encoder that comes out is not the one that went in.
        balancing: of classes; labels know `none` and `loss`.
        learning_rate: at its peak; starts at and returns to `floor` of it, after `warmup_epochs` linear epochs and a cosine.
        select: the epoch with the least validation loss, weighed as in training; or the last.
        seed: of head, draws and dropout.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    task: Task
    n_outputs: int = Field(ge=1)
    head: Literal["linear", "batch_norm", "layer_norm"] = "linear"
    hidden: int = Field(128, ge=1)
    frozen: bool = False
    drifting_batch_norm: bool = False
    balancing: Balancing = "loss"
    learning_rate: float = Field(1e-4, gt=0)
    floor: float = Field(0.01, ge=0, le=1)
    warmup_epochs: int = Field(5, ge=0)
    epochs: int = Field(100, ge=1)
    batch: int = Field(50, ge=2)
    weight_decay: float = Field(0.005, ge=0)
    select: Literal["best", "last"] = "best"
    seed: int = 0


def build_head(width: int, config: FineTuneConfig) -> nn.Module:
    """Features (B, width) to logits (B, n_outputs)."""
    if config.head == "linear":
        return nn.Linear(width, config.n_outputs)
    if config.head == "batch_norm":
        first: list[nn.Module] = [nn.Linear(width, config.hidden, bias=False), nn.BatchNorm1d(config.hidden), nn.ReLU()]
    else:
        first = [nn.Linear(width, config.hidden), nn.LayerNorm(config.hidden), nn.GELU()]
    return nn.Sequential(*first, nn.Linear(config.hidden, config.n_outputs))


def epoch_rate(epoch: int, config: FineTuneConfig) -> float:
    """Learning rate of an epoch, counted from 0: up from the floor, and by a cosine back to it in the last epoch."""
    if epoch < config.warmup_epochs:
        share = epoch / config.warmup_epochs
    else:
        done = (epoch - config.warmup_epochs) / max(1, config.epochs - 1 - config.warmup_epochs)
        share = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.learning_rate * (config.floor + (1 - config.floor) * share)
