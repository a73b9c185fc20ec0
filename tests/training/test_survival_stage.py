"""A stage of a recipe that learns from outcomes: the samples get their patients' own, and the image tower moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import OVERRIDES

from medvl.data.cohort import Cohort, describe
from medvl.data.statements import ontology_of
from medvl.errors import ConfigError
from medvl.models.system import System
from medvl.models.tokenizer import train_tokenizer
from medvl.objectives.hazards import quantile_cuts
from medvl.recipe import Recipe, load_recipe
from medvl.text.relations import concepts
from medvl.training.loop import fit
from medvl.training.machine import Machine
from medvl.training.recipe_stage import RecipeTask, StageData, Trained
from medvl.training.run import loop_options
from medvl.training.samples import ages_and_outcomes, half_known, kind_data
from medvl_pipelines.built_in import recipe_file

N = 12
CUTS = [0, 400, 900, 4000]


def _recipe(objective: dict[str, Any]) -> Recipe:
    stage = {"objectives": {"survival": objective}, "train": {"image": 1.0, "objectives": 1.0}, "batch": 24, "precision": "fp32"}
    return load_recipe(
        recipe_file("phantom-demo"), [*OVERRIDES, *(f"stages.attributes.{k}={json.dumps(v)}" for k, v in stage.items())]
    )


@pytest.fixture(scope="module")
def made() -> SimpleNamespace:
    """Patients of noise with the reports and outcomes of phantoms; the third patient's outcome is not known."""
    cases = [describe(21, number) for number in range(N)]
    cases[2] = {**cases[2], "truth": {**cases[2]["truth"], "time_days": None, "event": None}}
    hu = np.random.default_rng(2).integers(-100, 300, (N, 3, 16, 20, 24)).astype(np.int16)
    cohort = Cohort(hu, np.ones((N, 3), np.float32), cases, ("kidney_left", "kidney_right", "chest"))
    return SimpleNamespace(cohort=cohort, tokenizer=train_tokenizer([case["report"] for case in cases], 400))


def _task(made: SimpleNamespace, objective: dict[str, Any], cohort: Cohort | None = None) -> tuple[RecipeTask, Recipe]:
    recipe = _recipe(objective)
    known = concepts([ontology_of(kind) for kind in recipe.kinds.values()])
    torch.manual_seed(0)
    system = System(recipe.model, made.tokenizer, [c.key for c in known.anatomies], [c.key for c in known.findings])
    trained = Trained(system, recipe.kinds)
    return RecipeTask(trained, recipe.stages[0], recipe.seed, StageData(kind_data(recipe, cohort or made.cohort))), recipe


def test_samples_come_with_the_outcome_of_their_patient(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = _task(made, {})
    seen = {}
    for objective in task._chosen.values():
        monkeypatch.setattr(objective, "forward", lambda _, scene: seen.setdefault(scene.kind, scene).time_days.nansum() * 0.0)
    plan = task.plan(0)
    task.compare({"pooled": torch.zeros(plan.sizes["samples"], 8)}, plan)
    assert set(seen) == {"kidney", "chest"}
    truths, unknown = [case["truth"] for case in made.cohort.cases], 0
    for scene in seen.values():
        for days, event, place in zip(scene.time_days, scene.event, scene.patients, strict=True):
            truth = truths[int(place)]
            unknown += truth["time_days"] is None
            assert float(days) == pytest.approx(truth["time_days"] or float("nan"), nan_ok=True)
            assert bool(event) is bool(truth["event"])
    assert unknown
    both = torch.unique(seen["kidney"].patients, return_counts=True)[1]
    assert both.max() == 2  # left and right kidney of a patient are in one batch
    assert seen["kidney"].event.any()


def test_follow_up_without_word_of_the_event_is_left_out_and_counted(made: SimpleNamespace) -> None:
    told = [(100, True), (100, False), (100, None), (None, True), (100, float("nan")), (float("nan"), 0), (None, None), (0, 1)]
    cases = [{"truth": {"age_years": 60, "time_days": t, "event": e}} for t, e in told] + [{}, {"truth": None}]
    ages, time, event = ages_and_outcomes(cases)
    assert ages == [60] * 8 + [None] * 2
    assert np.flatnonzero(np.isfinite(time)).tolist() == [0, 1, 7]
    assert np.flatnonzero(event).tolist() == [0, 7]
    assert half_known(cases) == 4
    assert half_known(made.cohort.cases) == 0
    first = {**made.cohort.cases[0], "truth": {**made.cohort.cases[0]["truth"], "event": None}}
    part = kind_data(_recipe({}), replace(made.cohort, cases=[first, *made.cohort.cases[1:]]))["chest"]
    days, _ = part.outcomes or ([], [])
    assert np.isnan(np.asarray(days)).tolist() == [int(row) in (0, 2) for row in part.texts.rows]


@pytest.mark.parametrize("objective", [{}, {"form": "hazards", "cuts_days": CUTS, "hidden": 4}], ids=["cox", "hazards"])
def test_three_steps_move_the_image_tower_by_outcomes_alone(
    made: SimpleNamespace, tmp_path: Path, objective: dict[str, Any]
) -> None:
    task, recipe = _task(made, objective)
    parts = {name: task.trained.system.part(name) for name in ("image", "text")}
    parts["head"] = task.trained.objectives["survival"].heads["kidney"]
    before = {name: [p.detach().clone() for p in part.parameters()] for name, part in parts.items()}
    told: list[dict[str, float]] = []
    note: Callable[..., None] = lambda done, total, values: told.append(dict(values))  # noqa: E731
    receipt = fit(task, loop_options(recipe.stages[0], recipe.seed, Machine(device="cpu")), tmp_path, note)
    assert receipt.steps == 3
    assert len(told) == 3
    assert all(np.isfinite(step["loss"]) and step["kidney survival"] > 0 and step["grad_norm"] > 0 for step in told)
    moved = {n: any(not torch.equal(p, b) for p, b in zip(parts[n].parameters(), before[n], strict=True)) for n in parts}
    assert moved == {"image": True, "text": False, "head": True}


def test_a_cohort_without_outcomes_says_so(made: SimpleNamespace) -> None:
    cases = [{**case, "truth": {**case["truth"], "time_days": None, "event": None}} for case in made.cohort.cases]
    task, _ = _task(made, {}, replace(made.cohort, cases=cases))
    plan = task.plan(0)
    with pytest.raises(ConfigError, match="no outcomes of kidney"):
        task.compare({"pooled": torch.zeros(plan.sizes["samples"], task.trained.sizes().pooled)}, plan)


def test_cuts_of_the_training_patients_fit_the_option(made: SimpleNamespace) -> None:
    """As the page says: quantiles of the training patients' outcomes are what `cuts_days` takes."""
    days, event = kind_data(_recipe({}), made.cohort)["chest"].outcomes or ([], [])
    cuts = quantile_cuts(days, event, 2)
    task, _ = _task(made, {"form": "hazards", "cuts_days": cuts.tolist()})
    plan = task.plan(0)
    loss, _ = task.compare({"pooled": torch.zeros(plan.sizes["samples"], task.trained.sizes().pooled)}, plan)
    assert torch.isfinite(loss)
