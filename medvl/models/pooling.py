"""From image tokens to one vector a region, and back: which token gave how much of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medvl.models.config import ImageTowerConfig
from medvl.models.encoders.base import Encoded, ImageEncoder


class EvidencePool(nn.Module):
    """Gathers values over the tokens: by learned queries (one set per kind of region), by the plain mean, and by the maximum.

    Attention and mean see what is spread out; the maximum lets one small bright token speak, and gives it a gradient that the
    others dilute. All three are weighted sums of token values once the weights are given (for the maximum: one at the winning
    token of each channel), so a score along any direction of the embedding splits over the tokens without remainder.
    """

    def __init__(self, config: ImageTowerConfig, token_dim: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(config.kinds), config.n_queries, token_dim) * token_dim**-0.5)
        self.key = nn.Linear(token_dim, token_dim)
        self.value = nn.Linear(token_dim, config.value_dim)
        self.peak = nn.Linear(token_dim, config.peak_dim)
        self.gathered = (config.n_queries + 1) * config.value_dim
        self.width = self.gathered + config.peak_dim

    def forward(self, encoded: Encoded, kind: Tensor) -> Tensor:
        """(B, (Q + 1) V + M) pooled values of (B, L, T) tokens for (B,) region kinds."""
        weights, values = self._attend(encoded.tokens, kind)
        gathered = torch.einsum("bql,blv->bqv", weights, values).flatten(1)
        return torch.cat([gathered, self.peak(encoded.tokens).amax(1)], 1)

    def shares(self, encoded: Encoded, kind: Tensor, along: Tensor) -> Tensor:
        """(B, F, L) float32 share of each token in the pooled vector's product with (F, width) directions."""
        weights, values = self._attend(encoded.tokens, kind)
        spread, sharp = along.float().split([self.gathered, self.width - self.gathered], dim=1)
        per_query = spread.view(len(along), weights.shape[1], -1)
        shares = torch.einsum("bql,blv,fqv->bfl", weights.float(), values.float(), per_query)
        top, where = self.peak(encoded.tokens).float().max(1)
        won = sharp[None] * top[:, None]
        return shares.scatter_add(2, where[:, None].expand_as(won), won)

    def _attend(self, tokens: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """Attention (B, Q + 1, L), each row summing to 1, the last row uniform; and values (B, L, V)."""
        logits = torch.einsum("bqt,blt->bql", self.queries[kind], self.key(tokens)).float()
        weights = logits.softmax(-1)
        mean = torch.full_like(weights[:, :1], 1.0 / tokens.shape[1])
        values = self.value(tokens)
        return torch.cat([weights, mean], 1).to(values.dtype), values


class OwnPool(nn.Module):
    """The encoder's own pooling: the mean of a CNN's tokens, the [CLS] state of a transformer."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.width = encoder.pooled_dim

    def forward(self, encoded: Encoded, kind: Tensor) -> Tensor:
        """(B, P) pooled features, whatever the kind."""
        return encoded.pooled

    def shares(self, encoded: Encoded, kind: Tensor, along: Tensor) -> Tensor:
        """(B, F, L) float32 product of each token with (F, P) directions, over L.

        Exact where the pooled vector is the mean of the tokens. Behind a [CLS] state it is a likeness, not a share: the sum
        over tokens differs from the pooled vector's product.
        """
        return torch.einsum("blt,ft->bfl", encoded.tokens.float(), along.float()) / encoded.tokens.shape[1]


def image_pool(config: ImageTowerConfig, encoder: ImageEncoder) -> EvidencePool | OwnPool:
    """The pooling that `config` names, over tokens of `encoder`."""
    return EvidencePool(config, encoder.token_dim) if config.pool == "evidence" else OwnPool(encoder)
