"""Both towers in one space: regions of a scan and sentences of a report as unit vectors, and what made them alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.models.config import ClipConfig, TextTowerConfig
from medvl.models.encoder import image_encoder
from medvl.models.encoders.base import Encoded
from medvl.models.pooling import image_pool
from medvl.models.towers.base import TextTower
from medvl.models.towers.registry import build_tower


def text_tower(config: TextTowerConfig, tokenizer: Tokenizer) -> TextTower:
    """The tower that `config` names; the small BERT is shaped by its fields, the others by their options."""
    if config.name != "bert":
        return build_tower(config.name, options=config.options)
    shape = config.model_dump(include={"hidden_size", "layers", "heads", "intermediate_size", "max_length", "pooling", "dropout"})
    return build_tower("bert", options=shape, tokenizer=tokenizer)


class RegionClip(nn.Module):
    """Aligned image and text towers for regions of a scan.

    Args:
        config: shapes of both towers.
        tokenizer: of the small BERT; other towers bring their own.

    Raises:
        ConfigError: images are to meet texts in the text tower's space, and the widths differ.
    """

    def __init__(self, config: ClipConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        self.image = image_encoder(config.image)
        self.pool = image_pool(config.image, self.image)
        self.image_projection = nn.ModuleList(nn.Linear(self.pool.width, config.embed_dim) for _ in config.image.kinds)
        self.text = text_tower(config.text, tokenizer)
        if not config.text_projection and config.embed_dim != self.text.width:
            raise ConfigError(
                f"without a text projection embed_dim must be the text tower's {self.text.width}, got {config.embed_dim}"
            )
        self.text_projection = nn.Linear(self.text.width, config.embed_dim) if config.text_projection else nn.Identity()

    def pooled(self, pixels: Tensor, kind: Tensor) -> Tensor:
        """(B, P) pooled image features of pixels (B, C, D, H, W) for region kinds (B,)."""
        pooled: Tensor = self.pool(self.image(pixels), kind)
        return pooled

    def project(self, pooled: Tensor, kind: Tensor) -> Tensor:
        """(B, E) float32 embeddings before normalisation, each row through the projection of its kind."""
        every = torch.stack([layer(pooled) for layer in self.image_projection], 1).float()
        return every[torch.arange(kind.shape[0], device=kind.device), kind]

    def embed_image(self, pixels: Tensor, kind: Tensor) -> Tensor:
        """(B, E) unit-norm embeddings of regions."""
        return functional.normalize(self.project(self.pooled(pixels, kind), kind), dim=-1)

    def embed_tokens(self, encoded: Encoded, kind: Tensor) -> Tensor:
        """(B, L, E) unit-norm embeddings of image tokens through the projection of their kind.

        Raises:
            ConfigError: pooled features are no tokens' width, so that the projection does not fit tokens.
        """
        if self.pool.width != encoded.tokens.shape[-1]:
            raise ConfigError("token-wise alignment needs model.image.pool: own, where tokens and pooled features are alike")
        every = torch.stack([layer(encoded.tokens) for layer in self.image_projection], 1).float()
        return functional.normalize(every[torch.arange(kind.shape[0], device=kind.device), kind], dim=-1)

    def tokenize(self, texts: Sequence[str], length: int | None = None) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, M) int64, padded to the longest or to `length`."""
        found = self.text.tokenize(texts, length=length)
        return found["ids"], found["mask"]

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, E) unit-norm embeddings of token ids (B, L) under mask (B, L)."""
        return functional.normalize(self.text_projection(self.text(ids, mask).pooled).float(), dim=-1)

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
        return self.contributions_of(self.image(pixels), kind, directions)

    def contributions_of(self, encoded: Encoded, kind: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """As `contributions`, of regions that the image tower has read already."""
        projection = cast(nn.Linear, self.image_projection[int(kind[0])])
        raw = projection(self.pool(encoded, kind)).float()
        along = directions.to(projection.weight.dtype) @ projection.weight
        shares = self.pool.shares(encoded, kind, along)
        length = raw.norm(dim=-1).clamp_min(1e-6)
        return raw / length[:, None], (shares / length[:, None, None]).unflatten(-1, encoded.grid)
