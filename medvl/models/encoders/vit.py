"""A 3D vision transformer that can be shown some of its patches only."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from medvl.errors import ConfigError
from medvl.models.encoders.base import Encoded, EncoderOptions, Grid, ImageEncoder
from medvl.models.encoders.transformer import Block, initialise, patchify, sincos_positions


class VitOptions(EncoderOptions):
    """Shape of a 3D vision transformer.

    Args:
        patch: edges of a patch in voxels, one number for a cube.
        width: of the tokens; depth: blocks; heads: of each attention; mlp_ratio: hidden width of the perceptrons over `width`.
        positions: a learned table, fixed sines and cosines, or none.
        class_token: prepend one; pool: what stands for the whole, the class token or the mean of all others.
        norm_pre: normalise tokens before the first block, as CLIP does.
        quick_gelu: CLIP's approximation of the GELU.
        patch_bias: whether the patch embedding has a bias; qkv_bias: whether queries, keys and values have one.
        dropout: in every block.
        checkpoint: keep no activations inside blocks and compute them again for the gradient: less memory, a third slower.
    """

    patch: Grid = (8, 8, 8)
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    positions: Literal["learned", "sincos", "none"] = "learned"
    class_token: bool = False
    pool: Literal["class", "mean"] = "mean"
    norm_pre: bool = False
    quick_gelu: bool = False
    patch_bias: bool = True
    qkv_bias: bool = True
    dropout: float = 0.0
    checkpoint: bool = False

    @field_validator("patch", mode="before")
    @classmethod
    def _cube(cls, value: Any) -> Any:
        return (value, value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _consistent(self) -> VitOptions:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide by {self.heads} heads")
        if self.pool == "class" and not self.class_token:
            raise ValueError("pool class needs class_token true")
        return self


class VisionTransformer(ImageEncoder):
    """Patches to tokens by self-attention.

    Source: Dosovitskiy et al. 2021 in three dimensions. With class token, `norm_pre`, `quick_gelu` and no patch bias it is the
    image tower of CLIP (Radford et al. 2021).

    Args:
        in_channels: channels of the pixels, one per HU window.
        grid_dhw: grid of the pixels, a multiple of the patch.
        options: shape.

    Raises:
        ConfigError: the patch does not divide the grid.
    """

    position: Tensor | None

    def __init__(self, in_channels: int, grid_dhw: Grid, options: VitOptions) -> None:
        super().__init__()
        if any(n % p for n, p in zip(grid_dhw, options.patch, strict=True)):
            raise ConfigError(f"encoder vit: patch {options.patch} does not divide the grid {grid_dhw}; choose a divisor")
        d, h, w = (n // p for n, p in zip(grid_dhw, options.patch, strict=True))
        self.options, self.grid_dhw, self.token_grid = options, grid_dhw, (d, h, w)
        self.n_tokens, self.n_extra = d * h * w, int(options.class_token)
        self.token_dim = self.pooled_dim = width = options.width
        self.patch_weight = nn.Parameter(torch.empty(width, in_channels, *options.patch))
        self.patch_bias = nn.Parameter(torch.zeros(width)) if options.patch_bias else None
        self.class_token = nn.Parameter(torch.empty(width)) if options.class_token else None
        self._add_positions()
        self.norm_pre = nn.LayerNorm(width) if options.norm_pre else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(
                width,
                options.heads,
                options.mlp_ratio,
                quick_gelu=options.quick_gelu,
                qkv_bias=options.qkv_bias,
                dropout=options.dropout,
            )
            for _ in range(options.depth)
        )
        self.norm = nn.LayerNorm(width)
        initialise(self)
        nn.init.xavier_uniform_(self.patch_weight.detach().flatten(1))
        if self.class_token is not None:
            nn.init.trunc_normal_(self.class_token, std=0.02)

    def _add_positions(self) -> None:
        """(extra + L, W) table: learned, or fixed with zeros for the class token."""
        rows, width = self.n_extra + self.n_tokens, self.options.width
        if self.options.positions == "learned":
            self.position = nn.Parameter(nn.init.trunc_normal_(torch.empty(rows, width), std=0.02))
        elif self.options.positions == "sincos":
            table = functional.pad(sincos_positions(self.token_grid, width), (0, 0, self.n_extra, 0))
            self.register_buffer("position", table, persistent=False)
        else:
            self.position = None

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Encoded:
        """Tokens and pooled vector of pixels (B, C, D, H, W) in [0, 1].

        Args:
            pixels: on the grid that the encoder was built for.
            keep: (B, K) int64 tokens to look at; all others never enter the network. Tokens come back in this order.
        """
        states = self.states(pixels, keep)
        tokens = states[:, self.n_extra :]
        pooled = states[:, 0] if self.options.pool == "class" else tokens.mean(1)
        return Encoded(tokens, self.token_grid, pooled)

    def states(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, extra + K, W) normalised last states, the class token first where there is one.

        Raises:
            ConfigError: pixels on another grid.
        """
        if tuple(pixels.shape[2:]) != self.grid_dhw:
            raise ConfigError(f"encoder vit: pixels on grid {tuple(pixels.shape[2:])}, built for {self.grid_dhw}; resample them")
        x = self.norm_pre(self._embed(patchify(pixels, self.options.patch), keep))
        for block in self.blocks:
            again = self.options.checkpoint and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        states: Tensor = self.norm(x)
        return states

    def _embed(self, patches: Tensor, keep: Tensor | None) -> Tensor:
        """Patches (B, L, V) as tokens at their places; voxels of dropped patches are left behind here."""
        if keep is not None:
            patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[2]))
        x = functional.linear(patches, self.patch_weight.flatten(1), self.patch_bias)
        if self.position is not None:
            table = self.position[self.n_extra :]
            x = x + (table if keep is None else table[keep])
        if self.class_token is not None:
            first = self.class_token if self.position is None else self.class_token + self.position[0]
            x = torch.cat([first.to(x.dtype).expand(x.shape[0], 1, -1), x], 1)
        return x
