"""Both towers in one space: regions of a scan and sentences of a report as unit vectors, and what made them alike."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medvl.models.config import ClipConfig
from medvl.models.encoder import EvidencePool, ImageEncoder
from medvl.models.text_encoder import TextEncoder


class RegionClip(nn.Module):
    """Aligned image and text towers for regions of a scan.

    Args:
        config: shapes of both towers.
        vocab_size: entries of the tokenizer in use.
    """

    def __init__(self, config: ClipConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.image = ImageEncoder(config.image)
        self.pool = EvidencePool(config.image)
        self.image_projection = nn.ModuleList(nn.Linear(self.pool.width, config.embed_dim) for _ in config.image.kinds)
        self.text = TextEncoder(config.text, vocab_size)
        self.text_projection = nn.Linear(config.text.hidden_size, config.embed_dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.initial_scale)))

    @property
    def scale(self) -> Tensor:
        """() multiplier of cosines, already exponentiated and bounded."""
        return self.log_scale.exp().clamp(max=self.config.max_scale)

    def pooled(self, pixels: Tensor, kind: Tensor) -> Tensor:
        """(B, P) pooled image features of pixels (B, C, D, H, W) for region kinds (B,)."""
        tokens, _ = self.image(pixels)
        pooled: Tensor = self.pool(tokens, kind)
        return pooled

    def project(self, pooled: Tensor, kind: Tensor) -> Tensor:
        """(B, E) float32 embeddings before normalisation, each row through the projection of its kind."""
        every = torch.stack([layer(pooled) for layer in self.image_projection], 1).float()
        return every[torch.arange(len(kind), device=kind.device), kind]

    def embed_image(self, pixels: Tensor, kind: Tensor) -> Tensor:
        """(B, E) unit-norm embeddings of regions."""
        return functional.normalize(self.project(self.pooled(pixels, kind), kind), dim=-1)

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, E) unit-norm embeddings of token ids (B, L) under mask (B, L)."""
        return functional.normalize(self.text_projection(self.text(ids, mask)).float(), dim=-1)

    def contributions(self, pixels: Tensor, kind: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and how much each place of the region moved them along given directions.

        Args:
            pixels: (B, C, D, H, W) in [0, 1].
            kind: (B,) region kinds, all equal.
            directions: (F, E), such as present minus absent prompts.

        Returns:
            Unit embeddings (B, E), and (B, F, d, h, w) contributions on the token grid. Summed over the grid, plus the
            projection's bias along the direction, and divided by the embedding's length, they give the cosine with it.
        """
        tokens, grid = self.image(pixels)
        projection = cast(nn.Linear, self.image_projection[int(kind[0])])
        raw = projection(self.pool(tokens, kind)).float()
        along = directions.to(projection.weight.dtype) @ projection.weight
        shares = self.pool.shares(tokens, kind, along)
        length = raw.norm(dim=-1).clamp_min(1e-6)
        return raw / length[:, None], (shares / length[:, None, None]).unflatten(-1, grid)
