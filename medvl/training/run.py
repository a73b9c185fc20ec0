"""`medvl train`: every stage of a recipe in order, each kept on disk, so that a run that stopped goes on at the next one."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

from medvl.data.cohort import Cohort, PhantomCohort, build_phantom
from medvl.data.marks import build_marks
from medvl.data.statements import Statements, region_texts, statements
from medvl.errors import ConfigError
from medvl.imaging.preprocess import MIN_COVERED
from medvl.models.clip import RegionClip
from medvl.models.localiser import Localiser
from medvl.models.text_encoder import prepare, train_tokenizer
from medvl.recipe import Recipe, as_plain
from medvl.training.align import Aligner, align_frozen, align_joint
from medvl.training.attributes import KindData, Progress, attribute_scores, heads_for, pooled_features, train_attributes
from medvl.training.localise import train_localiser
from medvl.training.texts import train_texts


@dataclass(frozen=True, eq=False)
class Workspace:
    """A run in progress: folder, recipe, cohorts and the texts of both."""

    out: Path
    recipe: Recipe
    train: Cohort
    validation: Cohort
    train_data: dict[str, KindData]
    validation_data: dict[str, KindData]
    statements: dict[str, Statements]
    tokenizer: Tokenizer
    progress: Progress


def open_workspace(recipe: Recipe, out: Path, cache: Path, progress: Progress) -> Workspace:
    """Build or open everything the stages read. A folder of another recipe is refused."""
    out.mkdir(parents=True, exist_ok=True)
    _claim(recipe, out)
    cohorts = {}
    for name, start, n in (
        ("train", 0, recipe.cohort.n_train),
        ("validation", recipe.cohort.start_validation, recipe.cohort.n_validation),
    ):
        which = PhantomCohort(recipe.cohort.seed, start, n, recipe.cohort.jitter_mm)
        told = _counter(progress, f"cohort {name}")
        cohorts[name] = build_phantom(cache, which, recipe.input_contract, workers=recipe.workers, progress=told)
    data = {name: kind_data(recipe, cohort) for name, cohort in cohorts.items()}
    if recipe.mark_weight > 0:
        data["train"] = _with_marks(recipe, cache, data["train"])
    pool = {name: statements(part.texts, part.kind, recipe.statements, recipe.seed) for name, part in data["train"].items()}
    return Workspace(
        out,
        recipe,
        cohorts["train"],
        cohorts["validation"],
        data["train"],
        data["validation"],
        pool,
        _tokenizer(out, recipe, data["train"]),
        progress,
    )


def _with_marks(recipe: Recipe, cache: Path, data: dict[str, KindData]) -> dict[str, KindData]:
    which = PhantomCohort(recipe.cohort.seed, 0, recipe.cohort.n_train, recipe.cohort.jitter_mm)
    names = {region: kind.marks for kind in recipe.kinds.values() for region in kind.regions}
    marks = build_marks(cache / which.key(recipe.input_contract), which, recipe.input_contract, names, recipe.workers)
    return {name: replace(part, marks=marks) for name, part in data.items()}


def _counter(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total, {})


def _claim(recipe: Recipe, out: Path) -> None:
    text = json.dumps(as_plain(recipe), indent=1, sort_keys=True)
    path = out / "recipe.json"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{out} holds a run of another recipe; give a new --out folder, or remove that one")
    path.write_text(text, encoding="utf-8")


def kind_data(recipe: Recipe, cohort: Cohort) -> dict[str, KindData]:
    """Per kind: its usable regions with texts and labels."""
    contract = recipe.input_contract
    usable = cohort.covered >= MIN_COVERED
    return {
        name: KindData(
            index, kind, region_texts(cohort.cases, kind, cohort.regions, usable), contract[kind.regions[0]].windows_hu
        )
        for index, (name, kind) in enumerate(recipe.kinds.items())
    }


def _tokenizer(out: Path, recipe: Recipe, data: Mapping[str, KindData]) -> Tokenizer:
    path = out / "tokenizer.json"
    if not path.exists():
        corpus = (" ".join(parts) for part in data.values() for parts in part.texts.sentences)
        train_tokenizer(corpus, recipe.model.text.vocab_size).save(str(path))
    return prepare(Tokenizer.from_file(str(path)), recipe.model.text.max_length)


def new_model(work: Workspace) -> RegionClip:
    """A fresh model of the recipe, seeded."""
    torch.manual_seed(work.recipe.seed)
    model = RegionClip(work.recipe.model, work.tokenizer.get_vocab_size())
    return model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def stage(work: Workspace, name: str, modules: Mapping[str, nn.Module], run: Callable[[], Mapping[str, Any]]) -> None:
    """Run one stage and keep its weights and receipt, or load them when they are already there."""
    path, receipt = work.out / f"{name}.safetensors", work.out / f"{name}.json"
    group = nn.ModuleDict(dict(modules))
    if path.exists() and receipt.exists():
        group.load_state_dict(load_file(path))
        return
    started, cpu = time.monotonic(), time.process_time()
    found = dict(run())
    tensors = {key: value.detach().contiguous().clone() for key, value in group.state_dict().items()}
    save_file(tensors, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    found |= {"wall_s": round(time.monotonic() - started, 1), "cpu_s": round(time.process_time() - cpu, 1)}
    found["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    receipt.write_text(json.dumps(found, indent=1), encoding="utf-8")


def attribute_stage(work: Workspace, model: RegionClip) -> nn.ModuleDict:
    """Stage 1; returns the heads, kept for the linear baseline."""
    heads = heads_for(model, work.recipe.kinds)

    def scores() -> dict[str, float]:
        features = {name: pooled_features(model, work.validation, part) for name, part in work.validation_data.items()}
        return attribute_scores(heads, features, work.validation_data)

    def run() -> Mapping[str, Any]:
        train_attributes(model, heads, work.train, work.train_data, work.recipe, work.progress, scores)
        return {"validation_auroc": scores()}

    stage(work, "attributes", {"image": model.image, "pool": model.pool, "heads": heads}, run)
    return heads


def text_stage(work: Workspace, model: RegionClip) -> None:
    """Stage 2: what sentences assert."""

    def run() -> Mapping[str, Any]:
        pools = work.statements
        train_texts(model.text, work.recipe.kinds, work.train_data, pools, work.tokenizer, work.recipe, work.progress)
        return {"statements": {name: len(pool.texts) for name, pool in pools.items()}}

    stage(work, "text", {"text": model.text}, run)


def alignment_stages(work: Workspace, model: RegionClip, heads: nn.ModuleDict) -> None:
    """Stages 3 and 4: towers together, image features first fixed, then moving."""
    align = work.recipe.align

    def frozen() -> Mapping[str, Any]:
        features = {name: pooled_features(model, work.train, part) for name, part in work.train_data.items()}
        aligner = Aligner(model, work.train_data, work.statements, work.tokenizer, work.recipe, align.frozen, 20)
        align_frozen(aligner, features, work.progress)
        return {"scale": float(model.scale.detach())}

    def joint() -> Mapping[str, Any]:
        aligner = Aligner(model, work.train_data, work.statements, work.tokenizer, work.recipe, align.joint, 30)
        align_joint(aligner, heads, work.train, work.progress)
        return {"scale": float(model.scale.detach())}

    stage(work, "align_frozen", {"model": model}, frozen)

    def finer() -> Mapping[str, Any]:
        features = {name: pooled_features(model, work.train, part) for name, part in work.train_data.items()}
        aligner = Aligner(model, work.train_data, work.statements, work.tokenizer, work.recipe, align.statements, 40)
        align_frozen(aligner, features, work.progress, pairs_every=align.pairs_every, name="align statements")
        return {"scale": float(model.scale.detach())}

    stage(work, "align_joint", {"model": model, "heads": heads}, joint)
    stage(work, "align_statements", {"model": model}, finer)


def localiser_stage(work: Workspace) -> Localiser:
    """The localiser, which depends on nothing else."""
    torch.manual_seed(work.recipe.seed)
    model = Localiser(work.recipe.localiser)

    def run() -> Mapping[str, Any]:
        train_localiser(model, work.recipe, work.recipe.localiser_scans, work.progress)
        return {}

    stage(work, "localiser", {"model": model}, run)
    return model
