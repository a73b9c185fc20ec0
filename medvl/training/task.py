"""What the training loop asks of a stage: which samples, their inputs, what each gives by itself, and the loss over all.

The split is what makes large contrastive batches and several processes exact. `represent` sees samples one by one, so it can run
in pieces on any number of ranks; `compare` sees the representations of the whole batch, wherever they were computed.
Everything random is a function of the seed and the step, so a run that stops and goes on is the run that never stopped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Part = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Plan:
    """The batch of one step, the same on every rank.

    Args:
        step: counted from 0 over the whole stage.
        sizes: group of items, such as samples or statements, to how many of them the whole batch has.
        drawn: what the task chose, such as kind and row of each sample; cheap.
    """

    step: int
    sizes: Mapping[str, int]
    drawn: Mapping[str, Any] = field(default_factory=dict)


class Task(nn.Module, ABC):
    """One stage of training. Its state dict is what the stage keeps."""

    @abstractmethod
    def plan(self, step: int) -> Plan:
        """The batch of a step: a pure function of the step and the task's seed."""

    @abstractmethod
    def load(self, plan: Plan, part: Part) -> dict[str, Tensor]:
        """Inputs of the items `part` of each group, numbers within the whole batch; runs in a worker process."""

    @abstractmethod
    def represent(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What each item gives by itself, first dimension over items, in the order of the inputs."""

    @abstractmethod
    def compare(self, found: Mapping[str, Tensor], plan: Plan) -> tuple[Tensor, dict[str, float]]:
        """() loss of the whole batch from everything `represent` gave, in batch order, and its named parts."""

    @abstractmethod
    def groups(self) -> Sequence[tuple[Sequence[nn.Parameter], float]]:
        """Parameters to train with their factor on the learning rate; what is not here stays as it is."""

    def validate(self) -> dict[str, float]:
        """Measures on held-out patients; higher is better for the first. Empty when there is none."""
        return {}
