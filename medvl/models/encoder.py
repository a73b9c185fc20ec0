"""The image tower: MONAI ResNet stages fused on one token grid, then attention pooling whose parts add up exactly."""

from __future__ import annotations

import torch
from monai.networks.nets import ResNet
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
        tokens = functional.relu(self.norm(fused)).flatten(2).transpose(1, 2)
        return tokens, (int(size[0]), int(size[1]), int(size[2]))


class AttentionPool(nn.Module):
    """Learned queries gather values over the tokens; one set of queries per kind of region, plus the plain mean.

    The pooled vector is linear in the tokens' values once the attention is given, so a score along any direction of the
    embedding splits over the tokens without remainder (`parts`).
    """

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(config.kinds), config.n_queries, config.token_dim) * config.token_dim**-0.5)
        self.key = nn.Linear(config.token_dim, config.token_dim)
        self.value = nn.Linear(config.token_dim, config.value_dim)
        self.width = (config.n_queries + 1) * config.value_dim

    def forward(self, tokens: Tensor, kind: Tensor) -> Tensor:
        """(B, (Q + 1) V) pooled values of (B, L, T) tokens for (B,) region kinds."""
        weights, values = self.parts(tokens, kind)
        return torch.einsum("bql,blv->bqv", weights, values).flatten(1)

    def parts(self, tokens: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """Attention (B, Q + 1, L), each row summing to 1, the last row uniform; and values (B, L, V)."""
        logits = torch.einsum("bqt,blt->bql", self.queries[kind], self.key(tokens)).float()
        weights = logits.softmax(-1)
        mean = torch.full_like(weights[:, :1], 1.0 / tokens.shape[1])
        values = self.value(tokens)
        return torch.cat([weights, mean], 1).to(values.dtype), values
