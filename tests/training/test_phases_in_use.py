"""Several scans of a patient: fused at test time without reading what is missing, one phase for both kidneys in training."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from medvl.data.cohort import Cohort, describe
from medvl.data.statements import ontology_of
from medvl.models.system import System
from medvl.models.tokenizer import train_tokenizer
from medvl.recipe import load_recipe
from medvl.text.prompts import load_findings
from medvl.text.relations import concepts
from medvl.training.measure import Reader, finding_table
from medvl.training.recipe_stage import RecipeTask, StageData, Trained
from medvl.training.samples import kind_data
from medvl_pipelines.built_in import findings_file, recipe_file

WINDOWS = [[-150, 250], [-200, 1000]]
SPACING = {"kidney_left": [14.0] * 3, "kidney_right": [14.0] * 3, "chest": [25.0] * 3}
REGIONS = [{"name": n, "grid_dhw": [8, 8, 8], "spacing_mm": s, "windows_hu": WINDOWS} for n, s in SPACING.items()]
IMAGE = {"name": "resnet10", "kinds": ["kidney", "chest"], "grid_dhw": [8, 8, 8], "pool": "own"}
OPTIONS = {"widths": [4, 4, 8, 8], "stem_kernel": 3, "max_pool": False, "shortcut": "A", "stage": 3}
TEXT = {"vocab_size": 300, "hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16, "max_length": 144}
CHANGES = {
    "contract.regions": REGIONS,
    "model.image": {**IMAGE, "options": OPTIONS},
    "model.text": TEXT,
    "model.embed_dim": 16,
    "stages.align.phase": "random",
    "stages.align.kinds": "together",
    "stages.align.batch": 64,
    "stages.align.vary": False,
}
STREAMS = {"hidden": 16, "layers": 1, "heads": 2, "feedforward": 16}


class Guarded:
    """HU of all scans that may be read only where `allowed`, and only one scan at a time."""

    def __init__(self, hu: np.ndarray, allowed: np.ndarray) -> None:
        self.hu, self.allowed, self.read = hu, allowed, set[tuple[int, int, int]]()

    def __getitem__(self, key: Any) -> Any:
        everyone, scan = key
        assert everyone == slice(None)
        return OneScan(self, int(scan))


class OneScan:
    """One scan of everybody."""

    def __init__(self, whole: Guarded, scan: int) -> None:
        self.whole, self.scan = whole, scan

    def __getitem__(self, key: tuple[int, int]) -> np.ndarray:
        place = (key[0], self.scan, key[1])
        assert self.whole.allowed[place], f"read {place}, which is missing"
        self.whole.read.add(place)
        return np.asarray(self.whole.hu[place])


@pytest.fixture(scope="module")
def made() -> SimpleNamespace:
    """Three scans each (noise, but reports of phantoms), a system with towers and one with streams, both untrained."""
    changes = [f"{key}={json.dumps(value)}" for key, value in CHANGES.items()]
    recipe = load_recipe(recipe_file("renalclip-small"), changes)
    streamed = load_recipe(recipe_file("renalclip-small"), [*changes, f"model.streams={json.dumps(STREAMS)}"])
    hu = (
        np.random.default_rng(2).integers(-100, 300, (8, 3, 3, 8, 8, 8)).astype(np.int16)
        + np.arange(3)[:, None, None, None, None] * 50
    )
    covered, cases = np.ones((8, 3, 3), np.float32), [describe(21, number) for number in range(8)]
    cohort = Cohort(hu[:, 0], covered[:, 0], cases, tuple(SPACING), hu, covered, ("arterial", "delayed", "noncontrast"))
    known = concepts([ontology_of(kind) for kind in recipe.kinds.values()])
    tokenizer = train_tokenizer([case["report"] for case in cohort.cases], 300)
    readers = []
    for which in (recipe, streamed):
        torch.manual_seed(0)
        system = System(which.model, tokenizer, [c.key for c in known.anatomies], [c.key for c in known.findings])
        if which is streamed:
            system.fill_banks({c.key: c.prompt for c in known.anatomies}, {c.key: c.prompt for c in known.findings})
        readers.append(Reader(system, recipe.kinds, load_findings(findings_file("phantom")), known))
    return SimpleNamespace(recipe=recipe, cohort=cohort, towers=readers[0], streams=readers[1])


def _scan(cohort: Cohort, scan: int) -> Cohort:
    """A cohort of that scan alone, made without the code under test."""
    assert cohort.phase_hu is not None and cohort.phase_covered is not None
    return Cohort(np.array(cohort.phase_hu[:, scan]), cohort.phase_covered[:, scan], cohort.cases, cohort.regions)


def test_single_scans_are_read_as_before(made: SimpleNamespace) -> None:
    single = _scan(made.cohort, 0)
    for name, part in kind_data(made.recipe, single).items():
        several = kind_data(made.recipe, made.cohort)[name]
        plain = made.towers.features(part)
        torch.testing.assert_close(plain, made.towers.features(part, fuse_phases=False), rtol=0, atol=0)
        torch.testing.assert_close(plain, made.towers.features(several, fuse_phases=False), rtol=0, atol=0)
        assert not torch.allclose(plain, made.towers.features(several), atol=1e-4)


@pytest.mark.parametrize("which", ["towers", "streams"])
def test_fused_is_the_mean_over_the_scans(made: SimpleNamespace, which: str) -> None:
    reader = getattr(made, which)
    for name, part in kind_data(made.recipe, made.cohort).items():
        parts = [kind_data(made.recipe, _scan(made.cohort, scan))[name] for scan in range(3)]
        each = torch.stack([reader.features(one) for one in parts])
        expected = each.sum(0) / 3
        if which == "towers":
            torch.testing.assert_close(each.norm(dim=-1), torch.ones(each.shape[:2]))
            expected = expected / expected.norm(dim=-1, keepdim=True)
        found = reader.features(part)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert len(found) == len(part) > 0


def test_missing_scans_are_never_read(made: SimpleNamespace) -> None:
    covered = np.array(made.cohort.phase_covered)
    covered[0, 1:] = 0
    covered[1::2, 2] = 0
    covered[2, 1, 1] = 0
    there = covered >= 0.5
    part = kind_data(made.recipe, replace(made.cohort, phase_covered=covered))["kidney"]
    plain = made.towers.features(part)
    guarded = Guarded(made.cohort.phase_hu, there)
    watched = kind_data(made.recipe, replace(made.cohort, phase_hu=guarded, phase_covered=covered))["kidney"]
    torch.testing.assert_close(made.towers.features(watched), plain, rtol=0, atol=0)
    places = set(zip(part.texts.rows.tolist(), part.texts.columns.tolist(), strict=True))
    assert guarded.read == {(r, s, c) for r, c in places for s in range(3) if there[r, s, c]}
    each = [made.towers.features(kind_data(made.recipe, _scan(made.cohort, s))["kidney"]) for s in range(3)]
    for i, (r, c) in enumerate(zip(part.texts.rows, part.texts.columns, strict=True)):
        mean = torch.stack([each[s][i] for s in range(3) if there[r, s, c]]).mean(0)
        torch.testing.assert_close(plain[i], functional.normalize(mean, dim=0), rtol=0, atol=4e-3)


def _picks(made: SimpleNamespace, cohort: Cohort, steps: int) -> list[dict[tuple[int, int], int]]:
    """Of each step, the scan that was drawn for (patient, region)."""
    trained = Trained(made.towers.system, made.recipe.kinds)
    data = kind_data(made.recipe, cohort)
    stage = next(s for s in made.recipe.stages if s.name == "align")
    task, names, out = RecipeTask(trained, stage, 3, StageData(data)), list(data), []
    for step in range(steps):
        plan = task.plan(step)
        items = np.arange(plan.sizes["samples"])
        halves = [task.load(plan, {"samples": part})["pixels"] for part in np.array_split(items, 2)]
        found = {}
        for pixels, kind, row in zip(torch.cat(halves), plan.drawn["kind"], plan.drawn["row"], strict=True):
            part = data[names[int(kind)]]
            place, column = int(part.texts.rows[row]), int(part.texts.columns[row])
            bone = (torch.as_tensor(np.array(cohort.phase_hu[place, :, column])).float() + 200).div(1200).clamp(0, 1)  # type: ignore[index]
            matches = [s for s in range(3) if torch.allclose(bone[s], pixels[1])]
            assert len(matches) == 1
            found[place, column] = matches[0]
        out.append(found)
    return out


def test_all_regions_of_a_patient_share_the_phase_of_a_step(made: SimpleNamespace) -> None:
    steps, both = _picks(made, made.cohort, 12), 0
    for found in steps:
        for place in {p for p, _ in found}:
            assert len({s for (p, _), s in found.items() if p == place}) == 1
            both += (place, 0) in found and (place, 1) in found
        assert len(set(found.values())) > 1  # patients differ
    assert both > 20
    first = next(iter(steps[0]))
    assert {found[first] for found in steps if first in found} == {0, 1, 2}
    assert steps[0] == _picks(made, made.cohort, 1)[0]


def test_a_scan_of_one_kidney_is_not_drawn_for_either(made: SimpleNamespace) -> None:
    covered = np.array(made.cohort.phase_covered)
    covered[:, 1, 1] = 0
    for found in _picks(made, replace(made.cohort, phase_covered=covered), 8):
        for place in range(8):
            if (place, 0) in found and (place, 1) in found:
                assert found[place, 0] == found[place, 1] != 1


def test_where_nothing_is_known_but_reports_they_are_the_truth(made: SimpleNamespace) -> None:
    part = kind_data(made.recipe, made.cohort)["kidney"]
    features = functional.normalize(torch.randn(len(part), 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    known = finding_table(made.towers, {"kidney": part}, {"kidney": features}, 0)
    assert known and {row["against"] for row in known.values()} == {"truth"}
    cases = [{**case, "truth": {"age_years": 60}} for case in made.cohort.cases]
    told = kind_data(made.recipe, replace(made.cohort, cases=cases))["kidney"]
    found = finding_table(made.towers, {"kidney": told}, {"kidney": features}, 0)
    assert {row["against"] for row in found.values()} == {"report"}
    labels, scores = [], []
    for i, (r, c) in enumerate(zip(told.texts.rows, told.texts.columns, strict=True)):
        side = made.cohort.regions[int(c)]
        value = cases[int(r)]["labels"][side].get("renal_mass")
        if value in (0, 1):
            pair = made.towers.asked.bank[f"renal_mass@{side}"]
            labels.append(value)
            scores.append(float(features[i] @ (pair[0] - pair[1])))
    assert found["renal_mass"]["n"] == len(labels)
    assert found["renal_mass"]["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-4)
