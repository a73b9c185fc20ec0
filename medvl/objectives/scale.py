"""The learnable multiplier of cosines that contrastive objectives own."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

ScaleMode = Literal["exp", "raw"]


class _Bounded(torch.autograd.Function):
    """Clamp whose gradient passes wherever a step along it leads back inside, so that a bound is no trap."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bounds = (low, high)
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (value,), (low, high), (gradient,) = ctx.saved_tensors, ctx.bounds, gradients
        passes = ((value <= high) | (gradient > 0)) & ((value >= low) | (gradient < 0))
        return gradient * passes, None, None


class Scale(nn.Module):
    """A learnable multiplier of cosines, kept as its logarithm.

    Args:
        initial: multiplier at the start, above 0.
    """

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self, maximum: float | None = None, mode: ScaleMode = "exp") -> Tensor:
        """() multiplier.

        Args:
            maximum: the multiplier stays between 1 and this; None for no bounds.
            mode: `exp` multiplies by the exponential of the parameter; `raw` by the parameter itself, as Cardiac-CLIP's release
                does in training (it starts at ln(1 / 0.07) = 2.66 instead of 14.3) but not at inference.
        """
        value: Tensor = self.log_scale if maximum is None else _Bounded.apply(self.log_scale, 0.0, math.log(maximum))
        return value.exp() if mode == "exp" else value
