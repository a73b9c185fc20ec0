"""The values of every step as lines of JSON, and as TensorBoard events where asked for."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from medvl.errors import ConfigError
from medvl.files import replace_text
from medvl.training.tracking import Tracked


class Curves:
    """`curves.jsonl` of a stage, kept up to `step` and written on from there.

    Args:
        folder: of the stage.
        step: steps that are done; later lines are from a run that was cut off, and go.
        writes: False on ranks that only follow; everything then does nothing.
        tensorboard: also write events to `tensorboard/`.
        tracked: gets every value too.

    Raises:
        ConfigError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, folder: Path, step: int, writes: bool = True, *, tensorboard: bool = False, tracked: Tracked | None = None
    ) -> None:
        self._file: TextIO | None = None
        self._events: Any = None
        self._tracked = tracked
        if not writes:
            return
        path = folder / "curves.jsonl"
        kept = [line for line in _lines(path) if line["step"] <= step]
        replace_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")
        self._events = _events(folder / "tensorboard", step) if tensorboard else None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Values after `step` steps; what is not finite becomes null."""
        if self._file is not None:
            self._file.write(json.dumps({"step": step} | {k: v if math.isfinite(v) else None for k, v in values.items()}) + "\n")
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
        if self._tracked is not None:
            self._tracked.add(step, values)

    def settle(self) -> None:
        """Bring what was added to disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        if self._tracked is not None:
            self._tracked.settle()

    def close(self) -> None:
        """End the files."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()
        if self._tracked is not None:
            self._tracked.close()


def read_curves(folder: Path) -> list[dict[str, Any]]:
    """Every line of a stage's curves."""
    return _lines(folder / "curves.jsonl")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines; a last one that a kill cut short is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _events(folder: Path, step: int) -> Any:
    if find_spec("tensorboard") is None:
        raise ConfigError("tensorboard is asked for and not installed: pip install tensorboard, or leave the option off")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
