"""The image tower: MONAI ResNet stages fused on one token grid, then pooling whose parts add up exactly."""

from __future__ import annotations

import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional

from medvl.models.config import ImageTowerConfig


class ImageEncoder(nn.Module):
    """Pixels to tokens: the last three stages of a 3D ResNet, laid on the grid of the second.

    Source: MONAI `ResNet` (He et al. 2016 in 3D); the sum of laterally projected stages follows feature pyramids (Lin et al.
    2017) without their smoothing convolutions.

    Args:
        config: widths, input channels (one per HU window) and token width.
    """

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        widths = list(config.widths)
        self.trunk = ResNet(
            "basic",
            list(config.blocks),
            widths,
            n_input_channels=config.in_channels,
            conv1_t_size=config.stem_kernel,
            conv1_t_stride=2,
            no_max_pool=True,
            feed_forward=False,
        )
        self.lateral = nn.ModuleList(nn.Conv3d(w, config.token_dim, 1) for w in widths[1:])
        self.position = nn.Conv3d(6, config.token_dim, 1, bias=False)
        self.extremes = nn.Conv3d(2 * config.in_channels, config.token_dim, 1, bias=False)
        self.norm = nn.BatchNorm3d(config.token_dim)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Tokens (B, L, T) in D, H, W order and their grid (d, h, w), from pixels (B, C, D, H, W) in [0, 1]."""
        trunk = self.trunk
        x = trunk.act(trunk.bn1(trunk.conv1(pixels * 2 - 1)))
        fine = trunk.layer2(trunk.layer1(x))
        middle = trunk.layer3(fine)
        coarse = trunk.layer4(middle)
        size = fine.shape[2:]
        fused = self.lateral[0](fine)
        for lateral, stage in zip(list(self.lateral)[1:], (middle, coarse), strict=True):
            fused = fused + functional.interpolate(lateral(stage), size=size, mode="nearest")
        fused = fused + self.position(_places(size, fused)) + self.extremes(_extremes(pixels * 2 - 1, size))
        tokens = functional.relu(self.norm(fused)).flatten(2).transpose(1, 2)
        return tokens, (int(size[0]), int(size[1]), int(size[2]))


def _places(size: torch.Size, like: Tensor) -> Tensor:
    """(1, 6, d, h, w) places on the grid from -1 to 1 and their squares, so that centre and border can be told apart."""
    lines = [torch.linspace(-1, 1, n, device=like.device, dtype=like.dtype) for n in size]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij"))
    return torch.cat([grid, grid.square()])[None]


def _extremes(pixels: Tensor, size: torch.Size) -> Tensor:
    """(B, 2 C, d, h, w) brightest and darkest value of each window in each cell: a stone must not drown in its surroundings."""
    high = functional.adaptive_max_pool3d(pixels, list(size))
    low = -functional.adaptive_max_pool3d(-pixels, list(size))
    return torch.cat([high, low], 1)


class EvidencePool(nn.Module):
    """Gathers values over the tokens: by learned queries (one set per kind of region), by the plain mean, and by the maximum.

    Attention and mean see what is spread out; the maximum lets one small bright token speak, and gives it a gradient that the
    others dilute. All three are weighted sums of token values once the weights are given (for the maximum: one at the winning
    token of each channel), so a score along any direction of the embedding splits over the tokens without remainder.
    """

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(config.kinds), config.n_queries, config.token_dim) * config.token_dim**-0.5)
        self.key = nn.Linear(config.token_dim, config.token_dim)
        self.value = nn.Linear(config.token_dim, config.value_dim)
        self.peak = nn.Linear(config.token_dim, config.peak_dim)
        self.gathered = (config.n_queries + 1) * config.value_dim
        self.width = self.gathered + config.peak_dim

    def forward(self, tokens: Tensor, kind: Tensor) -> Tensor:
        """(B, (Q + 1) V + M) pooled values of (B, L, T) tokens for (B,) region kinds."""
        weights, values = self._attend(tokens, kind)
        gathered = torch.einsum("bql,blv->bqv", weights, values).flatten(1)
        return torch.cat([gathered, self.peak(tokens).amax(1)], 1)

    def shares(self, tokens: Tensor, kind: Tensor, along: Tensor) -> Tensor:
        """(B, F, L) float32 share of each token in the pooled vector's product with (F, width) directions."""
        weights, values = self._attend(tokens, kind)
        spread, sharp = along.float().split([self.gathered, self.width - self.gathered], dim=1)
        per_query = spread.view(len(along), weights.shape[1], -1)
        shares = torch.einsum("bql,blv,fqv->bfl", weights.float(), values.float(), per_query)
        top, where = self.peak(tokens).float().max(1)
        won = sharp[None] * top[:, None]
        return shares.scatter_add(2, where[:, None].expand_as(won), won)

    def _attend(self, tokens: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """Attention (B, Q + 1, L), each row summing to 1, the last row uniform; and values (B, L, V)."""
        logits = torch.einsum("bqt,blt->bql", self.queries[kind], self.key(tokens)).float()
        weights = logits.softmax(-1)
        mean = torch.full_like(weights[:, :1], 1.0 / tokens.shape[1])
        values = self.value(tokens)
        return torch.cat([weights, mean], 1).to(values.dtype), values
