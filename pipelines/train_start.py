"""Where `medvl train --start` begins: weights that `medvl import-release` wrote, the same for every call of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import ConfigError
from medvl.files import replace_text

if TYPE_CHECKING:
    from medvl.models.system import System
    from medvl.training.run import Workspace

NOTE = "start.json"


def begun(start: Path | None, work: Workspace) -> Callable[[System], None] | None:
    """What `run_stages` does to the fresh system; None without `start`.

    Raises:
        ConfigError: stages in this folder began with other weights, or `start` holds none.
    """
    from medvl.exchange.released import begin_with
    from medvl.models.bundle import sha256_of

    weights = None if start is None else start / "weights.safetensors"
    if weights is not None and not weights.is_file():
        raise ConfigError(f"no weights.safetensors in {start}; give a folder that `medvl import-release` wrote")
    wanted = None if weights is None else sha256_of(weights)
    note = work.out / NOTE
    kept = json.loads(note.read_text(encoding="utf-8"))["sha256"] if note.is_file() else None
    there = work.stages.is_dir() and any(work.stages.iterdir())
    if wanted != kept and (there or kept is not None):
        raise ConfigError(f"stages in {work.out} began with other weights; give --start as before, or another --out")
    if start is None:
        return None
    work.machine.once(lambda: replace_text(note, json.dumps({"sha256": wanted}) + "\n"))
    folder = start

    def begin(system: System) -> None:
        begin_with(folder, system)

    return begin
