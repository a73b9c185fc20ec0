"""How far a run is: bars on a terminal, else a line for every tenth of a stage. Only the first process of a run shows any."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .console import err, warn

if TYPE_CHECKING:
    from rich.progress import TaskID

Told = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass
class _Pace:
    """Speed of one stage since this process began it, and which tenth was told last."""

    first: int
    total: int
    tenth: int
    since: float = field(default_factory=time.monotonic)

    def told(self, done: int) -> str:
        """Rate and time left; empty at the first step."""
        seconds = time.monotonic() - self.since
        if done <= self.first or seconds <= 0:
            return ""
        rate = (done - self.first) / seconds
        left = round((self.total - done) / rate)
        speed = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
        return f"{speed}, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


class Shown:
    """A context that gives the function to call with a stage's name, steps done, steps in all and the step's values.

    Args:
        shows: False on processes that only follow; the function then does nothing.
    """

    def __init__(self, shows: bool = True) -> None:
        self._shows, self._paces = shows, dict[str, _Pace]()

    def __enter__(self) -> Told:
        """Begin."""
        if not self._shows:
            return lambda *_: None
        if not err().is_terminal:
            return self._line
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
        self._bars, self._tasks = Progress(*columns, console=err()), dict[str, TaskID]()
        self._bars.start()
        return self._bar

    def __exit__(self, *error: object) -> None:
        """End."""
        if self._shows and err().is_terminal:
            self._bars.stop()

    def _pace(self, name: str, done: int, total: int) -> _Pace:
        if name not in self._paces or self._paces[name].total != total:
            self._paces[name] = _Pace(done, total, 10 * (done - 1) // max(1, total))
        return self._paces[name]

    def _bar(self, name: str, done: int, total: int, values: Mapping[str, float]) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, told="")
        told = "  ".join(filter(None, (_values(values), self._pace(name, done, total).told(done))))
        self._bars.update(self._tasks[name], completed=done, total=total, told=told)

    def _line(self, name: str, done: int, total: int, values: Mapping[str, float]) -> None:
        pace = self._pace(name, done, total)
        tenth = 10 * done // max(1, total)
        if tenth > pace.tenth:
            pace.tenth = tenth
            warn("  ".join(filter(None, (f"{name} {done}/{total}", _values(values), pace.told(done)))))


def _values(values: Mapping[str, float]) -> str:
    """The loss, and what was validated at this step."""
    shown = {k: v for k, v in values.items() if k == "loss" or k.endswith("auroc")}
    return "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
