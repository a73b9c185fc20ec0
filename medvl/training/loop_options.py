"""How the loop trains, apart from what: steps, rates, precision, pieces, processes, checkpoints."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from medvl.errors import ConfigError

Precision = Literal["bf16", "fp32"]
Parallel = Literal["none", "ddp", "fsdp"]

FREE = (
    "workers",
    "checkpoint_every_s",
    "checkpoint_every",
    "tensorboard",
    "mlflow",
    "device",
    "parallel",
    "pieces",
    "count_flops",
)


@dataclass(frozen=True)
class LoopOptions:
    """What `fit` is told.

    Args:
        steps: optimiser steps of the stage.
        learning_rate: peak rate, times the factor of each group of the task.
        weight_decay: of matrices and kernels; vectors and scalars are never decayed.
        betas: of AdamW.
        warmup: steps of linear rise.
        final: share of the peak rate at the end of the cosine.
        clip_norm: largest norm of all gradients together; None for no limit.
        seed: of dropout and of everything else that draws inside `represent` and `compare`.
        precision: bf16 autocast or fp32.
        accumulate: batches whose losses are averaged in one optimiser step.
        pieces: parts in which each rank represents its share of a batch; the gradient stays that of the whole batch.
        workers: processes that load; 0 loads in between.
        checkpoint_every_s: seconds between checkpoints; None for never by the clock.
        checkpoint_every: steps between checkpoints; None for never by the count.
        validate_every: steps between validations; None for none.
        patience: validations without a better first measure after which the stage ends with its best weights; None for no end
            before the last step, and the last weights.
        tensorboard: also write event files.
        mlflow: folder or address of a tracking server that gets the curves too; None for none.
        device: auto, cpu or cuda.
        parallel: how weights are held when several processes run: copied (ddp), sharded (fsdp), or refuse to share (none).
        count_flops: run the first step of a start once more without effect, to count its operations.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 100
    final: float = 0.01
    clip_norm: float | None = 1.0
    seed: int = 0
    precision: Precision = "bf16"
    accumulate: int = 1
    pieces: int = 1
    workers: int = 0
    checkpoint_every_s: float | None = 120.0
    checkpoint_every: int | None = None
    validate_every: int | None = None
    patience: int | None = None
    tensorboard: bool = False
    mlflow: str | None = None
    device: str = "auto"
    parallel: Parallel = "ddp"
    count_flops: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        least = {"steps": 1, "accumulate": 1, "pieces": 1, "workers": 0, "warmup": 0, "checkpoint_every": 1}
        least |= {"validate_every": 1, "patience": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} is {value}; it must be at least {low}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if self.patience is not None and self.validate_every is None:
            raise ConfigError("patience counts validations, and validate_every is not set; set both or neither")
        if self.precision not in ("bf16", "fp32"):
            raise ConfigError(
                f"precision is {self.precision}; bf16 and fp32 are offered, fp16 is not: it overflows in large logits"
            )
        if self.parallel not in ("none", "ddp", "fsdp"):
            raise ConfigError(f"parallel is {self.parallel}; known: none, ddp, fsdp")

    def binding(self) -> dict[str, Any]:
        """What a checkpoint is bound to, ready for JSON: every option that changes what is learned."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if name not in FREE}

    def rate(self, step: int) -> float:
        """Share of the peak rate at a step: linear warm-up, then cosine down to `final`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


def derived_seed(seed: int, *place: object) -> int:
    """A 63-bit seed from the run's seed and a place in it, such as a step and a piece."""
    text = ":".join(str(part) for part in (seed, *place))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
