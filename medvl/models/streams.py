"""Findings and anatomies asked of the same tokens in two streams: gate, concept queries, prototypes and heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from medvl.errors import ConfigError

Grid = tuple[int, int, int]
_LONGEST = 100.0


class StreamsConfig(BaseModel):
    """Shape of both streams. The release is `gate="linear", positions=False, memory_norm=False, initial="normal"`.

    Args:
        hidden: width H of queries and memory; layers, heads, feedforward: of each decoder.
        dropout: within the decoders and before the heads.
        gate: how tokens are shared out: `sigmoid` (G between 0 and 1), `linear` (the release: unbounded), `none` (both get all).
        positions: add 3D sine-cosine positions to the memory.
        memory_norm: normalise each token of the memory before positions are added, so that neither drowns the other.
        shared_queries: one projection of concepts to queries for both streams, or one each.
        independent_queries: no concept sees another, so a score does not depend on what else is asked.
        initial: `normal` draws every linear weight from N(0, 0.02), `torch` keeps the layers' own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    hidden: int = Field(256, ge=6)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    feedforward: int = Field(1024, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    gate: Literal["sigmoid", "linear", "none"] = "sigmoid"
    positions: bool = True
    memory_norm: bool = True
    shared_queries: bool = True
    independent_queries: bool = False
    initial: Literal["normal", "torch"] = "torch"

    @model_validator(mode="after")
    def _heads_divide(self) -> StreamsConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}; change one of them")
        return self


class _Attention(nn.Module):
    """Multi-head attention that gives its head-averaged weights only when they are wanted."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, asked: Tensor, memory: Tensor, mask: Tensor | None = None, *, maps: bool = False) -> tuple[Tensor, Tensor]:
        """(B, N, H) answers of memory (B, L, H) to (B, N, H), and (B, N, L) weights, empty unless `maps`; mask: True is seen."""
        q = self.query(asked).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (layer(memory).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.key, self.value))
        p = self.dropout if self.training else 0.0
        if maps:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            weights = scores.softmax(-1)
            found = functional.dropout(weights, p).to(v.dtype) @ v
            shown = weights.mean(1)
        else:
            found = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
            shown = asked.new_empty(0)
        return self.out(found.transpose(1, 2).flatten(-2)), shown


class ConceptLayer(nn.Module):
    """One pre-norm decoder layer: queries see each other, then the memory, then a feed-forward network."""

    def __init__(self, config: StreamsConfig) -> None:
        super().__init__()
        width = config.hidden
        self.among = _Attention(width, config.heads, config.dropout)
        self.across = _Attention(width, config.heads, config.dropout)
        self.feedforward = nn.Sequential(
            nn.Linear(width, config.feedforward), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(config.feedforward, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, *, maps: bool = False) -> tuple[Tensor, Tensor]:
        """(B, N, H) next states of x (B, N, H) over memory (B, L, H), and what `_Attention` shows of the memory."""
        own = self.norms[0](x)
        x = x + self.dropout(self.among(own, own, mask)[0])
        found, shown = self.across(self.norms[1](x), memory, maps=maps)
        x = x + self.dropout(found)
        return x + self.dropout(self.feedforward(self.norms[2](x))), shown


class _Stream(nn.Module):
    """Memory, decoder and heads of one kind of concept."""

    def __init__(self, config: StreamsConfig, token_dim: int, concept_dim: int) -> None:
        super().__init__()
        self.memory = nn.Sequential(nn.Linear(token_dim, token_dim), nn.ReLU(), nn.Linear(token_dim, config.hidden))
        self.memory_norm = nn.LayerNorm(config.hidden) if config.memory_norm else nn.Identity()
        self.layers = nn.ModuleList(ConceptLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.existence = nn.Linear(config.hidden, 2)
        self.prototype = nn.Linear(config.hidden, concept_dim)

    def forward(self, tokens: Tensor, places: Tensor | None, x: Tensor, mask: Tensor | None, maps: bool) -> dict[str, Tensor]:
        memory = self.memory_norm(self.memory(tokens))
        if places is not None:
            memory = memory + places.to(memory.dtype)
        shown = []
        for layer in self.layers:
            x, seen = layer(x, memory, mask, maps=maps)
            shown.append(seen)
        states = self.norm(x)
        read = self.dropout(states)
        found = {"logits": self.existence(read), "states": states, "prototype": self.prototype(read)}
        return found | ({"attention": torch.stack(shown, 1)} if maps else {})


class ConceptStreams(nn.Module):
    """Asks every finding and every anatomy of an image, each in its own stream over its own share of the tokens.

    Source: MeDSLIP (Fan et al. 2024), carried to 3D; see `docs/explanation/medslip-3d.md` for what differs.

    Args:
        config: shape and switches.
        token_dim: width T of image tokens; concept_dim: width C of the concept banks.
        n_anatomies, n_findings: concepts it is trained with. Banks may have more rows; without `independent_queries` not fewer.
    """

    def __init__(self, config: StreamsConfig, token_dim: int, concept_dim: int, n_anatomies: int, n_findings: int) -> None:
        super().__init__()
        self.config = config
        self.trained = {"finding": n_findings, "anatomy": n_anatomies}
        self.gate = nn.Linear(token_dim, token_dim) if config.gate != "none" else None
        names = ("concept",) if config.shared_queries else ("finding", "anatomy")
        self.queries = nn.ModuleDict({name: nn.Linear(concept_dim, config.hidden) for name in names})
        self.streams = nn.ModuleDict({name: _Stream(config, token_dim, concept_dim) for name in ("finding", "anatomy")})
        if config.initial == "normal":
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.02)
                    nn.init.zeros_(layer.bias)

    def shares(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What of the tokens (B, L, T) findings get, and what anatomies get; unless the gate is `none`, both add up to them."""
        if self.gate is None:
            return tokens, tokens
        gate = self.gate(tokens)
        if self.config.gate == "sigmoid":
            gate = gate.sigmoid()
        return gate * tokens, (1 - gate) * tokens

    def forward(
        self, tokens: Tensor, grid: Sequence[int], anatomy_bank: Tensor, finding_bank: Tensor, *, attention: bool = False
    ) -> dict[str, Tensor]:
        """Scores and states of every concept.

        Args:
            tokens: (B, L, T) in D, H, W order.
            grid: (d, h, w) with d h w = L.
            anatomy_bank: (A, C) embedded anatomies.
            finding_bank: (F, C) embedded findings.
            attention: give the cross-attention maps too; slower, as they have to be written out.

        Returns:
            For `finding` (N = F) and `anatomy` (N = A): `_logits` (B, N, 2) absent and present, `_states` (B, N, H) before
            dropout, `_prototype` (B, N, C), and on request `_attention` (B, layers, N, L), head-averaged, summing to 1 over L.

        Raises:
            ConfigError: grid or banks do not fit.
        """
        size = (int(grid[0]), int(grid[1]), int(grid[2]))
        if math.prod(size) != tokens.shape[1]:
            raise ConfigError(f"grid {size} has {math.prod(size)} cells, but there are {tokens.shape[1]} tokens; pass their grid")
        places = sincos_positions(size, self.config.hidden).to(tokens.device) if self.config.positions else None
        found: dict[str, Tensor] = {}
        banks = {"finding": finding_bank, "anatomy": anatomy_bank}
        for (name, bank), share in zip(banks.items(), self.shares(tokens), strict=True):
            queries, mask = self._ask(name, bank)
            asked = queries.expand(tokens.shape[0], -1, -1)
            answers = self.streams[name](share, places, asked, mask, attention)
            found |= {f"{name}_{key}": value for key, value in answers.items()}
        return found

    def _ask(self, name: str, bank: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, H) queries of a bank (N, C), and which of them see each other."""
        layer = self.queries["concept" if self.config.shared_queries else name]
        if self.config.independent_queries:
            return layer(bank), torch.eye(len(bank), dtype=torch.bool, device=bank.device)
        if len(bank) < self.trained[name]:
            raise ConfigError(
                f"the {name} bank has {len(bank)} rows, but {self.trained[name]} were trained together and see each other; "
                "pass all of them, new ones after them, or train with independent_queries"
            )
        return layer(bank), None


def sincos_positions(grid: Grid, width: int) -> Tensor:
    """(L, width) float32 places in D, H, W order: sines and cosines of the cell number along each axis, zeros to fill up.

    Source: Vaswani et al. 2017 for each axis, with wavelengths from 2 pi to 200 pi cells, as grids have tens of cells.
    """
    n = width // 6
    frequencies = _LONGEST ** (-torch.arange(n, dtype=torch.float32) / n)
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float32) for size in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in axes]
    table = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1)
    return functional.pad(table, (0, width - 6 * n))


def grounding_map(
    attention: Tensor, grid: Sequence[int], reduce: Literal["mean", "last"] = "mean", *, anatomies: Tensor | None = None
) -> Tensor:
    """(d, h, w) heat map of one concept in one image, its own highest value 1 whatever else was in the batch.

    Args:
        attention: (layers, L) cross-attention of the concept.
        grid: (d, h, w).
        reduce: over layers.
        anatomies: (layers, A, L) anatomy attention of the same image: the map is multiplied by each of theirs, and averaged.
    """

    def over_layers(maps: Tensor) -> Tensor:
        return maps.mean(0) if reduce == "mean" else maps[-1]

    heat = over_layers(attention).float()
    if anatomies is not None:
        heat = (heat * over_layers(anatomies).float()).mean(0)
    peak = heat.max()
    heat = heat / peak if peak > 0 else torch.zeros_like(heat)
    return heat.reshape(int(grid[0]), int(grid[1]), int(grid[2]))
