"""What sentences assert, learned by the text tower from report-derived attributes before it meets images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from medvl.data.targets import Targets
from medvl.objectives.attributes import AttributeHeads, attribute_loss
from medvl.objectives.registry import Objective, Options, Scene, Sizes


class TextAttributes(Objective):
    """Whole reports and single statements, each to the attributes it states, by linear heads over the tower's pooled states.

    Source: ours. It stands where a pretrained language model would: a tower that has never read a report cannot tell "no mass"
    from "mass", and contrast with images alone taught it neither (docs/explanation/demo-model.md).
    """

    needs = ("text_states", "statement_states")

    def __init__(self, options: Options, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.heads = nn.ModuleDict({name: AttributeHeads(sizes.text, kind) for name, kind in sizes.kinds.items()})

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from report states (B, H) and statement states (S, H)."""
        states, targets = [found["text_states"]], [scene.targets]
        if scene.statements is not None:
            states.append(found["statement_states"])
            targets.append(scene.statements)
        outputs = cast(list[Tensor], self.heads[scene.kind](torch.cat(states)))
        return attribute_loss(outputs, _joined(targets))


def _joined(parts: list[Targets]) -> Targets:
    return Targets(
        np.concatenate([p.binary for p in parts]),
        np.concatenate([p.classes for p in parts]),
        np.concatenate([p.numbers for p in parts]),
    )
