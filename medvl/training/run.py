"""`medvl train`: the stages of a recipe in order, each kept on disk, so that a run that stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from medvl.models.system import System
from medvl.recipe import Recipe, StageConfig
from medvl.text.relations import Concepts
from medvl.training.features import pooled_features, text_states, text_versions
from medvl.training.kept import settle
from medvl.training.loop import Diverged, LoopOptions, fit
from medvl.training.machine import Machine
from medvl.training.measure import Reader, attribute_auroc, report_auroc
from medvl.training.recipe_stage import RecipeTask, StageData, Trained
from medvl.training.samples import KindData
from medvl.training.workspace import Workspace, open_workspace, phantom_cohorts, phantom_of, stage_folder

__all__ = [
    "Workspace",
    "loop_options",
    "new_system",
    "open_workspace",
    "phantom_cohorts",
    "phantom_of",
    "run_stages",
    "stage_folder",
]


def new_system(recipe: Recipe, tokenizer: Tokenizer, known: Concepts) -> System:
    """A fresh system of the recipe, seeded."""
    torch.manual_seed(recipe.seed)
    system = System(recipe.model, tokenizer, [c.key for c in known.anatomies], [c.key for c in known.findings])
    return system.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def run_stages(work: Workspace, begin: Callable[[System], None] | None = None) -> Trained:
    """Train every stage that is not there yet, and load the rest; what comes back lies on the processor.

    Args:
        work: what to train on and where stages are kept.
        begin: changes the fresh system, such as by weights of an earlier run; stages are not told apart by it, so give such runs
            a folder of their own.

    Raises:
        Diverged: names the stage and what to try.
    """
    world = work.machine.world
    trained = Trained(new_system(work.recipe, work.tokenizer, work.concepts), work.recipe.kinds)
    if begin is not None:
        begin(trained.system)
    for index, stage in enumerate(work.recipe.stages):
        torch.manual_seed(work.recipe.seed + 1000 * (index + 1))  # for layers that objectives add
        for name, options in stage.objectives.items():
            trained.objective(name, options)
        if stage.steps:
            settle(trained, stage_folder(work, index), world, partial(_train, work, trained, index))
    return trained.cpu()


def _train(work: Workspace, trained: Trained, index: int) -> None:
    stage = work.recipe.stages[index]
    trained.to(work.machine.world.device)
    if "streams" in stage.train and not bool(trained.system.concepts()["findings"].any()):
        known = work.concepts
        trained.system.fill_banks({c.key: c.prompt for c in known.anatomies}, {c.key: c.prompt for c in known.findings})
    task = RecipeTask(trained, stage, work.recipe.seed, _stage_data(work, trained, stage), _validation(work, trained, stage))
    try:
        fit(
            task,
            loop_options(stage, work.recipe.seed, work.machine),
            stage_folder(work, index),
            lambda done, total, told: work.progress(stage.name, done, total, told),
        )
    except Diverged as error:
        slower = f"--set stages.{stage.name}.learning_rate={stage.learning_rate / 3:.1g}"
        raise Diverged(f"stage {stage.name} diverged: {error}. Finished stages are kept; run again with {slower}") from error


def _stage_data(work: Workspace, trained: Trained, stage: StageConfig) -> StageData:
    asked = {options.get("type", name) for name, options in stage.objectives.items()}
    relational = bool(asked & {"existence", "prototype_contrastive", "relation_prediction"})
    features: dict[str, Any] = {}
    if stage.images == "cached":
        features = {name: _features(work, trained, part) for name, part in work.train.items()}
    texts: dict[str, Any] = {}
    if stage.texts == "cached":
        for name, part in work.train.items():
            said = text_versions(part, stage, work.recipe.seed)
            flat = [text for versions in said for text in versions]
            states = work.machine.once(partial(text_states, trained.system.clip, flat, work.stages / "texts"))
            texts[name] = states.unflatten(0, (len(said), stage.text_versions))
    return StageData(
        work.train,
        work.statements if stage.statements else {},
        {name: part.relations(work.concepts) for name, part in work.train.items()} if relational else {},
        features,
        texts,
    )


def _features(work: Workspace, trained: Trained, part: KindData) -> Tensor:
    """(N, P) pooled features of the training samples, computed by one process for all."""
    clip = trained.system.clip
    return work.machine.same(lambda: pooled_features(clip, part), (len(part), clip.pool.width))


def _validation(work: Workspace, trained: Trained, stage: StageConfig) -> Callable[[], dict[str, float]] | None:
    """Mean AUROC on validation patients: of the heads where the stage trains attributes, else of zero-shot answers."""
    if stage.validate_every is None:
        return None
    if "attributes" in stage.objectives and "image_projection" not in stage.train:
        return lambda: {"attribute_auroc": attribute_auroc(trained, work.validation)}
    reader = lambda: Reader(trained.system, work.recipe.kinds, work.findings, work.concepts)  # noqa: E731 - banks change
    return lambda: {"auroc": report_auroc(reader(), work.validation)}


def loop_options(stage: StageConfig, seed: int, machine: Machine) -> LoopOptions:
    """What the loop must know of a stage."""
    names = ("steps", "learning_rate", "weight_decay", "warmup", "clip_norm", "precision", "accumulate", "pieces", "workers")
    told = {name: getattr(stage, name) for name in (*names, "validate_every", "patience")}
    return machine.options(seed=seed, **told)
