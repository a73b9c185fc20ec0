"""Batches in the order of the steps, loaded here or in worker processes, the same whichever."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medvl.training.loop_options import LoopOptions, derived_seed
from medvl.training.task import Part, Plan, Task

Inputs = list[dict[str, Tensor]]


def parts_of(plan: Plan, count: int) -> list[dict[str, Any]]:
    """Each group of a batch cut into `count` runs as even as can be, in batch order; some are empty when items are few."""
    cut = {group: np.array_split(np.arange(size, dtype=np.int64), count) for group, size in plan.sizes.items()}
    return [{group: pieces[i] for group, pieces in cut.items()} for i in range(count)]


class _Steps(Dataset[Inputs]):
    """Item s is what one rank needs for batch s: the inputs of each of its pieces."""

    def __init__(self, task: Task, options: LoopOptions, rank: int, size: int) -> None:
        self.task, self.options = task, options
        self.first, self.count = rank * options.pieces, size * options.pieces

    def __getitem__(self, step: int) -> Inputs:
        plan = self.task.plan(step)
        own = parts_of(plan, self.count)[self.first : self.first + self.options.pieces]
        return [self._load(plan, part, self.first + i) for i, part in enumerate(own)]

    def _load(self, plan: Plan, part: Part, number: int) -> dict[str, Tensor]:
        if not any(len(rows) for rows in part.values()):
            return {}
        torch.manual_seed(derived_seed(self.options.seed, "load", plan.step, number))
        return self.task.load(plan, part)


def batches(task: Task, options: LoopOptions, start: int, rank: int = 0, size: int = 1, *, pin: bool = False) -> Iterator[Inputs]:
    """Inputs of this rank's pieces for every batch from optimiser step `start` to the end."""
    order = range(start * options.accumulate, options.steps * options.accumulate)
    forked = "fork" if options.workers and sys.platform.startswith("linux") else None
    return iter(
        DataLoader(
            _Steps(task, options, rank, size),
            batch_size=None,
            sampler=order,
            num_workers=options.workers,
            prefetch_factor=2 if options.workers else None,
            multiprocessing_context=forked,
            pin_memory=pin,
            generator=torch.Generator().manual_seed(0),
        )
    )
