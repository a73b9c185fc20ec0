"""Transformer blocks and position tables, shared by the vision transformer and the masked decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medvl.models.encoders.base import Grid


class Block(nn.Module):
    """Pre-norm self-attention and perceptron, each with a residual.

    Source: Vaswani et al. 2017 with the norms of Xiong et al. 2020; attention is torch's fused kernel, except where it is
    slower (see `_small_half_on_cpu`).

    Args:
        width: of the tokens.
        heads: of the attention, a divisor of `width`.
        mlp_ratio: hidden width of the perceptron over `width`.
        quick_gelu: x * sigmoid(1.702 x), as CLIP has it, instead of the exact GELU.
        qkv_bias: whether queries, keys and values have one.
        dropout: on what attention and perceptron add, and on attention weights.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, *, quick_gelu: bool = False, qkv_bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        hidden = round(width * mlp_ratio)
        self.heads, self.quick_gelu, self.dropout = heads, quick_gelu, dropout
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, W) from (B, L, W)."""
        x = x + self._drop(self.out(self._attend(self.norm1(x))))
        hidden = self.up(self.norm2(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick_gelu else functional.gelu(hidden)
        return x + self._drop(self.down(hidden))

    def _attend(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in parts)
        dropout = self.dropout if self.training else 0.0
        if _small_half_on_cpu(query):
            weights: Tensor = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(-1).to(value.dtype)
            mixed: Tensor = (functional.dropout(weights, dropout) if dropout else weights) @ value
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return mixed.transpose(1, 2).flatten(2)

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training) if self.dropout else x


def _small_half_on_cpu(query: Tensor) -> bool:
    """Whether plain products beat torch's fused kernel: its CPU gradient in bfloat16 is slow up to a few thousand tokens."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.shape[2] <= 4096


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights, as in He et al. 2022, and zero biases for every linear layer below `module`."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def sincos_positions(grid: Grid, width: int, *, scrambled: bool = False) -> Tensor:
    """(d * h * w, width) float32 sines and cosines of each token's place along D, then H, then W, at falling frequencies.

    Channels that do not divide by six stay zero.

    Args:
        grid: of the tokens.
        width: of the tokens.
        scrambled: lay the places out as the Cardiac-CLIP release does: computed on a grid with D and H swapped (numpy's `xy`
            order) and then read as D, H, W, so that most tokens carry another token's place.
    """
    lines = [torch.arange(n, dtype=torch.float32) for n in grid]
    places = torch.meshgrid(*lines, indexing="xy" if scrambled else "ij")
    n_frequencies = width // 6
    omega = 10000.0 ** -(torch.arange(n_frequencies, dtype=torch.float32) / max(n_frequencies, 1))
    angles = [place.reshape(-1, 1) * omega for place in places]
    table = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1)
    return functional.pad(table, (0, width - table.shape[1]))


def patchify(pixels: Tensor, patch: Grid) -> Tensor:
    """(B, L, C * p * q * r) voxels of each patch, channels first, from pixels (B, C, D, H, W); patches in D, H, W order."""
    batch, channels, *size = pixels.shape
    (d, h, w), (p, q, r) = (n // k for n, k in zip(size, patch, strict=True)), patch
    cells = pixels.reshape(batch, channels, d, p, h, q, w, r).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return cells.reshape(batch, d * h * w, channels * p * q * r)
