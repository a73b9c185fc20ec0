"""SIGTERM and Ctrl-C of long commands outside the steps of a stage, whose loop minds them itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal came; `number` says which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGINT of this process into `Stopped`; processes forked from it die of them as usual."""
    owner, before = os.getpid(), dict[int, object]()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Stopped(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, stop)
    except ValueError:  # not the main thread: signals are somebody else's
        pass
    try:
        yield
    finally:
        for held, handler in before.items():
            signal.signal(held, handler)  # type: ignore[arg-type]


def first() -> bool:
    """Whether this is the first process of a run, before the processes know of each other."""
    return os.environ.get("RANK", "0") == "0"
