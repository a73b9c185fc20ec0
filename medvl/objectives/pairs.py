"""Sigmoid objectives: every pair of region and text is its own yes-or-no question."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from medvl.data.targets import agreement
from medvl.errors import ConfigError
from medvl.objectives.contrastive import assertion_pairs, sigmoid_pairs
from medvl.objectives.image_text import same_text_of
from medvl.objectives.registry import Objective, Options, Scene, Sizes
from medvl.objectives.scale import Scale


class SigmoidOptions(Options):
    """Which pairs belong together.

    Args:
        negatives: `all`: every other text; `contradicted`: only texts that the region's labels contradict, while texts that its
            labels bear out are positives and the rest is left out.
        duplicates_as_positives: equal texts belong to each other's regions.
        initial_scale, max_scale, initial_bias: of the logits.
    """

    negatives: Literal["all", "contradicted"] = "all"
    duplicates_as_positives: bool = True
    initial_scale: float = Field(10.0, gt=0)
    max_scale: float | None = Field(100.0, gt=1)
    initial_bias: float = -10.0


class SigmoidPairwise(Objective):
    """Sigmoid loss over all pairs of regions and report texts of the batch.

    Source: SigLIP (Zhai et al. 2023), equation 1, with its initial scale and bias.
    Departures: equal texts are positives; optionally only contradicted texts are negatives.
    """

    options_type = SigmoidOptions
    needs = ("image", "text")
    options: SigmoidOptions

    def __init__(self, options: SigmoidOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.scale = Scale(options.initial_scale)
        self.bias = nn.Parameter(torch.tensor(options.initial_bias))

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from unit image (B, E) and text (B, E)."""
        agrees = self.agrees(scene, len(found["image"])).to(found["image"].device)
        return sigmoid_pairs(found["image"], found["text"], agrees, self.scale(self.options.max_scale), self.bias)

    def agrees(self, scene: Scene, n: int) -> Tensor:
        """(B, B) int8 over regions and texts: 1 belong together, 0 do not, -1 unknown."""
        positive = torch.eye(n, dtype=torch.bool)
        if self.options.duplicates_as_positives:
            positive = same_text_of(scene, "sigmoid_pairwise").cpu() > 0
        if self.options.negatives == "all":
            return positive.to(torch.int8)
        said = torch.tensor(agreement(scene.targets, scene.targets, self.sizes.kinds[scene.kind]))
        return torch.where(positive, torch.ones_like(said), said)


class AssertionOptions(Options):
    """Logits at the start: scale `exp(initial_log_scale)` and `initial_bias`."""

    initial_log_scale: float = 2.3
    initial_bias: float = -2.0


class Assertions(Objective):
    """Regions against single statements: true of the region, contradicted by its labels, or unknown and left out.

    Source: SigLIP's loss (Zhai et al. 2023) on region-statement pairs; our own. Departures: unknown pairs do not count, and true
    and contradicted pairs weigh alike however many there are of each.
    """

    options_type = AssertionOptions
    needs = ("image", "statements")
    options: AssertionOptions

    def __init__(self, options: AssertionOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.scale = Scale(math.exp(options.initial_log_scale))
        self.bias = nn.Parameter(torch.tensor(options.initial_bias))

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from unit image (B, E) and statements (S, E).

        Raises:
            ConfigError: the scene does not say what the statements assert.
        """
        if scene.statements is None:
            raise ConfigError(f"objective assertions: no statements were drawn for {scene.kind}; draw some or drop the objective")
        agrees = torch.tensor(agreement(scene.targets, scene.statements, self.sizes.kinds[scene.kind]))
        image = found["image"]
        return assertion_pairs(image, found["statements"], agrees.to(image.device), self.scale(), self.bias)
