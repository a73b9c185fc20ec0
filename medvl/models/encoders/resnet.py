"""3D residual networks: MONAI's `ResNet`, with the norms, shortcuts and depth that were asked for."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, cast

from monai.networks.layers.utils import get_norm_layer
from monai.networks.nets.resnet import ResNet
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from medvl.models.encoders.base import Encoded, EncoderOptions, Grid, ImageEncoder, check_stride, of_map

SHAPES: dict[str, tuple[str, tuple[int, int, int, int]]] = {
    "resnet10": ("basic", (1, 1, 1, 1)),
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
}


class ResNetOptions(EncoderOptions):
    """Shape of a 3D ResNet.

    Args:
        widths: channels of the four stages, before the fourfold expansion of `resnet50`.
        stem_kernel: edge of the first convolution; stem_stride: its stride.
        max_pool: halve the grid once more before the first stage.
        norm: batch, instance or group normalisation (eight groups where the channels allow).
        shortcut: A is subsampling and zero channels, B a strided 1x1x1 convolution with norm.
        stage: the stage that gives tokens and pooled vector; later ones are not built.
        detach_shortcut: let no gradient through shortcuts of type A where stages meet, as the RenalCLIP release does.
    """

    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    stem_kernel: int = 7
    stem_stride: Literal[1, 2, 4] = 2
    max_pool: bool = True
    norm: Literal["batch", "instance", "group"] = "batch"
    shortcut: Literal["A", "B"] = "B"
    stage: Literal[1, 2, 3, 4] = 4
    detach_shortcut: bool = False

    @model_validator(mode="after")
    def _only_a_detaches(self) -> ResNetOptions:
        if self.detach_shortcut and self.shortcut != "A":
            raise ValueError("detach_shortcut needs shortcut A: shortcut B has weights that must learn")
        return self


class PadShortcut(nn.Module):
    """Shortcut of type A: every `stride`-th place, and zeros for the channels that the block adds.

    MONAI's own keeps the gradient out without saying so; here that is `detach`.
    """

    def __init__(self, channels: int, stride: int, *, detach: bool) -> None:
        super().__init__()
        self.channels, self.stride, self.detach = channels, stride, detach

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, d, h, w) from (B, C, D, H, W)."""
        kept = x[:, :, :: self.stride, :: self.stride, :: self.stride]
        kept = kept.detach() if self.detach else kept
        return functional.pad(kept, (0, 0, 0, 0, 0, 0, 0, self.channels - x.shape[1]))


class ResNetEncoder(ImageEncoder):
    """Stem and the first `stage` stages of a 3D ResNet. Weight names are those of MONAI and MedicalNet (`layer1.0.conv1`).

    Args:
        name: a key of `SHAPES`.
        in_channels: channels of the pixels, one per HU window.
        grid_dhw: grid of the pixels.
        options: shape.

    Raises:
        ConfigError: the grid collapses under the strides.
    """

    def __init__(self, name: str, in_channels: int, grid_dhw: Grid, options: ResNetOptions) -> None:
        super().__init__()
        stride = options.stem_stride * (2 if options.max_pool else 1) * 2 ** (options.stage - 1)
        check_stride(name, grid_dhw, stride, "use an earlier stage, max_pool false or a smaller stem_stride")
        block, blocks = SHAPES[name]
        trunk = ResNet(
            block,
            list(blocks),
            list(options.widths),
            n_input_channels=in_channels,
            conv1_t_size=options.stem_kernel,
            conv1_t_stride=options.stem_stride,
            shortcut_type=options.shortcut,
            feed_forward=False,
            bias_downsample=False,
        )
        self.conv1, self.bn1, self.act = trunk.conv1, trunk.bn1, trunk.act
        self.pool = trunk.maxpool if options.max_pool else nn.Identity()
        self._stages = [f"layer{n + 1}" for n in range(options.stage)]
        for stage in self._stages:
            self.add_module(stage, trunk.get_submodule(stage))
        _own_shortcuts(self, options.detach_shortcut)
        if options.norm != "batch":
            _swap_norms(self, options.norm)
        self.token_dim = self.pooled_dim = options.widths[options.stage - 1] * (4 if block == "bottleneck" else 1)

    def forward(self, pixels: Tensor) -> Encoded:
        """Tokens of the last stage, and their mean, from pixels (B, C, D, H, W) in [0, 1]."""
        x = self.pool(self.act(self.bn1(self.conv1(pixels))))
        for stage in self._stages:
            x = self.get_submodule(stage)(x)
        return of_map(x)


def _own_shortcuts(module: nn.Module, detach: bool) -> None:
    """Put `PadShortcut` where MONAI has a function that always detaches."""
    for block in module.modules():
        theirs = getattr(block, "downsample", None)
        if isinstance(theirs, partial):
            block.downsample = PadShortcut(theirs.keywords["planes"], theirs.keywords["stride"], detach=detach)


def _swap_norms(module: nn.Module, norm: str) -> None:
    """Replace every batch norm: MONAI's `norm` argument reaches its stem only."""
    for child_name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm3d):
            n = child.num_features
            spec = ("instance", {"affine": True}) if norm == "instance" else ("group", {"num_groups": math.gcd(8, n)})
            setattr(module, child_name, cast(nn.Module, get_norm_layer(spec, spatial_dims=3, channels=n)))
        else:
            _swap_norms(child, norm)
