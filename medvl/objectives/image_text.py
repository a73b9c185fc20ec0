"""Regions against their own report text: the contrastive objective behind RenalCLIP and Cardiac-CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from medvl.data.targets import Targets, likeness
from medvl.errors import ConfigError
from medvl.objectives.contrastive import image_text_contrastive, same_text, soft_targets
from medvl.objectives.registry import Objective, Options, Scene, Sizes
from medvl.objectives.scale import Scale, ScaleMode


def label_cosine(targets: Targets) -> NDArray[np.float32]:
    """(N, N) cosine of the rows' binary attributes as vectors of +1 present, -1 absent, 0 unknown; 0 for a row of zeros."""
    vectors = np.select([targets.binary == 1, targets.binary == 0], [1.0, -1.0], 0.0)
    lengths = np.sqrt((vectors**2).sum(1))
    cosine: NDArray[np.float32] = (vectors @ vectors.T / np.maximum(np.outer(lengths, lengths), 1.0)).astype(np.float32)
    return cosine


def any_known(targets: Targets) -> NDArray[np.bool_]:
    """(N,) bool, whether anything is known of each row."""
    known = np.concatenate([targets.binary >= 0, targets.classes >= 0, np.isfinite(targets.numbers)], axis=1)
    return np.asarray(known.any(axis=1), np.bool_)


def same_text_of(scene: Scene, objective: str) -> Tensor:
    """(B, B) targets spread over equal texts of the scene.

    Raises:
        ConfigError: the scene does not say which texts are equal.
    """
    if scene.duplicates is None:
        raise ConfigError(f"objective {objective}: no text numbers for {scene.kind}; set duplicates_as_positives: false")
    return same_text(scene.duplicates)


class ImageTextOptions(Options):
    """Which pairs belong together, and how sharply.

    Args:
        targets: `identity`: each region's own text; `label_similarity`: also texts of regions with similar labels.
        similarity: `likeness`: share of attributes known in both that agree; `cosine`: of vectors of +1, -1 and 0 (unknown).
        target_temperature: of the softmax over similarity. hard_weight: share of the own text in soft targets.
        duplicates_as_positives: equal texts share the target; false makes them negatives of each other.
        transpose: `correct`: each direction's targets are distributions; `release`: the second is the first, transposed.
        scale_mode, initial_scale, max_scale: of the multiplier of cosines; see `Scale`.
    """

    targets: Literal["identity", "label_similarity"] = "identity"
    similarity: Literal["likeness", "cosine"] = "likeness"
    target_temperature: float = Field(0.1, gt=0)
    hard_weight: float = Field(0.5, ge=0, le=1)
    duplicates_as_positives: bool = True
    transpose: Literal["correct", "release"] = "correct"
    scale_mode: ScaleMode = "exp"
    initial_scale: float = Field(1 / 0.07, gt=0)
    max_scale: float | None = Field(100.0, gt=1)


class ImageTextContrastive(Objective):
    """Cross-entropy both ways between regions and report texts of the whole batch.

    Source: RenalCLIP (arXiv 2508.16569), L = (CE(S, I) + CE(S^t, I)) / 2; Cardiac-CLIP (arXiv 2507.22024), where the identity is
    replaced by a softmax over cosines of pathology vectors.
    Departures from both: equal texts are no negatives (`duplicates_as_positives: false` is as released). From Cardiac-CLIP: the
    scale is exponentiated (`scale_mode: raw`), each direction has its own softmax (`transpose: release`), and a region without
    any label falls back to its own text, where the release gives NaN.
    """

    options_type = ImageTextOptions
    needs = ("image", "text")
    options: ImageTextOptions

    def __init__(self, options: ImageTextOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.scale = Scale(options.initial_scale)

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from unit image (B, E) and text (B, E)."""
        scale = self.scale(self.options.max_scale, self.options.scale_mode)
        return image_text_contrastive(found["image"], found["text"], scale, self.targets(scene, found["image"].device))

    def targets(self, scene: Scene, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Target distributions (B, B) of both directions; None stands for the identity."""
        options = self.options
        hard = same_text_of(scene, "image_text_contrastive").to(device) if options.duplicates_as_positives else None
        if options.targets == "identity":
            return None if hard is None else (hard, hard)
        values = likeness(scene.targets) if options.similarity == "likeness" else label_cosine(scene.targets)
        known = any_known(scene.targets) if options.similarity == "likeness" else (scene.targets.binary >= 0).any(1)
        forward, backward = soft_targets(
            torch.tensor(values, device=device),
            options.hard_weight,
            options.target_temperature,
            hard=hard,
            known=torch.tensor(known, device=device),
        )
        return forward, forward.T if options.transpose == "release" else backward
