"""How a run uses the machine: device, processes, checkpoints by the clock. Nothing here changes what is learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from medvl.errors import MedvlError
from medvl.training.distributed import World, open_world
from medvl.training.loop_options import LoopOptions, Parallel

T = TypeVar("T")


class FirstFailed(MedvlError):  # noqa: N818 - it says what happened
    """The first process of the run stopped with an error, which it told itself; this one has nothing to add."""


@dataclass(frozen=True)
class Machine:
    """Choices that leave the hash of a stage alone.

    Args:
        device: auto, cpu or cuda.
        parallel: how weights are held when torchrun started several processes: ddp, fsdp or none.
        checkpoint_every_s: seconds between checkpoints; 0 after every step, None for never by the clock.
        tensorboard: also write event files.
        mlflow: folder or address of a tracking server that gets the curves too; None for none.
    """

    device: str = "auto"
    parallel: Parallel = "ddp"
    checkpoint_every_s: float | None = 120.0
    tensorboard: bool = False
    mlflow: str | None = None

    def options(self, **learning: Any) -> LoopOptions:
        """Options of the loop: these and what a stage is told of learning."""
        return LoopOptions(**learning, **asdict(self))

    @cached_property
    def world(self) -> World:
        """The processes of this run; joins them at first use.

        Raises:
            ConfigError: the device is not there, or several processes run and `parallel` is none.
        """
        return open_world(self.options(steps=1, learning_rate=1.0))

    def once(self, make: Callable[[], T]) -> T:
        """What `make` gives, called on the first process before the others, who then find the files it left.

        Raises:
            FirstFailed: on the others, when it raised on the first.
        """
        found: list[T] = []
        try:
            if self.world.leads:
                found.append(make())
        finally:
            failed = self.world.agree(self.world.leads and not found)[0]
        if failed:
            raise FirstFailed("the first process of this run stopped with an error")
        return found[0] if found else make()

    def same(self, make: Callable[[], Tensor], shape: tuple[int, ...]) -> Tensor:
        """A float32 tensor that the first process makes, on the processor of every process."""
        if self.world.size == 1:
            return make()
        made = make() if self.world.leads else torch.zeros(shape)
        self.world.agree()  # this may take longer than devices wait for each other
        sent = made.to(self.world.device)
        self.world.alike([sent])
        return sent.cpu()
