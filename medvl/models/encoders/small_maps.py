"""Convolutions on grids of one or two voxels, whose bfloat16 gradient a CPU kernel leaves partly unwritten."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SmallMapConv3d(nn.Conv3d):
    """A convolution that leaves autocast on a CPU where an edge of its input is two voxels or one.

    There oneDNN (torch 2.13) does not write all of the bfloat16 weight gradient of a 3x3x3 kernel: what is left holds whatever
    lay in that memory, seldom NaN, mostly numbers that look like gradients.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Conv3d`."""
        if input.device.type != "cpu" or min(input.shape[2:]) > 2 or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


def guard_small_maps(module: nn.Module) -> None:
    """Turn every 3D convolution below `module` with a kernel above 1 into a `SmallMapConv3d`; weights and names stay."""
    for layer in module.modules():
        if type(layer) is nn.Conv3d and max(layer.kernel_size) > 1:
            layer.__class__ = SmallMapConv3d
