"""Image-text alignment: contrastive over pairs, and sigmoid over region-sentence assertions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def soft_targets(similarity: Tensor, hard_weight: float, temperature: float) -> tuple[Tensor, Tensor]:
    """Target distributions over texts for each image, and over images for each text.

    Args:
        similarity: (B, B) likeness of the pairs' labels in [0, 1], 1 on the diagonal.
        hard_weight: share of the identity in the mix, in [0, 1].
        temperature: of the softmax over `similarity`, above 0.

    Returns:
        Two (B, B) matrices whose rows sum to 1, image to text and text to image.

    Source: label-similarity targets after Cardiac-CLIP; there the second matrix is the transpose of the first, whose rows do
    not sum to 1. Here each direction has its own softmax.
    """
    identity = torch.eye(len(similarity), device=similarity.device, dtype=similarity.dtype)
    forward = (similarity / temperature).softmax(-1)
    backward = (similarity.T / temperature).softmax(-1)
    mix = [hard_weight * identity + (1 - hard_weight) * soft for soft in (forward, backward)]
    return mix[0], mix[1]


def image_text_contrastive(image: Tensor, text: Tensor, scale: Tensor, targets: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """() mean cross-entropy both ways between unit embeddings (B, E) of pairs; identity targets when None.

    Source: CLIP (Radford et al. 2021).
    """
    logits = scale * image.float() @ text.float().T
    if targets is None:
        identity = torch.arange(len(logits), device=logits.device)
        return (functional.cross_entropy(logits, identity) + functional.cross_entropy(logits.T, identity)) / 2
    return (functional.cross_entropy(logits, targets[0]) + functional.cross_entropy(logits.T, targets[1])) / 2


def assertion_pairs(image: Tensor, text: Tensor, agrees: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """() sigmoid loss between regions (B, E) and sentences (S, E).

    Args:
        image: unit embeddings of regions.
        text: unit embeddings of sentences.
        agrees: (B, S), 1 where the sentence is true of the region, 0 where the region's report contradicts it, -1 unknown.
        scale: () multiplier of cosines.
        bias: () added to the logits.

    Source: SigLIP (Zhai et al. 2023), with unknown pairs left out and both classes weighted alike.
    """
    logits = scale * image.float() @ text.float().T + bias
    loss = functional.binary_cross_entropy_with_logits(logits, (agrees > 0).to(logits.dtype), reduction="none")
    terms = [loss[agrees == value].mean() for value in (0, 1) if bool((agrees == value).any())]
    return torch.stack(terms).mean() if terms else logits.sum() * 0.0
