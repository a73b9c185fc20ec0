"""Ranks of one run: who is there, gathering with gradient, averaging, and holding weights copied or sharded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medvl.errors import ConfigError
from medvl.training.loop_options import LoopOptions


class World:
    """The ranks of a run as one of them sees it. This class is a run of one process; `Ranks` is a run of several.

    Args:
        device: where this rank computes.
        rank: number of this process.
        size: how many there are.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1) -> None:
        self.device, self.rank, self.size = device, rank, size

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and validates."""
        return self.rank == 0

    def move(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs on this rank's device."""
        return {key: value.to(self.device, non_blocking=True) for key, value in inputs.items()}

    def gather(self, found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, slice]]:
        """What all ranks found, end to end by rank, and which rows of it are this rank's."""
        return dict(found), {name: slice(0, len(value)) for name, value in found.items()}

    def hold(self, whole: nn.Module) -> nn.Module:
        """The module with its weights held as this run holds them."""
        return whole

    def average(self, parameters: list[nn.Parameter]) -> None:
        """Average gradients over ranks where nothing else did."""

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """Flags that any rank raised."""
        return flags

    def lead(self, make: Callable[[], Any]) -> Any:
        """What the first rank makes, told to all; JSON types."""
        return make()


def open_world(options: LoopOptions) -> World:
    """The world that the environment and the options ask for.

    Raises:
        ConfigError: CUDA is asked for and absent.
    """
    if options.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {options.device}; known: auto, cpu, cuda")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device is cuda, and torch sees no CUDA device; use device auto or cpu, or install a CUDA build of torch"
        )
    cuda = options.device != "cpu" and torch.cuda.is_available()
    return World(torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu"))
