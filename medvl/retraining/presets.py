"""How a retraining uses a machine: batch, precision and loading processes by preset; pieces of the gradient cache by a probe.

A preset changes what is learned only by the size of the batch, which is bounded by the data. Memory is met by cutting a batch
into pieces, which leaves its gradient as it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch

from medvl.errors import ConfigError, did_you_mean

GIB = 2**30
STEPS_A_PASS = 6  # at least so many batches in one pass over the data


@dataclass(frozen=True)
class Preset:
    """Choices for a kind of machine.

    Args:
        name: cpu, 8gb, 24gb or 80gb.
        factor: on the recipe's batches.
        grid: factor on voxels along each axis, for a recipe that starts afresh; from a parent's weights the grid stays.
        precision: bf16 where the device multiplies it, else fp32.
        workers: processes that load.
        memory_bytes: of the device that may be used; None on processors.
    """

    name: str
    factor: int
    grid: float
    precision: Literal["bf16", "fp32"]
    workers: int
    memory_bytes: int | None = None

    def batch_of(self, batch: int, n_regions: int) -> int:
        """The batch of a stage: the recipe's times `factor`, but `STEPS_A_PASS` batches or more a pass; 2 at least."""
        return max(2, min(batch * self.factor, n_regions // STEPS_A_PASS))


_SIZES = {"8gb": (1, 1.0, 8), "24gb": (2, 1.5, 24), "80gb": (4, 2.0, 80)}
NAMES = ("cpu", *_SIZES)


def choose(name: str = "auto", device: str = "auto") -> Preset:
    """The preset of that name on this machine; auto takes the largest that the device's memory holds, or cpu without one.

    Raises:
        ConfigError: there is no such preset, or it wants a device that is not there.
    """
    there = device != "cpu" and torch.cuda.is_available()
    if name == "auto":
        held = torch.cuda.get_device_properties(0).total_memory / GIB if there else 0.0
        name = next((n for n in reversed(_SIZES) if held >= 0.9 * _SIZES[n][2]), "8gb") if there else "cpu"
    if name == "cpu":
        fast = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        return Preset("cpu", 1, 1.0, "bf16" if fast else "fp32", 0)
    if name not in _SIZES:
        raise ConfigError(f"no preset called {name}; {did_you_mean(name, ('auto', *NAMES))}")
    if not there:
        raise ConfigError(f"preset {name} wants a CUDA device, and none is to be used here; give --preset cpu")
    factor, grid, gib = _SIZES[name]
    free = min(torch.cuda.mem_get_info()[0], gib * GIB)
    workers = max(2, min(12, (os.cpu_count() or 4) - 2))
    return Preset(name, factor, grid, "bf16" if torch.cuda.is_bf16_supported() else "fp32", workers, int(0.9 * free))
