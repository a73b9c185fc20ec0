"""What the stages of a recipe read: cohorts, texts, labels, the tokenizer, and where each stage is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from medvl.data.cohort import Cohort, PhantomCohort, build_phantom, open_cohort
from medvl.data.described import is_described, note_described
from medvl.data.marks import build_marks
from medvl.data.statements import Statements, ontology_of, statements
from medvl.errors import ConfigError
from medvl.files import replace_text, whole
from medvl.models.tokenizer import train_tokenizer
from medvl.recipe import Recipe, as_plain
from medvl.text.prompts import FindingList
from medvl.text.relations import Concepts, concepts
from medvl.training.machine import Machine
from medvl.training.samples import KindData, kind_data

Progress = Callable[[str, int, int, Mapping[str, float]], None]
SCHEMA = 2
_LATER = {"strip_numbers": False, "report_text": "free"}  # keys of a stage younger than runs on disk: not hashed at this value


@dataclass(frozen=True, eq=False)
class Workspace:
    """A run in progress.

    Args:
        out: its folder; stages: where finished stages lie, which several runs may share.
        data_key: hash of the data it learns from.
        train, validation: samples by kind.
        concepts: anatomies and findings of all kinds.
        machine: how the run uses the machine.
    """

    out: Path
    stages: Path
    recipe: Recipe
    data_key: str
    train: dict[str, KindData]
    validation: dict[str, KindData]
    concepts: Concepts
    tokenizer: Tokenizer
    progress: Progress
    findings: FindingList
    machine: Machine

    @cached_property
    def statements(self) -> dict[str, Statements]:
        """Single sentences of the training reports, by kind; read at first use, since a finished run needs none."""
        recipe = self.recipe
        return {name: statements(part.texts, part.kind, recipe.statements, recipe.seed) for name, part in self.train.items()}


def phantom_cohorts(recipe: Recipe, cache: Path, progress: Progress, names: tuple[str, ...]) -> dict[str, Cohort]:
    """The recipe's phantom cohorts of those names (train, validation, test), built where they are not there yet."""
    return {name: _phantoms(recipe, cache, progress, name) for name in names}


def _phantoms(recipe: Recipe, cache: Path, progress: Progress, name: str) -> Cohort:
    which = phantom_of(recipe, name)
    place = cache / which.key(recipe.input_contract)
    if is_described(place):
        with suppress(ConfigError):  # crops are missing: make them
            return open_cohort(place)
    told = _counter(progress, f"cohort {name}")
    made = build_phantom(cache, which, recipe.input_contract, workers=recipe.workers, progress=told)
    note_described(place)
    return made


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
    machine: Machine | None = None,
    tokenizer: Tokenizer | None = None,
) -> Workspace:
    """Build or open everything the stages read; of several processes the first builds.

    Args:
        recipe: what to train.
        out: folder of the run.
        cache: where phantom cohorts lie.
        progress: told of every step.
        findings: what is asked on validation patients.
        stages: folder of finished stages, to share them between runs that begin alike.
        given: train and validation cohorts from elsewhere, such as a table; without them phantoms are made.
        machine: how the run uses the machine; by itself it takes what is there.
        tokenizer: of the text tower that the run begins from; without it one is trained on the training reports.
    """
    machine, stages = machine or Machine(), stages or out / "stages"
    out.mkdir(parents=True, exist_ok=True)
    cohorts = dict(given or machine.once(lambda: phantom_cohorts(recipe, cache, progress, ("train", "validation"))))
    marks = machine.once(lambda: _marks(recipe, cache, given is not None))
    data = {name: kind_data(recipe, cohort, marks if name == "train" else None) for name, cohort in cohorts.items()}
    if machine.world.leads:
        replace_text(out / "recipe.json", json.dumps(as_plain(recipe), indent=1, sort_keys=True))
    key = _data_key(recipe, cohorts["train"])
    return Workspace(
        out,
        stages,
        recipe,
        key,
        data["train"],
        data["validation"],
        concepts([ontology_of(kind) for kind in recipe.kinds.values()]),
        tokenizer or machine.once(lambda: _tokenizer(stages, recipe, key, data["train"])),
        progress,
        findings.only(recipe.kinds),
        machine,
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
        with whole(path) as part:
            train_tokenizer(corpus, recipe.model.text.vocab_size).save(str(part))
    return Tokenizer.from_file(str(path))


def stage_folder(work: Workspace, index: int) -> Path:
    """Where a stage lies: its name, and a hash of everything it depends on, its forerunners included."""
    recipe = work.recipe
    plain = as_plain(recipe)
    upto = [{k: v for k, v in s.items() if k not in _LATER or v != _LATER[k]} for s in plain["stages"][: index + 1]]
    what = [work.data_key, plain["kinds"], plain["model"], recipe.seed, recipe.statements, upto]
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    return work.stages / f"{recipe.stages[index].name}-{key}"
