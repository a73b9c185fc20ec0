"""Worker processes that can be killed: a study that hangs, crashes or eats all memory costs that study and nothing else."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_POLL_S = 0.5
_START_S = 120.0


@dataclass(frozen=True)
class Lost:
    """What became of a task whose worker is gone: ``timeout`` or ``worker_died``."""

    code: str
    message: str


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: int | None = None
    until: float = field(default=0.0)


def run(make: Callable[[T], R], tasks: Sequence[T], workers: int, timeout_s: float) -> Iterator[tuple[int, R | Lost]]:
    """(number, result) of every task, in the order in which they are done; `make` and tasks must be picklable.

    Args:
        make: goes to each worker once; must not raise.
        tasks: what to make.
        workers: processes; 0 works here, without a time limit.
        timeout_s: longest time for one task; its process is killed then.
    """
    if workers <= 0:
        yield from ((k, make(task)) for k, task in enumerate(tasks))
        return
    todo, held = deque(range(len(tasks))), list[_Worker]()
    try:
        while todo or any(worker.task is not None for worker in held):
            _staff(held, make, min(workers, len(todo) + sum(w.task is not None for w in held)))
            for worker in held:
                if worker.task is None and todo:
                    _give(worker, tasks, todo.popleft(), timeout_s)
            wait([worker.pipe for worker in held], _POLL_S)
            for worker in tuple(held):
                answer = _answer(worker, timeout_s)
                if answer is not None:
                    yield answer
                if not worker.process.is_alive() and worker.task is None:
                    _end(worker)
                    held.remove(worker)
    finally:
        for worker in held:
            _end(worker)


def _staff(held: list[_Worker], make: Callable[[Any], Any], wanted: int) -> None:
    context = multiprocessing.get_context("spawn")
    while len(held) < wanted:
        mine, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, make), daemon=True)
        process.start()
        theirs.close()
        held.append(_Worker(process, mine))


def _give(worker: _Worker, tasks: Sequence[Any], number: int, timeout_s: float) -> None:
    worker.task, worker.until = number, time.monotonic() + timeout_s + _START_S
    try:
        worker.pipe.send((number, tasks[number]))
    except OSError:
        worker.until = 0.0  # it died; the answer tells


def _answer(worker: _Worker, timeout_s: float) -> tuple[int, Any] | None:
    """What a worker has to say of its task; None while it is busy."""
    number = worker.task
    if number is None:
        return None
    try:
        if worker.pipe.poll():
            said: tuple[int, Any] | None = worker.pipe.recv()
            if said is None:  # it has begun: its time runs from now
                worker.until = time.monotonic() + timeout_s
            else:
                worker.task = None
            return said
        died = not worker.process.is_alive()
    except (EOFError, OSError):
        died = True
    if died:
        return _lost(worker, number, "worker_died", "the process that converted it ended, often for want of memory; run again")
    if time.monotonic() > worker.until:
        return _lost(
            worker, number, "timeout", f"converting took more than {timeout_s:g} s; look at the study or raise --timeout"
        )
    return None


def _lost(worker: _Worker, number: int, code: str, message: str) -> tuple[int, Lost]:
    worker.task = None
    worker.process.kill()
    worker.process.join(10)
    return number, Lost(code, message)


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    if worker.task is not None:
        worker.process.kill()
    worker.process.join(5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join(5)


def _work(pipe: Connection, make: Callable[[Any], Any]) -> None:
    """What a worker does until nobody is at the other end."""
    try:
        while True:
            number, task = pipe.recv()
            pipe.send(None)
            pipe.send((number, make(task)))
    except (EOFError, OSError, KeyboardInterrupt):
        return
