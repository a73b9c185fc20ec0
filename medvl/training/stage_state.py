"""What a stage borrows while it runs and gives back: signals, gradient flags and training mode."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn

from medvl.errors import MedvlError


class Interrupted(MedvlError):  # noqa: N818 - it says what happened
    """A signal asked the stage to end; its last finished step is in a checkpoint.

    Args:
        step: steps that are done; steps: in all; folder: of the stage.
        number: of the signal that came to this process, None when it came to another rank.
    """

    def __init__(self, step: int, steps: int, folder: Path, number: int | None) -> None:
        self.exit_code = 128 + (number or signal.SIGTERM)
        super().__init__(f"interrupted after step {step} of {steps}; the same command goes on from the checkpoint in {folder}")


class Signals:
    """Notes the first SIGTERM or SIGINT in `came` instead of dying; the second one acts as ever. Main thread only."""

    def __init__(self) -> None:
        self.came: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        self.came = number
        self.__exit__()


@contextmanager
def only(task: nn.Module, trained: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Ask for gradients of these parameters and of no other."""
    before = {name: parameter.requires_grad for name, parameter in task.named_parameters()}
    for name, parameter in task.named_parameters():
        parameter.requires_grad_(name in trained)
    try:
        yield
    finally:
        for name, parameter in task.named_parameters():
            parameter.requires_grad_(before[name])
            parameter.grad = None


def train_mode(task: nn.Module, trained: Mapping[str, nn.Parameter]) -> None:
    """Training mode, except for modules that have parameters of which none is trained: those stay as they are used."""
    task.train()
    moving = {id(parameter) for parameter in trained.values()}
    for module in task.modules():
        parameters = list(module.parameters())
        if parameters and not any(id(parameter) in moving for parameter in parameters):
            module.eval()
