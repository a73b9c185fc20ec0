"""Where findings lie: taught on the token grid wherever a mask of them exists."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.objectives.registry import Objective, Scene

MOST_WEIGHT = 12.0


def mark_loss(logits: Tensor, marks: Tensor) -> Tensor:
    """() mean cross-entropy of (B, L, K) logits with (B, d, h, w) uint8 bits; marked cells weigh more, up to `MOST_WEIGHT`.

    A cell in a thousand is marked, and the region's answer is the maximum over all: weighing both sides alike would flood it.
    Each finding's sum is divided by the weight of its marked cells, so that rare findings are not drowned by common ones.
    """
    order = torch.arange(logits.shape[-1], device=marks.device, dtype=marks.dtype)
    bits = (marks.flatten(1)[..., None] >> order & 1).to(logits.device).float()
    raw = functional.binary_cross_entropy_with_logits(logits.float(), bits, reduction="none")
    share = bits.mean((0, 1)).clamp(1e-4, 0.5)
    weight = (0.25 / share).clamp(1.0, MOST_WEIGHT)
    return (raw * (bits * weight + (1 - bits))).sum((0, 1)).div((bits * weight).sum((0, 1)) + MOST_WEIGHT).mean()


class Marks(Objective):
    """Cells of the token grid that a finding touches, one channel a finding.

    Source: our own. A kind whose findings have no channels gives 0.
    """

    needs = ("marks",)

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from logits (B, L, K) of this kind's findings.

        Raises:
            ConfigError: no marks came with the batch, or on another grid than the logits.
        """
        logits = found["marks"]
        n_findings = len(self.sizes.kinds[scene.kind].marks)
        if n_findings == 0:
            return logits.sum() * 0.0
        if scene.marks is None:
            raise ConfigError(f"objective marks: the cohort has no marks of {scene.kind}; give masks or drop the objective")
        expected = (len(logits), scene.marks[0].numel(), n_findings)
        if tuple(logits.shape) != expected:
            raise ConfigError(
                f"objective marks: logits of {scene.kind} are {tuple(logits.shape)}, its marks need {expected} (samples, cells, "
                "findings); give the model one channel a finding and marks on its token grid"
            )
        return mark_loss(logits, scene.marks)
