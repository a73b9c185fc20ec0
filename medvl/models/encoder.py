"""The region encoder: MONAI ResNet stages fused on one token grid, then pooling whose parts add up exactly."""

from __future__ import annotations

import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional

from medvl.models.config import ImageTowerConfig
from medvl.models.encoders.base import Encoded, ImageEncoder
from medvl.models.encoders.registry import build_encoder
from medvl.models.encoders.small_maps import guard_small_maps


class RegionResNet(ImageEncoder):
    """Pixels to tokens: the last three stages of a 3D ResNet, laid on the grid of the second.

    Source: MONAI `ResNet` (He et al. 2016 in 3D); the sum of laterally projected stages follows feature pyramids (Lin et al.
    2017) without their smoothing convolutions.

    Args:
        config: widths, input channels (one per HU window) and token width.
    """

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        widths = list(config.widths)
        self.token_dim = self.pooled_dim = config.token_dim
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
        guard_small_maps(self.trunk)

    def forward(self, pixels: Tensor) -> Encoded:
        """Tokens (B, L, T) in D, H, W order, their grid (d, h, w) and their mean, from pixels (B, C, D, H, W) in [0, 1]."""
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
        return Encoded(tokens, (int(size[0]), int(size[1]), int(size[2])), tokens.mean(1))


def image_encoder(config: ImageTowerConfig) -> ImageEncoder:
    """The encoder that `config` names."""
    if config.name == "region_resnet":
        return RegionResNet(config)
    grid = config.grid_dhw or (48, 48, 48)
    return build_encoder(config.name, in_channels=config.in_channels, grid_dhw=grid, options=config.options)


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
