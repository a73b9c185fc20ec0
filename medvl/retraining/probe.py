"""A short measured probe: how long a step takes, how much memory it wants, and in how many pieces a batch must be cut to fit."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from medvl.errors import ConfigError
from medvl.recipe import StageConfig
from medvl.retraining.plan import reads_pixels
from medvl.retraining.presets import Preset
from medvl.training.loop import fit
from medvl.training.recipe_stage import RecipeTask, StageData, Trained
from medvl.training.run import Workspace, loop_options

STEPS = 3
PIECES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Probed:
    """What a stage took in the probe.

    Args:
        stage: its name; pieces: of each batch.
        seconds: of a step; memory_bytes: at the most, of the device or of the process.
        samples_per_s: seen in these steps; mfu: share of the device's peak, where both are known.
    """

    stage: str
    pieces: int
    seconds: float
    memory_bytes: int
    samples_per_s: float
    mfu: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def probe(work: Workspace, trained: Trained, preset: Preset) -> Mapping[str, Probed]:
    """By name, every stage that reads pixels, on the run's own data; weights stay as they are.

    Raises:
        ConfigError: a stage does not fit the device even in single pieces.
    """
    found = {}
    for stage in work.recipe.stages:
        if stage.steps and reads_pixels(stage):
            found[stage.name] = _fitting(work, trained, stage, preset)
    return found


def _fitting(work: Workspace, trained: Trained, stage: StageConfig, preset: Preset) -> Probed:
    limit = preset.memory_bytes
    for pieces in PIECES:
        if pieces > stage.batch:
            break
        try:
            told = _steps(work, trained, stage.model_copy(update={"pieces": pieces}))
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        if limit is None or told.memory_bytes <= limit:
            return told
    raise ConfigError(f"stage {stage.name} does not fit {preset.name} in pieces of {stage.batch // pieces}; give a smaller grid")


def _steps(work: Workspace, trained: Trained, stage: StageConfig) -> Probed:
    """A few steps of a stage on a copy of the system."""
    with torch.random.fork_rng(), tempfile.TemporaryDirectory(prefix="medvl-probe-") as folder:
        mine = copy.deepcopy(trained)
        task = RecipeTask(mine, stage, work.recipe.seed, StageData(work.train, work.statements if stage.statements else {}))
        short = stage.model_copy(update={"steps": STEPS, "warmup": 1, "validate_every": None, "patience": None, "workers": 0})
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        receipt = fit(task, loop_options(short, work.recipe.seed, work.machine), Path(folder), lambda *_: None)
    seconds = stage.batch * stage.accumulate / receipt.samples_per_s if receipt.samples_per_s else 0.0
    return Probed(
        stage.name, stage.pieces, round(seconds, 3), receipt.peak_memory_bytes, round(receipt.samples_per_s, 2), receipt.mfu
    )
