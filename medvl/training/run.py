"""`medvl train`: the stages of a recipe in order, each kept on disk, so that a run that stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from medvl.data.cohort import Cohort, PhantomCohort, build_phantom
from medvl.data.marks import build_marks
from medvl.data.statements import Statements, ontology_of, statements
from medvl.models.system import System
from medvl.models.tokenizer import train_tokenizer
from medvl.recipe import Recipe, StageConfig, as_plain
from medvl.text.prompts import FindingList
from medvl.text.relations import Concepts, concepts
from medvl.training.features import pooled_features, text_states, text_versions
from medvl.training.kept import keep, take
from medvl.training.loop import LoopOptions, fit
from medvl.training.measure import Reader, attribute_auroc, report_auroc
from medvl.training.recipe_stage import RecipeTask, StageData, Trained
from medvl.training.samples import KindData, kind_data

Progress = Callable[[str, int, int, Mapping[str, float]], None]
SCHEMA = 2


@dataclass(frozen=True, eq=False)
class Workspace:
    """A run in progress.

    Args:
        out: its folder; stages: where finished stages lie, which several runs may share.
        data_key: hash of the data it learns from.
        train, validation: samples by kind.
        statements: single sentences of the training reports, by kind.
        concepts: anatomies and findings of all kinds.
    """

    out: Path
    stages: Path
    recipe: Recipe
    data_key: str
    train: dict[str, KindData]
    validation: dict[str, KindData]
    statements: dict[str, Statements]
    concepts: Concepts
    tokenizer: Tokenizer
    progress: Progress
    findings: FindingList


def phantom_cohorts(recipe: Recipe, cache: Path, progress: Progress, names: tuple[str, ...]) -> dict[str, Cohort]:
    """The recipe's phantom cohorts of those names (train, validation, test), built where they are not there yet."""
    cohorts = {}
    for name in names:
        told = _counter(progress, f"cohort {name}")
        which = phantom_of(recipe, name)
        cohorts[name] = build_phantom(cache, which, recipe.input_contract, workers=recipe.workers, progress=told)
    return cohorts


def phantom_of(recipe: Recipe, name: str) -> PhantomCohort:
    """Which phantoms make up train, validation or test."""
    cohort = recipe.cohort
    start = {"train": 0, "validation": cohort.start_validation, "test": cohort.start_test}[name]
    return PhantomCohort(cohort.seed, start, getattr(cohort, f"n_{name}"), cohort.jitter_mm, phases=cohort.phases)


def open_workspace(
    recipe: Recipe,
    out: Path,
    cache: Path,
    progress: Progress,
    findings: FindingList,
    *,
    stages: Path | None = None,
    given: Mapping[str, Cohort] | None = None,
) -> Workspace:
    """Build or open everything the stages read.

    Args:
        recipe: what to train.
        out: folder of the run.
        cache: where phantom cohorts lie.
        progress: told of every step.
        findings: what is asked on validation patients.
        stages: folder of finished stages, to share them between runs that begin alike.
        given: train and validation cohorts from elsewhere, such as a table; without them phantoms are made.
    """
    out.mkdir(parents=True, exist_ok=True)
    cohorts = dict(given or phantom_cohorts(recipe, cache, progress, ("train", "validation")))
    marks = _marks(recipe, cache, given is not None)
    data = {name: kind_data(recipe, cohort, marks if name == "train" else None) for name, cohort in cohorts.items()}
    pool = {n: statements(part.texts, part.kind, recipe.statements, recipe.seed) for n, part in data["train"].items()}
    (out / "recipe.json").write_text(json.dumps(as_plain(recipe), indent=1, sort_keys=True), encoding="utf-8")
    key = _data_key(recipe, cohorts["train"])
    return Workspace(
        out,
        stages or out / "stages",
        recipe,
        key,
        data["train"],
        data["validation"],
        pool,
        concepts([ontology_of(kind) for kind in recipe.kinds.values()]),
        _tokenizer(stages or out / "stages", recipe, key, data["train"]),
        progress,
        findings,
    )


def _marks(recipe: Recipe, cache: Path, elsewhere: bool) -> NDArray[np.uint8] | None:
    """Where findings lie, when a stage asks for it; known of phantoms only."""
    asked = any(options.get("type", name) == "marks" for s in recipe.stages for name, options in s.objectives.items())
    if not asked or elsewhere:
        return None
    which = phantom_of(recipe, "train")
    names = {region: kind.marks for kind in recipe.kinds.values() for region in kind.regions}
    return build_marks(cache / which.key(recipe.input_contract), which, recipe.input_contract, names, recipe.workers)


def _data_key(recipe: Recipe, cohort: Cohort) -> str:
    """Changes with the reports, labels and places of the training patients, and with what is asked of them."""
    digest = hashlib.sha256(json.dumps([SCHEMA, recipe.contract, recipe.cohort.model_dump()], sort_keys=True).encode())
    for case in cohort.cases:
        digest.update(json.dumps([case["patient_id"], case["region_texts"], case["labels"]], sort_keys=True).encode())
    return digest.hexdigest()


def _counter(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total, {})


def _tokenizer(folder: Path, recipe: Recipe, key: str, data: Mapping[str, KindData]) -> Tokenizer:
    """Trained on the training reports once, then read back, since every later run must see the same ids."""
    path = folder / f"tokenizer-{key[:10]}-{recipe.model.text.vocab_size}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        corpus = (" ".join(parts) for part in data.values() for parts in part.texts.sentences)
        part = path.with_suffix(".part")
        train_tokenizer(corpus, recipe.model.text.vocab_size).save(str(part))
        part.replace(path)
    return Tokenizer.from_file(str(path))


def new_system(recipe: Recipe, tokenizer: Tokenizer, known: Concepts) -> System:
    """A fresh system of the recipe, seeded."""
    torch.manual_seed(recipe.seed)
    system = System(recipe.model, tokenizer, [c.key for c in known.anatomies], [c.key for c in known.findings])
    return system.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def stage_folder(work: Workspace, index: int) -> Path:
    """Where a stage lies: its name, and a hash of everything it depends on, its forerunners included."""
    recipe = work.recipe
    plain = as_plain(recipe)
    upto = [plain["stages"][i] for i in range(index + 1)]
    what = [work.data_key, plain["kinds"], plain["model"], recipe.seed, recipe.statements, upto]
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    return work.stages / f"{recipe.stages[index].name}-{key}"


def run_stages(work: Workspace) -> Trained:
    """Train every stage that is not there yet, and load the rest."""
    trained = Trained(new_system(work.recipe, work.tokenizer, work.concepts), work.recipe.kinds)
    for index, stage in enumerate(work.recipe.stages):
        torch.manual_seed(work.recipe.seed + 1000 * (index + 1))  # for layers that objectives add
        for name, options in stage.objectives.items():
            trained.objective(name, options)
        if stage.steps == 0:
            continue
        folder = stage_folder(work, index)
        if not take(trained, folder):
            _train(work, trained, stage, folder)
            keep(trained, folder)
    return trained


def _train(work: Workspace, trained: Trained, stage: StageConfig, folder: Path) -> None:
    if "streams" in stage.train and not bool(trained.system.concepts()["findings"].any()):
        known = work.concepts
        trained.system.fill_banks({c.key: c.prompt for c in known.anatomies}, {c.key: c.prompt for c in known.findings})
    task = RecipeTask(trained, stage, work.recipe.seed, _stage_data(work, trained, stage), _validation(work, trained, stage))
    fit(
        task,
        loop_options(stage, work.recipe.seed),
        folder,
        lambda done, total, told: work.progress(stage.name, done, total, told),
    )


def _stage_data(work: Workspace, trained: Trained, stage: StageConfig) -> StageData:
    asked = {options.get("type", name) for name, options in stage.objectives.items()}
    relational = bool(asked & {"existence", "prototype_contrastive", "relation_prediction"})
    features: dict[str, Any] = {}
    if stage.images == "cached":
        features = {name: pooled_features(trained.system.clip, part) for name, part in work.train.items()}
    texts: dict[str, Any] = {}
    if stage.texts == "cached":
        for name, part in work.train.items():
            said = text_versions(part, stage, work.recipe.seed)
            flat = text_states(trained.system.clip, [t for versions in said for t in versions], work.stages / "texts")
            texts[name] = flat.unflatten(0, (len(said), stage.text_versions))
    return StageData(
        work.train,
        work.statements if stage.statements else {},
        {name: part.relations(work.concepts) for name, part in work.train.items()} if relational else {},
        features,
        texts,
    )


def _validation(work: Workspace, trained: Trained, stage: StageConfig) -> Callable[[], dict[str, float]] | None:
    """Mean AUROC on validation patients: of the heads where the stage trains attributes, else of zero-shot answers."""
    if stage.validate_every is None:
        return None
    if "attributes" in stage.objectives and "image_projection" not in stage.train:
        return lambda: {"attribute_auroc": attribute_auroc(trained, work.validation)}
    reader = lambda: Reader(trained.system, work.recipe.kinds, work.findings, work.concepts)  # noqa: E731 - banks change
    return lambda: {"auroc": report_auroc(reader(), work.validation)}


def loop_options(stage: StageConfig, seed: int) -> LoopOptions:
    """What the loop must know of a stage."""
    return LoopOptions(
        steps=stage.steps,
        learning_rate=stage.learning_rate,
        weight_decay=stage.weight_decay,
        warmup=stage.warmup,
        clip_norm=stage.clip_norm,
        seed=seed,
        precision=stage.precision,
        accumulate=stage.accumulate,
        pieces=stage.pieces,
        workers=stage.workers,
        validate_every=stage.validate_every,
        patience=stage.patience,
    )
