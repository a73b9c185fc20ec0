"""A small captioner: image tokens of one region in, the text of that region out, word by word.

A pre-norm transformer decoder (Vaswani et al. 2017; pre-norm after Xiong et al. 2020) that reads its own words so far and looks
at projected image tokens. The image tower is no part of it: it is given tokens, and no gradient leads back to their source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.models.encoders.base import Encoded

Kept = list[tuple[Tensor, Tensor]]


class CaptionerConfig(BaseModel):
    """Shapes.

    Args:
        regions: names, each with its own first word.
        grid: tokens a side of the reduced image grid.
        token_dim: width of an image token before reduction; pooled_dim: of the pooled image vector.
        vocab_size: of the tokenizer; pad_id, start_id, end_id: its special tokens.
        width, layers, heads, feed: of the decoder.
        max_length: longest text in tokens, start and end included.
        dropout: of what blocks add, and of the image; attention itself is not thinned, which would cost its fast kernel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    regions: tuple[str, ...]
    grid: int = 4
    token_dim: int = 128
    pooled_dim: int
    vocab_size: int
    pad_id: int
    start_id: int
    end_id: int
    width: int = 160
    layers: int = 3
    heads: int = 4
    feed: int = 480
    max_length: int = 112
    dropout: float = 0.1


def reduce_tokens(encoded: Encoded, grid: int) -> Tensor:
    """(B, grid ** 3, 2 T): mean and maximum of the image tokens in each cell of a coarser grid.

    Raises:
        ConfigError: the encoder's own grid is coarser.
    """
    if min(encoded.grid) < grid:
        raise ConfigError(f"the encoder's grid {encoded.grid} cannot be reduced to {grid} cells a side; set a smaller grid")
    volume = encoded.tokens.float().transpose(1, 2).unflatten(2, encoded.grid)
    parts = [functional.adaptive_avg_pool3d(volume, grid), functional.adaptive_max_pool3d(volume, grid)]
    return torch.cat(parts, 1).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Words look back at words, then at the image, then each is transformed."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own = nn.Linear(width, 3 * width)
        self.own_out = nn.Linear(width, width)
        self.ask = nn.Linear(width, width)
        self.see = nn.Linear(width, 2 * width)
        self.see_out = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, config.feed), nn.GELU(), nn.Linear(config.feed, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, seen: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, ...]:
        """Words (B, M, W) after the block, with keys and values (B, H, M', W / H) of all words so far."""
        q, k, v = (self._split(part) for part in self.own(self.norms[0](x)).chunk(3, -1))
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        looked = functional.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        x = x + self.dropout(self.own_out(self._join(looked)))
        asked = self._split(self.ask(self.norms[1](x)))
        looked = functional.scaled_dot_product_attention(asked, *seen)
        x = x + self.dropout(self.see_out(self._join(looked)))
        return x + self.dropout(self.feed(self.norms[2](x))), k, v

    def look(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, L, W / H) of the image, the same for every word."""
        k, v = self.see(memory).chunk(2, -1)
        return self._split(k), self._split(v)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class Step(NamedTuple):
    """Logits (B, M, V) and, for going on from there, keys and values of each block."""

    logits: Tensor
    kept: Kept


class Captioner(nn.Module):
    """The decoder; output and input words share their embedding.

    Args:
        config: shapes.

    Raises:
        ConfigError: the width does not split over the heads.
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ConfigError(f"captioner: a width of {config.width} does not split over {config.heads} heads")
        self.config = config
        self.words = nn.Embedding(config.vocab_size, config.width, padding_idx=config.pad_id)
        self.places = nn.Parameter(torch.zeros(config.max_length, config.width))
        self.regions = nn.Embedding(len(config.regions), config.width)
        self.patches = nn.Parameter(torch.zeros(config.grid**3 + 1, config.width))
        self.see_tokens = nn.Linear(2 * config.token_dim, config.width)
        self.see_pooled = nn.Linear(config.pooled_dim, config.width)
        self.see_norm = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        for table in (self.words.weight, self.places, self.patches, self.regions.weight):  # none drowns another
            nn.init.normal_(table, std=0.02)

    def look(self, tokens: Tensor, pooled: Tensor, region: Tensor) -> Kept:
        """Keys and values of the image for each block, from `reduce_tokens` (B, L, 2 T), pooled (B, P) and regions (B,)."""
        first = self.see_pooled(pooled) + self.regions(region)
        memory = torch.cat([first[:, None], self.see_tokens(tokens)], 1) + self.patches
        memory = self.dropout(self.see_norm(memory))
        return [block.look(memory) for block in self.blocks]  # type: ignore[operator]

    def forward(self, ids: Tensor, region: Tensor, seen: Kept, past: Kept | None = None) -> Step:
        """Logits of the word after each of ids (B, M), which go on after `past` where it is given (then M is 1).

        Raises:
            ConfigError: more words than `max_length`.
        """
        start = past[0][0].shape[2] if past else 0
        end = start + ids.shape[1]
        if end > self.config.max_length:
            raise ConfigError(f"captioner: {end} tokens are more than max_length {self.config.max_length}; cut the text")
        x = self.dropout(self.words(ids) + self.places[start:end] + self.regions(region)[:, None])
        kept: Kept = []
        for k, block in enumerate(self.blocks):
            x, key, value = block(x, seen[k], past[k] if past else None)
            kept.append((key, value))
        return Step(functional.linear(self.norm(x), self.words.weight), kept)

    def loss(self, ids: Tensor, tokens: Tensor, pooled: Tensor, region: Tensor, smoothing: float = 0.0) -> Tensor:
        """() mean cross-entropy of each next word of ids (B, M), padding left out; `smoothing` spreads over the vocabulary."""
        logits = self(ids[:, :-1], region, self.look(tokens, pooled, region)).logits.float()
        loss: Tensor = functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=self.config.pad_id, label_smoothing=smoothing
        )
        return loss


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    """(B, M) int64 ids, padded to the longest."""
    out = torch.full((len(rows), max(map(len, rows))), pad_id)
    for k, row in enumerate(rows):
        out[k, : len(row)] = torch.tensor(row)
    return out
