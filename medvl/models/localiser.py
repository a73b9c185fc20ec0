"""Find regions on a scan nobody cropped: heat maps of their centres on a coarse upright grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.nets.unet import UNet
from numpy.typing import NDArray
from torch import Tensor, nn

from medvl.geometry import Geometry
from medvl.imaging.preprocess import window
from medvl.imaging.resample import resample
from medvl.models.config import LocaliserConfig
from medvl.records import Volume

_MULTIPLE = 4
_MAX_EXTENT_MM = 2400.0


@dataclass(frozen=True, eq=False)
class Place:
    """Where a region seems to be: centre (3,) LPS mm and confidence in [0, 1], the height of the heat map there."""

    center_lps: NDArray[np.float64]
    confidence: float


def coarse_geometry(geometry: Geometry, spacing_mm: float) -> Geometry:
    """An upright grid of `spacing_mm` around the whole scan, every side a multiple of four voxels."""
    d, h, w = geometry.shape_dhw
    corners = geometry.to_lps([(i, j, k) for i in (-0.5, d - 0.5) for j in (-0.5, h - 0.5) for k in (-0.5, w - 0.5)])
    low, high = corners.min(0), corners.max(0)
    size = np.minimum((high - low)[::-1], _MAX_EXTENT_MM)
    shape = [max(2, int(np.ceil(s / spacing_mm / _MULTIPLE))) * _MULTIPLE for s in size]
    return Geometry.centered((low + high) / 2, (shape[0], shape[1], shape[2]), (spacing_mm,) * 3)


class Localiser(nn.Module):
    """MONAI's residual U-Net on two HU windows; one heat map a region."""

    def __init__(self, config: LocaliserConfig) -> None:
        super().__init__()
        self.config = config
        self.net = UNet(
            spatial_dims=3,
            in_channels=len(config.windows_hu),
            out_channels=len(config.regions),
            channels=config.channels,
            strides=(2,) * (len(config.channels) - 1),
            num_res_units=1,
            norm="batch",
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, R, D, H, W) logits of (B, C, D, H, W) windows in [0, 1]."""
        logits: Tensor = self.net(pixels * 2 - 1)
        return logits

    def windows(self, hu: NDArray[np.float32] | NDArray[np.int16]) -> Tensor:
        """(1, C, D, H, W) input of one coarse scan."""
        return torch.from_numpy(window(hu, self.config.windows_hu))[None]

    @torch.no_grad()
    def locate(self, volume: Volume) -> dict[str, Place]:
        """The best place of every region, however unlikely; judge by its confidence."""
        self.eval()
        grid = coarse_geometry(volume.geometry, self.config.spacing_mm)
        heat = self(self.windows(resample(volume, grid))).sigmoid()[0].numpy()
        return {name: _peak(heat[k], grid) for k, name in enumerate(self.config.regions)}


def _peak(heat: NDArray[np.float32], grid: Geometry) -> Place:
    """The maximum, moved to the centre of mass of the heat within two voxels of it."""
    top = np.array(np.unravel_index(int(heat.argmax()), heat.shape))
    start = np.maximum(top - 2, 0)
    stop = np.minimum(top + 3, heat.shape)
    block = heat[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))].astype(np.float64)
    axes = np.meshgrid(*(np.arange(a, b) for a, b in zip(start, stop, strict=True)), indexing="ij")
    center = np.array([(axis * block).sum() for axis in axes]) / max(block.sum(), 1e-12)
    return Place(grid.to_lps(center), float(heat[tuple(top)]))
