"""Other 3D networks of MONAI as encoders: DenseNet-121, the encoder of SegResNet and the Swin transformer of Swin UNETR."""

from __future__ import annotations

from typing import Literal

from monai.networks.nets.densenet import DenseNet121
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinTransformer
from pydantic import field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.models.encoders.base import Encoded, EncoderOptions, Grid, ImageEncoder, check_stride, of_map


class DenseNetOptions(EncoderOptions):
    """Shape of a DenseNet-121.

    Args:
        init_features: channels of the stem; growth_rate: channels that each layer adds.
        dropout: after each layer.
    """

    init_features: int = 64
    growth_rate: int = 32
    dropout: float = 0.0


class DenseNetEncoder(ImageEncoder):
    """MONAI's DenseNet-121 without its classifier (Huang et al. 2017 in three dimensions); total stride 32.

    Raises:
        ConfigError: the grid collapses.
    """

    def __init__(self, in_channels: int, grid_dhw: Grid, options: DenseNetOptions) -> None:
        super().__init__()
        check_stride("densenet121", grid_dhw, 32, "use a larger grid or another encoder")
        self.features = DenseNet121(
            3,
            in_channels,
            1,
            init_features=options.init_features,
            growth_rate=options.growth_rate,
            dropout_prob=options.dropout,
        ).features
        self.token_dim = self.pooled_dim = self.features.get_submodule("norm5").num_features  # type: ignore[assignment]

    def forward(self, pixels: Tensor) -> Encoded:
        """Rectified last features and their mean from pixels (B, C, D, H, W) in [0, 1]."""
        return of_map(functional.relu(self.features(pixels)))


class SegResNetOptions(EncoderOptions):
    """Shape of the encoder of a SegResNet.

    Args:
        filters: channels of the first level, doubled at each next.
        blocks: residual blocks of each level; each level after the first halves the grid.
    """

    filters: int = 16
    blocks: tuple[int, ...] = (1, 2, 2, 4)

    @model_validator(mode="after")
    def _whole_groups(self) -> SegResNetOptions:
        if self.filters % 8:
            raise ValueError(f"filters {self.filters} is no multiple of the 8 groups of its norms")
        return self


class SegResNetEncoder(ImageEncoder):
    """The way down of MONAI's SegResNet (Myronenko 2018).

    Raises:
        ConfigError: the grid collapses.
    """

    def __init__(self, in_channels: int, grid_dhw: Grid, options: SegResNetOptions) -> None:
        super().__init__()
        n_levels = len(options.blocks)
        check_stride("segresnet", grid_dhw, 2 ** (n_levels - 1), "use fewer levels in blocks")
        whole = SegResNet(3, options.filters, in_channels, blocks_down=options.blocks, blocks_up=(1,) * (n_levels - 1))
        self.convInit, self.down_layers = whole.convInit, whole.down_layers
        self.token_dim = self.pooled_dim = options.filters * 2 ** (n_levels - 1)

    def forward(self, pixels: Tensor) -> Encoded:
        """Features of the deepest level and their mean from pixels (B, C, D, H, W) in [0, 1]."""
        x = self.convInit(pixels)
        for level in self.down_layers:
            x = level(x)
        return of_map(x)


class SwinOptions(EncoderOptions):
    """Shape of the Swin transformer of Swin UNETR.

    Args:
        feature_size: channels after the patch embedding, doubled at each of the four stages.
        depths, heads: of each stage; window: edge of the attention windows in tokens.
        patch: edges of a patch in voxels, one number for a cube.
        stage: the one that gives tokens and pooled vector: 0 is the embedding, 4 the deepest.
        checkpoint: less memory for more time.
    """

    feature_size: int = 24
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window: int = 7
    patch: Grid = (2, 2, 2)
    stage: Literal[0, 1, 2, 3, 4] = 4
    checkpoint: bool = False

    @field_validator("patch", mode="before")
    @classmethod
    def _cube(cls, value: object) -> object:
        return (value, value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _whole_heads(self) -> SwinOptions:
        for n, heads in enumerate(self.heads):
            if (self.feature_size * 2**n) % heads:
                raise ValueError(f"{self.feature_size * 2**n} channels of stage {n} do not divide by {heads} heads")
        return self


class SwinEncoder(ImageEncoder):
    """MONAI's `SwinTransformer` (Liu et al. 2021, Hatamizadeh et al. 2022), each neighbour merged once (`mergingv2`).

    Raises:
        ConfigError: the grid collapses, or the patch does not divide it.
    """

    def __init__(self, in_channels: int, grid_dhw: Grid, options: SwinOptions) -> None:
        super().__init__()
        if any(n % p for n, p in zip(grid_dhw, options.patch, strict=True)):
            raise ConfigError(f"encoder swin_unetr: patch {options.patch} does not divide the grid {grid_dhw}; choose a divisor")
        stride = max(options.patch) * 2**options.stage
        check_stride("swin_unetr", grid_dhw, stride, "use an earlier stage or a smaller patch")
        self.trunk = SwinTransformer(
            in_channels,
            options.feature_size,
            (options.window,) * 3,
            options.patch,
            options.depths,
            options.heads,
            use_checkpoint=options.checkpoint,
            downsample="mergingv2",
        )
        for unused in range(options.stage + 1, 5):
            setattr(self.trunk, f"layers{unused}", nn.ModuleList())
        self._stages = [f"layers{n}" for n in range(1, options.stage + 1)]
        self.token_dim = self.pooled_dim = options.feature_size * 2**options.stage

    def forward(self, pixels: Tensor) -> Encoded:
        """Layer-normalised features of the stage and their mean from pixels (B, C, D, H, W) in [0, 1]."""
        x = self.trunk.patch_embed(pixels)
        for stage in self._stages:
            for layer in self.trunk.get_submodule(stage).children():
                x = layer(x.contiguous())
        return of_map(self.trunk.proj_out(x, normalize=True))
