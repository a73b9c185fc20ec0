"""A shrunken Cardiac-CLIP whose alignment reads templates: what it reads, which stages it shares, how it is trained on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shrunk import overrides

from medvl.data.cohort import Cohort
from medvl.models.clip import RegionClip
from medvl.objectives.image_text import ImageTextContrastive
from medvl.objectives.registry import Scene
from medvl.recipe import Recipe, as_plain, load_recipe
from medvl.retraining.plan import RetrainPlan, continued
from medvl.retraining.presets import Preset
from medvl.text.labels import extract
from medvl.text.prompts import load_findings
from medvl.text.report import StructuredReport, split_sentences
from medvl.training.run import Workspace, open_workspace, run_stages, stage_folder
from medvl_pipelines.built_in import findings_file, recipe_file

RECIPE = "cardiac-clip-small"
REGIONS = ("kidney_left", "kidney_right", "chest")
SWITCH = "stages.align.report_text=templates"


SAID = {
    "kidney_left": ("Left kidney: a stone of 7 mm.", "There is a 7 mm calculus in the left kidney.", ""),
    "chest": (
        "Enlarged heart. No pericardial effusion.",
        "No pericardial effusion. The heart is enlarged.",
        "Cardiomegaly.",
        "Clear lungs.",
    ),
}


def cohort() -> Cohort:
    """Patients as a table gives them: the same said in other words, a report that states no label, regions without any."""
    cases = []
    for number in range(24):
        texts = {region: SAID[region][number % len(SAID[region])] if region in SAID else "" for region in REGIONS}
        read = extract(StructuredReport({}, texts))
        labels = {region: read[region] for region in REGIONS}
        cases.append({"patient_id": f"p{number}", "region_texts": texts, "labels": labels})
    hu = np.random.default_rng(0).integers(-200, 300, (24, 3, 16, 16, 16), np.int16)
    return Cohort(hu, np.ones((24, 3), np.float32), cases, REGIONS)


class Run:
    """A recipe trained to the end on that cohort, and the losses of the stages that it had to train."""

    def __init__(self, recipe: Recipe, place: Path) -> None:
        self.losses: dict[str, list[float]] = {}
        given = dict.fromkeys(("train", "validation"), cohort())
        findings = load_findings(findings_file("phantom"))
        self.work: Workspace = open_workspace(recipe, place, place, self._told, findings, given=given)
        run_stages(self.work)

    def _told(self, name: str, done: int, total: int, told: Mapping[str, float]) -> None:
        if "loss" in told:
            self.losses.setdefault(name, []).append(told["loss"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("templates")


@pytest.fixture(scope="module")
def free(place: Path) -> Run:
    return Run(load_recipe(recipe_file(RECIPE), overrides(RECIPE)), place)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """The texts that are tokenised and the scenes that soft targets are made of."""
    found: dict[str, list[Any]] = {"texts": [], "scenes": []}
    tokenize, targets = RegionClip.tokenize, ImageTextContrastive.targets

    def read(self: RegionClip, texts: list[str], *more: Any) -> Any:
        found["texts"] += texts
        return tokenize(self, texts, *more)

    def asked(self: ImageTextContrastive, scene: Scene, *more: Any) -> Any:
        found["scenes"].append(scene)
        return targets(self, scene, *more)

    monkeypatch.setattr(RegionClip, "tokenize", read)
    monkeypatch.setattr(ImageTextContrastive, "targets", asked)
    return found


@pytest.mark.slow
def test_the_alignment_alone_is_trained_anew_and_reads_templates(free: Run, place: Path, seen: dict[str, list[Any]]) -> None:
    run = Run(load_recipe(recipe_file(RECIPE), [*overrides(RECIPE), SWITCH]), place)
    assert list(free.losses) == ["text", "masked", "align"]
    assert list(run.losses) == ["align"]
    assert all(math.isfinite(loss) for loss in run.losses["align"])
    assert run.losses["align"] != free.losses["align"]
    stone, heart = (
        "There is a kidney stone of 7 mm at the collecting system of the kidney.",
        "There is cardiomegaly at the heart.",
    )
    both = {heart, "There is no pericardial effusion at the pericardium."}
    said = [frozenset(split_sentences(text)) for text in seen["texts"]]  # a sample's sentences come in random order
    assert len(said) == 4 * 6
    assert set(said) == {frozenset({stone}), frozenset(both), frozenset({heart}), frozenset({"Clear lungs."})}
    scenes = seen["scenes"][-4:]  # the operations of the first batch are counted before
    for at, scene in enumerate(scenes):
        mine = said[6 * at : 6 * at + 6]
        assert [[a == b for b in mine] for a in mine] == (scene.duplicates[:, None] == scene.duplicates[None]).tolist()
    assert {scene.kind for scene in scenes} == {"kidney", "chest"}


@pytest.mark.slow
def test_a_recipe_from_before_the_key_finds_its_stages(free: Run) -> None:
    old = json.loads(json.dumps(as_plain(free.work.recipe)))
    for stage in old["stages"]:
        assert stage.pop("report_text") == "free"
    recipe = Recipe.model_validate(old)
    assert recipe == free.work.recipe
    assert all(stage_folder(free.work, index).is_dir() for index in range(3))


def test_a_retraining_reads_what_its_parent_read() -> None:
    plan = RetrainPlan(name="p", summary="s", rate=0.5, passes=4, cheap_passes=10, least_steps=5, heads_steps=30)
    parent = load_recipe(recipe_file(RECIPE), [SWITCH])
    made = continued(parent, plan, Preset("cpu", 1, 1.0, "fp32", 0), 240, "ours")
    assert {stage.name: stage.report_text for stage in made.stages if stage.name in ("text", "align")} == {
        "text": "free",
        "align": "templates",
    }


def test_the_full_recipe_reads_templates_and_the_measured_one_reports() -> None:
    read = {name: load_recipe(recipe_file(name)).stages[-1].report_text for name in ("cardiac-clip", RECIPE)}
    assert read == {"cardiac-clip": "templates", RECIPE: "free"}
