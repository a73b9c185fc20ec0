"""A decoder on the maps of an image encoder: from what the towers learned to one class a voxel.

Maps of several scales are tapped where an encoder computes them, and fused from coarse to fine as in a U-Net (Ronneberger et al.
2015; blocks are MONAI's `UnetResBlock`, He et al. 2016). An encoder that has one grid of tokens only is decoded from that. The
last step works on blocks of 2 x 2 x 2 voxels: the input is unshuffled to their grid, logits are shuffled back (Shi et al. 2016),
so that the full resolution is read and written at an eighth of the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.utils import pixelshuffle, pixelunshuffle
from torch import Tensor, nn
from torch.nn import functional

from medvl.models.encoders.base import ImageEncoder

BLOCK = 2
_TAPS = ("trunk.layer{}", "layer{}", "down_layers.{}", "trunk.layers{}")


def tapped(encoder: ImageEncoder) -> tuple[str, ...]:
    """Names of the encoder's stages, fine to coarse, whose outputs are maps; empty for plain transformers and DenseNets."""
    known = dict(encoder.named_modules())
    for pattern in _TAPS:
        names = [pattern.format(n) for n in range(5) if pattern.format(n) in known]
        filled = tuple(name for name in names if any(True for _ in known[name].parameters()))
        if filled:
            return filled
    return ()


@contextmanager
def _collect(encoder: ImageEncoder, names: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """What the named stages give while the block runs."""
    held: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _given: object, out: Tensor) -> None:
            held[name] = out

        return hook

    hooks = []
    for name in names:
        module = encoder.get_submodule(name)
        last = list(module.children())[-1] if isinstance(module, nn.ModuleList) else module
        hooks.append(last.register_forward_hook(keep(name)))
    try:
        yield held
    finally:
        for hook in hooks:
            hook.remove()


def feature_maps(encoder: ImageEncoder, pixels: Tensor) -> list[Tensor]:
    """Maps (B, C, d, h, w) of an encoder from fine to coarse, its tokens on their grid among them.

    Args:
        encoder: any of `medvl.models.encoders`, or the region encoder.
        pixels: (B, C, D, H, W) in [0, 1].
    """
    names = tapped(encoder)
    with _collect(encoder, names) as held:
        encoded = encoder(pixels)
    tokens = encoded.tokens.transpose(1, 2).unflatten(2, encoded.grid)
    maps = [held[name] for name in names]
    if not (maps and maps[-1].shape == tokens.shape):
        maps.append(tokens)
    return sorted(maps, key=lambda m: (-m.shape[2:].numel(), m.shape[1]))


class SegmentationNet(nn.Module):
    """Encoder and decoder.

    Args:
        encoder: read at every scale it offers.
        grid_dhw: voxels of a region, to learn the shapes of its maps from.
        in_channels: of pixels, one per HU window.
        n_classes: with the background.
        width: channels of the finest level; each coarser one has twice as many, up to `most`.
        most: see `width`.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        grid_dhw: tuple[int, int, int],
        in_channels: int,
        n_classes: int,
        width: int = 16,
        most: int = 64,
    ) -> None:
        super().__init__()
        self.encoder, self.n_classes, self.frozen = encoder, n_classes, False
        with torch.no_grad():
            mode = encoder.training
            shapes = [tuple(m.shape[1:]) for m in feature_maps(encoder.eval(), torch.zeros(1, in_channels, *grid_dhw))]
            encoder.train(mode)
        finest = tuple(-(-n // BLOCK) for n in grid_dhw)
        self.levels = _levels(shapes, finest)
        self.stem = nn.Conv3d(in_channels * BLOCK**3, width, 3, padding=1)
        fuse: list[nn.Module] = []
        below = 0
        for depth in range(len(self.levels) - 1, -1, -1):
            out = min(most, width * 2**depth)
            given = below + sum(shapes[k][0] for k in self.levels[depth][1]) + (width if depth == 0 else 0)
            fuse.append(UnetResBlock(3, given, out, 3, 1, "instance"))
            below = out
        self.fuse = nn.ModuleList(fuse)
        self.out = nn.Conv3d(below, n_classes * BLOCK**3, 1)

    def decoder(self) -> list[nn.Parameter]:
        """Parameters that no encoder has."""
        return [p for part in (self.stem, self.fuse, self.out) for p in part.parameters()]

    def train(self, mode: bool = True) -> SegmentationNet:
        """Training mode; a frozen encoder stays in evaluation mode, running statistics included."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, K, D, H, W) float32 logits, the background first, of pixels (B, C, D, H, W) in [0, 1]."""
        size = pixels.shape[2:]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = feature_maps(self.encoder, pixels)
        short = [n % BLOCK for n in size]
        even = functional.pad(pixels * 2 - 1, (0, short[2], 0, short[1], 0, short[0]), mode="replicate")
        fine = functional.leaky_relu(self.stem(pixelunshuffle(even, 3, BLOCK)), 0.01)
        x: Tensor | None = None
        for block, (grid, found) in zip(self.fuse, reversed(self.levels), strict=True):
            parts = [maps[k] for k in found] + ([fine] if (grid, found) == self.levels[0] else [])
            if x is not None:
                parts = [x, *parts]
            x = block(torch.cat([_to(part, grid) for part in parts], 1))
        logits: Tensor = pixelshuffle(self.out(x), 3, BLOCK)
        return logits[..., : size[0], : size[1], : size[2]].float()


def _levels(shapes: list[tuple[int, ...]], finest: tuple[int, ...]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Grids from the finest on, each with the numbers of its maps; maps finer than the stem are brought to its grid."""
    levels: dict[tuple[int, ...], list[int]] = {finest: []}
    for k, shape in enumerate(shapes):
        grid = shape[1:]
        levels.setdefault(finest if all(n >= m for n, m in zip(grid, finest, strict=True)) else grid, []).append(k)
    return sorted(levels.items(), key=lambda level: [-n for n in level[0]])


def _to(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    return x if tuple(x.shape[2:]) == grid else functional.interpolate(x, size=grid, mode="trilinear", align_corners=False)
