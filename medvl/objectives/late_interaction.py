"""Late interaction: every place of a region finds its best word, every word its best place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from medvl.objectives.contrastive import two_way_cross_entropy
from medvl.objectives.image_text import same_text_of
from medvl.objectives.registry import Objective, Options, Scene, Sizes
from medvl.objectives.scale import Scale

_BELOW_ANY_COSINE = -2.0


def best_matches(image: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Two (B, N) similarities of B images and N texts, whose largest step holds B * L * N * M cosines.

    Args:
        image: (B, L, E) unit tokens.
        text: (N, M, E) unit tokens.
        mask: (N, M) bool, True where a text has a token.

    Returns:
        Mean over image tokens of the best cosine with a text's tokens, and mean over a text's tokens of the best with an image's.
    """
    with torch.autocast(image.device.type, enabled=False):
        cosines = torch.einsum("ble,nme->blnm", image.float(), text.float())
    of_words = cosines.max(1).values
    of_places = cosines.masked_fill(~mask, _BELOW_ANY_COSINE).max(-1).values
    return of_places.mean(1), (of_words * mask).sum(-1) / mask.sum(-1).clamp_min(1)


def late_interaction(image: Tensor, text: Tensor, mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """What `best_matches` gives, a few images at a time, and again in the backward pass instead of keeping the cosines.

    Args:
        image: (B, L, E) unit tokens.
        text: (N, M, E) unit tokens.
        mask: (N, M) bool.
        most: cosines held at once, though never less than those of one image.
    """
    n_images = max(1, most // max(image.shape[1] * mask.numel(), 1))
    parts = [
        checkpoint(best_matches, part, text, mask, use_reentrant=False, preserve_rng_state=False)
        for part in image.split(n_images)
    ]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


class LateInteractionOptions(Options):
    """`duplicates_as_positives`, `initial_scale`, `max_scale`: as for pairs; `chunk`: cosines of tokens held at once."""

    duplicates_as_positives: bool = True
    initial_scale: float = Field(1 / 0.07, gt=0)
    max_scale: float | None = Field(100.0, gt=1)
    chunk: int = Field(2**24, ge=1)


class LateInteraction(Objective):
    """Cross-entropy both ways between regions and report texts, compared token by token.

    Source: FILIP (Yao et al. 2021), mean token-wise maximum similarity. Departures: equal texts are no negatives, and all tokens
    are compared in float32, in chunks, where FILIP keeps the most telling quarter of them.
    """

    options_type = LateInteractionOptions
    needs = ("image_tokens", "text_tokens", "text_mask")
    options: LateInteractionOptions

    def __init__(self, options: LateInteractionOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.scale = Scale(options.initial_scale)

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from unit image tokens (B, L, E), unit text tokens (B, M, E) and their mask (B, M)."""
        mask = found["text_mask"].bool()
        places, words = late_interaction(found["image_tokens"], found["text_tokens"], mask, self.options.chunk)
        targets = None
        if self.options.duplicates_as_positives:
            targets = (same_text_of(scene, "late_interaction").to(places.device),) * 2
        scale = self.scale(self.options.max_scale)
        return two_way_cross_entropy(scale * places, scale * words.T, targets)
