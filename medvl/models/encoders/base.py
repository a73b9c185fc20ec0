"""What every image encoder takes and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from medvl.errors import ConfigError

Grid = tuple[int, int, int]


class Encoded(NamedTuple):
    """What an encoder saw.

    Args:
        tokens: (B, L, T) image tokens in D, H, W order; a class token is not among them.
        grid: (d, h, w) of the tokens, d * h * w == L unless only some were asked for.
        pooled: (B, P) by the encoder's own pooling: mean over places for CNNs, class token or mean for transformers.
    """

    tokens: Tensor
    grid: Grid
    pooled: Tensor


class EncoderOptions(BaseModel):
    """Base of the options of one kind of encoder: unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageEncoder(nn.Module, ABC):
    """Pixels to tokens and a pooled vector.

    `token_dim` is T and `pooled_dim` is P of `Encoded`.
    """

    token_dim: int
    pooled_dim: int

    @abstractmethod
    def forward(self, pixels: Tensor) -> Encoded:
        """Tokens and pooled vector of pixels (B, C, D, H, W) in [0, 1]."""


def of_map(x: Tensor) -> Encoded:
    """A feature map (B, T, d, h, w) as tokens, pooled by their mean."""
    tokens = x.flatten(2).transpose(1, 2)
    return Encoded(tokens, (int(x.shape[2]), int(x.shape[3]), int(x.shape[4])), tokens.mean(1))


def check_stride(name: str, grid_dhw: Grid, stride: int, advice: str) -> None:
    """Refuse a pixel grid of which some axis is shorter than the total stride.

    Raises:
        ConfigError: names the grid, the stride and `advice`.
    """
    if min(grid_dhw) < stride:
        shape = "x".join(map(str, grid_dhw))
        raise ConfigError(f"encoder {name}: a grid of {shape} collapses under a total stride of {stride}; {advice}")
