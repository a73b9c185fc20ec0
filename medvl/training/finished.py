"""Opens a run whose stages are all on disk, to measure it: nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medvl.errors import ConfigError
from medvl.recipe import Recipe
from medvl.text.prompts import FindingList
from medvl.training.kept import WEIGHTS
from medvl.training.recipe_stage import Trained
from medvl.training.run import Workspace, open_workspace, run_stages, stage_folder

Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True, eq=False)
class Finished:
    """A run to measure.

    Args:
        work: its data; trained: with the weights of its last stage; folder: of that stage.
    """

    work: Workspace
    trained: Trained
    folder: Path


def open_finished(
    recipe: Recipe, stages: Path, cohorts: Path, out: Path, findings: FindingList, progress: Progress = lambda *_: None
) -> Finished:
    """The finished run of a recipe, of phantoms.

    Args:
        recipe: exactly as it was trained.
        stages: folder where its stages lie.
        cohorts: where phantoms lie.
        out: folder that takes the resolved recipe.
        findings: what it will be asked.
        progress: told of phantoms that have to be made.

    Raises:
        ConfigError: a stage is not finished, or was trained by another recipe.
    """
    if not any(stages.glob(f"*/{WEIGHTS}")):
        raise ConfigError(f"no finished stage in {stages}; train one first: python benchmarks/recipes.py --out {stages.parent}")
    work = open_workspace(recipe, out, cohorts, progress, findings, stages=stages)
    trained_stages = [i for i, stage in enumerate(recipe.stages) if stage.steps]
    folders = [stage_folder(work, i) for i in trained_stages]
    missing = [folder.name for folder in folders if not (folder / WEIGHTS).is_file()]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} of {recipe.name} not finished in {stages}; let it run to the end, or name its changes"
        )
    return Finished(work, run_stages(work), folders[-1])
