"""A retraining from its parent to a candidate bundle, in steps that are kept on disk; what is there is not done again.

OUT/settings.json     what this folder is about: parent, data, plan, preset, recipe and what the probe found
OUT/cohorts           crops of the dataset's regions, as the parent's localiser finds them
OUT/stages            finished stages and checkpoints
OUT/blend.json        how far from the parent the weights ended
OUT/bundle            the candidate
OUT/embedded/{before,after}    the held-out patients as parent and candidate see them
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from medvl.data.cohort import Cohort
from medvl.data.table import SPLITS, Table
from medvl.data.table_cohort import Locate, build_table
from medvl.errors import BundleError, ConfigError
from medvl.evaluation.embedded import Embedded
from medvl.files import replace_text, write_json
from medvl.imaging.preprocess import MIN_COVERED
from medvl.inference.embed import embed_cohort
from medvl.inference.predictor import Predictor
from medvl.models.bundle import Bundle, open_bundle
from medvl.models.config import LocaliserConfig
from medvl.recipe import Recipe, as_plain
from medvl.retraining.inherit import Carried
from medvl.retraining.plan import RetrainPlan, continued, started_afresh
from medvl.retraining.presets import Preset
from medvl.retraining.probe import probe
from medvl.retraining.warm import Blend, begin_from, parent_weights, settle_blend
from medvl.survival.model import SurvivalModel
from medvl.text.prompts import FindingList, load_findings
from medvl.training.finish import export
from medvl.training.localise import from_bundle
from medvl.training.machine import Machine
from medvl.training.recipe_stage import Trained
from medvl.training.run import Workspace, new_system, open_workspace, run_stages

Progress = Callable[[str, int, int, Mapping[str, float]], None]
SETTINGS = "settings.json"
SIDES = ("before", "after")
LEARNED = ("train", "validation")


@dataclass(frozen=True, eq=False)
class Order:
    """What is to be retrained.

    Args:
        parent: bundle; recipe: that made it, or another that starts afresh (`fresh`).
        table: studies; data_sha256: of the dataset; data: what else its provenance tells.
        out: folder of the run; name: of the new bundle.
        plan, preset, machine: how.
        locate: finds regions in a scan; told apart by the parent's hash.
        changes: makes the last word on the resolved recipe, such as ``--set``.
    """

    parent: Bundle
    recipe: Recipe
    fresh: bool
    table: Table
    data_sha256: str
    data: Mapping[str, Any]
    out: Path
    name: str
    plan: RetrainPlan
    preset: Preset
    machine: Machine
    locate: Locate
    changes: Callable[[Recipe], Recipe]
    progress: Progress

    @cached_property
    def findings_text(self) -> str:
        """The parent's questions."""
        return self.parent.text("findings.yaml")

    @cached_property
    def findings(self) -> FindingList:
        """The parent's questions, read."""
        return load_findings(self.findings_text)


@dataclass(frozen=True, eq=False)
class Candidate:
    """What came out.

    Args:
        bundle: the candidate; settings: the file's content; blend: None for a recipe that started afresh.
        before, after: folders of the held-out patients as the parent and the candidate see them.
        learned: folders of the others as the candidate sees them.
        usable: usable regions by split.
    """

    bundle: Bundle
    settings: Mapping[str, Any]
    blend: Blend | None
    before: Path
    after: Path
    learned: tuple[Path, ...]
    usable: Mapping[str, int]


def cohorts_of(order: Order) -> dict[str, Cohort]:
    """The crops of every split, made where they are not there.

    Raises:
        ConfigError: a split has no usable study.
    """
    localiser = LocaliserConfig.model_validate(order.parent.values("model.json")["localiser"])
    found = build_table(
        order.out / "cohorts",
        order.table,
        order.parent.contract if not order.fresh else order.recipe.input_contract,
        order.locate,
        locate_key=order.parent.sha256,
        beyond=localiser.regions,
        min_confidence=localiser.min_confidence,
        workers=max(order.recipe.workers, os.cpu_count() or 1),
        progress=lambda split, done, total: order.progress(f"{split} crops", done, total, {}),
    )
    missing = [name for name in SPLITS if name not in found or not regions_in(found[name])]
    if missing:
        raise ConfigError(
            f"the dataset has no usable {missing[0]} study; retraining needs train, validation and test patients. "
            f"See rejects.csv in {order.out / 'cohorts'}"
        )
    return found


def regions_in(cohort: Cohort) -> int:
    """Regions of the main scans that a model may read."""
    return int((np.asarray(cohort.covered) >= MIN_COVERED).sum())


def settle_recipe(order: Order, n_regions: int) -> Recipe:
    """What is trained on that many regions: the parent's recipe continued, or another from the beginning.

    Raises:
        ConfigError: plan or changes do not fit the recipe.
    """
    if order.fresh:
        made = started_afresh(order.recipe, order.preset, n_regions, order.name)
        shapes = LocaliserConfig.model_validate(order.parent.values("model.json")["localiser"])
        return order.changes(made.model_copy(update={"localiser": shapes}))
    return order.changes(continued(order.recipe, order.plan, order.preset, n_regions, order.name))


def settle_settings(order: Order, cohorts: Mapping[str, Cohort]) -> dict[str, Any]:
    """What this folder is about, decided once: a run that goes on takes it from the file, as do all processes but the first.

    Raises:
        ConfigError: the folder is of another retraining.
    """
    recipe = settle_recipe(order, regions_in(cohorts["train"]))
    asked = {
        "parent": {"name": order.parent.name, "sha256": order.parent.sha256},
        "data_sha256": order.data_sha256,
        "plan": order.plan.model_dump(mode="json"),
        "preset": order.preset.name,
        "fresh": order.fresh,
        "recipe": as_plain(recipe),
    }
    return order.machine.once(lambda: _settled(order, json.loads(json.dumps(asked)), recipe, cohorts))


def _settled(order: Order, asked: dict[str, Any], recipe: Recipe, cohorts: Mapping[str, Cohort]) -> dict[str, Any]:
    path = order.out / SETTINGS
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        other = [key for key, value in asked.items() if kept.get(key) != value]
        if other:
            raise ConfigError(f"{order.out} holds a retraining with another {other[0]}; give the same again, or another --out")
        return kept
    probed = _probe(order, recipe, cohorts) if order.machine.world.size == 1 else {}
    told = {**asked, "n_regions": {k: regions_in(v) for k, v in cohorts.items()}, "probed": probed, "data": dict(order.data)}
    write_json(path, told)
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _probe(order: Order, recipe: Recipe, cohorts: Mapping[str, Cohort]) -> dict[str, Any]:
    work = _workspace(order, recipe, cohorts)
    _told_of_all(work)
    trained = Trained(_system(order, work), recipe.kinds)
    for stage in recipe.stages:
        for name, options in stage.objectives.items():
            trained.objective(name, options)
    order.progress("probe", 0, 1, {})
    found = {name: value.as_dict() for name, value in probe(work, trained, order.preset).items()}
    order.progress("probe", 1, 1, {})
    return found


def _system(order: Order, work: Workspace) -> Any:
    system = new_system(work.recipe, work.tokenizer, work.concepts)
    if not order.fresh:
        begin_from(parent_weights(order.parent), system)
    return system


def _workspace(order: Order, recipe: Recipe, cohorts: Mapping[str, Cohort]) -> Workspace:
    tokenizer = None if order.fresh else Tokenizer.from_str(order.parent.text("tokenizer.json"))
    given = {name: cohorts[name] for name in ("train", "validation")}
    return open_workspace(
        recipe,
        order.out,
        order.out / "cohorts",
        order.progress,
        order.findings,
        stages=order.out / "stages" / order.parent.sha256[:12],
        given=given,
        machine=order.machine,
        tokenizer=tokenizer,
    )


def retrain(order: Order, told: Callable[[Mapping[str, Any]], None] = lambda _: None) -> Candidate:
    """Train, write the candidate bundle and embed the held-out patients with both; every finished step is kept.

    Args:
        order: what.
        told: called with the settings, before anything is trained.

    Raises:
        ConfigError: data, plan or folder do not fit.
        Diverged: a stage did; finished stages are kept.
        Interrupted: SIGTERM or SIGINT; the same call goes on.
    """
    order.out.mkdir(parents=True, exist_ok=True)
    cohorts = order.machine.once(lambda: cohorts_of(order))
    settings = settle_settings(order, cohorts)
    if order.machine.world.leads:
        told(settings)
    recipe = _with_pieces(Recipe.model_validate(settings["recipe"]), settings["probed"])
    work = _workspace(order, recipe, cohorts)
    _told_of_all(work)
    bundle, blend = _candidate(order, work, settings)
    if order.machine.world.leads:
        for side, of in zip(SIDES, (order.parent, bundle), strict=True):
            _embed(order, of, cohorts["test"], "test", side)
        for split in LEARNED:
            _embed(order, bundle, cohorts[split], split, split)
    order.machine.world.agree()
    before, after, *learned = (order.out / "embedded" / side for side in (*SIDES, *LEARNED))
    return Candidate(bundle, settings, blend, before, after, tuple(learned), {k: regions_in(v) for k, v in cohorts.items()})


def _told_of_all(work: Workspace) -> None:
    """Refuse a cohort whose reports say nothing of a kind of region that the model knows.

    Raises:
        ConfigError: naming the kind.
    """
    for split, parts in (("training", work.train), ("validation", work.validation)):
        for name, part in parts.items():
            if not len(part):
                others = " ".join(f"--kind {kind}" for kind, held in parts.items() if len(held))
                without = f"begin from a bundle without it (medvl bundles narrow PARENT {others} --out DIR)" if others else ""
                raise ConfigError(
                    f"no report of the {split} patients speaks of a usable region of kind {name}, and the model answers for it; "
                    + " or ".join(filter(None, (without, "add reports that do")))
                )


def _with_pieces(recipe: Recipe, probed: Mapping[str, Any]) -> Recipe:
    stages = [s.model_copy(update={"pieces": probed[s.name]["pieces"]} if s.name in probed else {}) for s in recipe.stages]
    return recipe.model_copy(update={"stages": tuple(stages)})


def _candidate(order: Order, work: Workspace, settings: Mapping[str, Any]) -> tuple[Bundle, Blend | None]:
    """The bundle of this run: as an earlier call left it, or trained and written now."""
    parent = {} if order.fresh else parent_weights(order.parent)
    note, key = order.out / "finished.json", json.dumps([settings["recipe"], settings["data_sha256"], work.data_key])
    kept = _kept(order.out, note, key)
    if order.machine.world.lead(lambda: kept is not None):
        bundle = kept or open_bundle(order.out / "bundle")
        return bundle, _blend_of(bundle)
    trained = run_stages(work, None if order.fresh else lambda system: begin_from(parent, system))
    if order.machine.world.leads:
        blend = None if order.fresh else settle_blend(work, trained, parent, order.plan.blend)
        localiser = from_bundle(order.parent.folder)
        bundle = export(
            work,
            trained,
            localiser,
            order.findings,
            order.findings_text,
            _provenance(order, settings, blend),
            parent=_survival(order.parent),
            carry=Carried(order.parent, work),
        )
        replace_text(note, json.dumps({"made_from": key, "bundle": bundle.sha256}))
    order.machine.world.agree()
    bundle = open_bundle(order.out / "bundle")
    return bundle, _blend_of(bundle)


def _survival(bundle: Bundle) -> SurvivalModel | None:
    return SurvivalModel.from_json(bundle.values("survival.json")) if "survival.json" in bundle else None


def _kept(out: Path, note: Path, key: str) -> Bundle | None:
    try:
        told = json.loads(note.read_text(encoding="utf-8"))
        bundle = open_bundle(out / "bundle")
    except (OSError, ValueError, BundleError):
        return None
    return bundle if told == {"made_from": key, "bundle": bundle.sha256} else None


def _blend_of(bundle: Bundle) -> Blend | None:
    told = bundle.values("provenance.json").get("blend")
    return None if told is None else Blend(float(told["share"]), dict(told["tried"]))


def _provenance(order: Order, settings: Mapping[str, Any], blend: Blend | None) -> dict[str, Any]:
    return {
        "parent": dict(settings["parent"]),
        "parent_provenance": order.parent.values("provenance.json") if "provenance.json" in order.parent else None,
        "data_sha256": order.data_sha256,
        "data": dict(order.data),
        "plan": settings["plan"],
        "preset": settings["preset"],
        "regions": settings["n_regions"],
        "blend": None if blend is None else {"share": blend.share, "tried": blend.tried},
    }


def _embed(order: Order, bundle: Bundle, cohort: Cohort, split: str, side: str) -> None:
    """Write the patients of a split as a bundle sees them, unless they are there."""
    place = order.out / "embedded" / side
    source = {"cohort": f"dataset {order.data_sha256[:12]}", "split": split, "way": "scans"}
    try:
        if Embedded.load(place).source["model_sha256"] == bundle.sha256:
            return
    except (ConfigError, KeyError):
        pass
    name = f"embedding {split}, {side}" if split == "test" else f"embedding {split}"
    embed_cohort(Predictor(bundle), cohort, source, lambda done, total: order.progress(name, done, total, {})).save(place)
