"""Masked pretraining: rebuild the patches of a scan that the encoder was never shown."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.models.encoders.transformer import Block, initialise, patchify, sincos_positions
from medvl.models.encoders.vit import VisionTransformer


class MaskedOptions(BaseModel):
    """How much is hidden and what rebuilds it.

    Args:
        mask_ratio: share of the tokens that the encoder never sees.
        norm_pix: bring each patch to mean 0 and deviation 1 before comparing, so that contrast within patches counts.
        decoder_width: of its tokens, half the encoder's if None; decoder_heads: likewise; decoder_depth: blocks.
        decoder_positions: `sincos_scrambled` gives most tokens another token's place, as the Cardiac-CLIP release does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    mask_ratio: float = 0.75
    norm_pix: bool = True
    decoder_width: int | None = None
    decoder_depth: int = 4
    decoder_heads: int | None = None
    decoder_positions: Literal["sincos", "sincos_scrambled"] = "sincos"


class Split(NamedTuple):
    """Which tokens are seen, (B, K) int64, and which are hidden, (B, M) int64; together every token once."""

    seen: Tensor
    hidden: Tensor


class MaskedAutoencoder(nn.Module):
    """A vision transformer and the small decoder that trains it.

    Source: He et al. 2022 in three dimensions; only what is seen enters the encoder, only what is hidden is rebuilt. The
    decoder reads seen tokens first and hidden ones after; attention does not mind, each carries its place.

    Args:
        vit: the encoder to be trained; it lives on, the rest is dropped after pretraining.
        options: masking and decoder.

    Raises:
        ConfigError: the mask hides nothing or everything, or the decoder's heads do not divide its width.
    """

    places: Tensor

    def __init__(self, vit: VisionTransformer, options: MaskedOptions) -> None:
        super().__init__()
        width = options.decoder_width or vit.token_dim // 2
        heads = options.decoder_heads or max(vit.options.heads // 2, 1)
        self.n_seen = int(vit.n_tokens * (1 - options.mask_ratio) + 1e-9)
        if not 0 < self.n_seen < vit.n_tokens:
            raise ConfigError(
                f"mask_ratio {options.mask_ratio} leaves {self.n_seen} of {vit.n_tokens} tokens to see; "
                "choose a ratio that hides some and leaves some"
            )
        if width % heads:
            raise ConfigError(f"decoder_width {width} does not divide by {heads} heads; set decoder_width and decoder_heads")
        self.vit, self.options = vit, options
        self.embed = nn.Linear(vit.token_dim, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        table = sincos_positions(vit.token_grid, width, scrambled=options.decoder_positions == "sincos_scrambled")
        self.register_buffer("places", table, persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, 4.0, qkv_bias=vit.options.qkv_bias) for _ in range(options.decoder_depth))
        self.norm = nn.LayerNorm(width)
        self.rebuild = nn.Linear(width, vit.patch_weight[0].numel())
        for part in (self.embed, self.blocks, self.rebuild):
            initialise(part)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, pixels: Tensor, seeds: Tensor) -> dict[str, Tensor]:
        """What was rebuilt and what should have been.

        Args:
            pixels: (B, C, D, H, W) in [0, 1].
            seeds: (B,) int64; each sample's mask follows from its own seed, whatever else is in the batch.

        Returns:
            `reconstruction` and `target`, both (B, M, V): the hidden patches, V voxels each, channels first.
        """
        split = self.split(seeds)
        target = patchify(pixels, self.vit.options.patch).gather(1, _rows(split.hidden, self.rebuild.out_features))
        if self.options.norm_pix:
            variance, mean = torch.var_mean(target.float(), -1, keepdim=True)
            target = (target - mean) * (variance + 1e-6).rsqrt()
        return {"reconstruction": self.decode(self.vit.states(pixels, split.seen), split), "target": target}

    def split(self, seeds: Tensor) -> Split:
        """Seen and hidden tokens, each in rising order, for (B,) seeds; the same on every device."""
        order = _scramble(seeds, self.vit.n_tokens).argsort(dim=1, stable=True)
        seen, hidden = order.split([self.n_seen, self.vit.n_tokens - self.n_seen], 1)
        return Split(seen.sort(1).values, hidden.sort(1).values)

    def decode(self, states: Tensor, split: Split) -> Tensor:
        """(B, M, V) hidden patches from the encoder's states (B, extra + K, W)."""
        seen = self.embed(states)
        places = functional.pad(self.places[split.seen], (0, 0, self.vit.n_extra, 0))
        x = torch.cat([seen + places, self.mask_token + self.places[split.hidden]], 1)
        for block in self.blocks:
            x = block(x)
        rebuilt: Tensor = self.rebuild(self.norm(x[:, -split.hidden.shape[1] :]))
        return rebuilt


def _rows(index: Tensor, width: int) -> Tensor:
    return index[..., None].expand(-1, -1, width)


def _scramble(seeds: Tensor, n: int) -> Tensor:
    """(B, n) int64 pseudo-random numbers, row b from seeds[b] alone.

    Source: the finaliser of SplitMix64 (Steele et al. 2014) on a counter, in wrapping 64-bit arithmetic.
    """
    counter = torch.arange(1, n + 1, device=seeds.device)
    x = _mix(seeds.long())[:, None] + counter * -7046029254386353131
    return _mix(x)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * -4658895280553007687
    x = (x ^ _shift(x, 27)) * -7723592293110705685
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
