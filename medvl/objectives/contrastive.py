"""Image-text alignment: contrastive over pairs, and sigmoid over pairs or region-sentence assertions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cosines(image: Tensor, text: Tensor) -> Tensor:
    """(B, S) float32 products of unit embeddings (B, E) and (S, E), in full precision even under autocast."""
    with torch.autocast(image.device.type, enabled=False):
        return image.float() @ text.float().T


def same_text(duplicates: Tensor) -> Tensor:
    """(B, B) float32 that spreads each sample's target evenly over those of equal number in (B,) `duplicates`; rows sum to 1."""
    equal = (duplicates[:, None] == duplicates[None]).float()
    return equal / equal.sum(1, keepdim=True)


def soft_targets(
    similarity: Tensor,
    hard_weight: float,
    temperature: float,
    *,
    hard: Tensor | None = None,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Target distributions over texts for each image, and over images for each text.

    Args:
        similarity: (B, B) likeness of the pairs' labels, at its largest, 1, on the diagonal.
        hard_weight: share of `hard` in the mix, in [0, 1].
        temperature: of the softmax over `similarity`, above 0.
        hard: (B, B) targets that labels do not soften, rows summing to 1; the identity when None.
        known: (B,) bool, False where a sample has no label and its targets are `hard` alone; all True when None.

    Returns:
        Two (B, B) matrices whose rows sum to 1, image to text and text to image.

    Source: label-similarity targets after Cardiac-CLIP; there the second matrix is the transpose of the first, whose rows do
    not sum to 1. Here each direction has its own softmax.
    """
    if hard is None:
        hard = torch.eye(len(similarity), device=similarity.device, dtype=similarity.dtype)
    soft = [(values / temperature).softmax(-1) for values in (similarity, similarity.T)]
    if known is not None:
        soft = [torch.where(known[:, None], values, hard) for values in soft]
    return hard_weight * hard + (1 - hard_weight) * soft[0], hard_weight * hard + (1 - hard_weight) * soft[1]


def image_text_contrastive(image: Tensor, text: Tensor, scale: Tensor, targets: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """() mean cross-entropy both ways between unit embeddings (B, E) of pairs; identity targets when None.

    Source: CLIP (Radford et al. 2021).
    """
    return two_way_cross_entropy(scale * cosines(image, text), scale * cosines(text, image), targets)


def two_way_cross_entropy(forward: Tensor, backward: Tensor, targets: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """() mean of the cross-entropies of (B, B) logits over texts for each image and over images for each text.

    Args:
        forward: rows are images.
        backward: rows are texts.
        targets: a matrix for each, rows are distributions; identity when None.
    """
    if targets is None:
        identity = torch.arange(len(forward), device=forward.device)
        return (functional.cross_entropy(forward, identity) + functional.cross_entropy(backward, identity)) / 2
    return (functional.cross_entropy(forward, targets[0]) + functional.cross_entropy(backward, targets[1])) / 2


def sigmoid_pairs(image: Tensor, text: Tensor, agrees: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """() sigmoid loss between images (B, E) and texts (S, E), summed over known pairs and divided by B.

    Args:
        image: unit embeddings.
        text: unit embeddings.
        agrees: (B, S), 1 where they belong together, 0 where not, -1 unknown and left out.
        scale: () multiplier of cosines.
        bias: () added to the logits.

    Source: SigLIP (Zhai et al. 2023), equation 1.
    """
    logits = scale * cosines(image, text) + bias
    loss = functional.binary_cross_entropy_with_logits(logits, (agrees > 0).to(logits.dtype), reduction="none")
    return (loss * (agrees >= 0)).sum() / len(image)


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
    logits = scale * cosines(image, text) + bias
    loss = functional.binary_cross_entropy_with_logits(logits, (agrees > 0).to(logits.dtype), reduction="none")
    terms = [loss[agrees == value].mean() for value in (0, 1) if bool((agrees == value).any())]
    return torch.stack(terms).mean() if terms else logits.sum() * 0.0
