"""The curve of few labels on a tiny run: shares are of patients, what is done is kept, a finding that shows is learned."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from medvl.data.cache import Row
from medvl.data.cohort import PhantomCohort, describe
from medvl.errors import ConfigError
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.preprocess import Contract
from medvl.recipe import load_recipe
from medvl.text.prompts import load_findings
from medvl.training.run import open_workspace, run_stages
from medvl_pipelines.built_in import findings_file, recipe_file

ROOT = Path(__file__).parents[2]
REGIONS = [
    {"name": name, "grid_dhw": [8, 8, 8], "spacing_mm": [14, 14, 14], "windows_hu": [[-150, 250], [-200, 1000]]}
    for name in ("kidney_left", "kidney_right", "chest")
]
OPTIONS = {"widths": [4, 4, 8, 8], "stem_kernel": 3, "max_pool": False, "shortcut": "A", "stage": 3}
CHANGES = {
    "cohort": {"seed": 21, "n_train": 40, "n_validation": 40, "n_test": 30},
    "contract.regions": REGIONS,
    "model.image": {"name": "resnet10", "kinds": ["kidney", "chest"], "grid_dhw": [8, 8, 8], "pool": "own", "options": OPTIONS},
    "model.text": {"vocab_size": 300, "hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16, "max_length": 144},
    "model.embed_dim": 16,
    "stages.text.steps": 0,
    "stages.attributes.steps": 1,
    "stages.align.steps": 0,
    "statements": 5,
    "workers": 1,
}
SET = [f"{key}={json.dumps(value)}" for key, value in CHANGES.items()]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("few_labels", ROOT / "benchmarks" / "few_labels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["few_labels"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def _noise(which: PhantomCohort, contract: Contract, row: int) -> Row:
    """Noise in place of a scan, brighter where there is a renal mass."""
    patient = sample_patient(which.seed, which.start + row)
    hu = np.random.default_rng([which.start, row]).normal(0, 60, (3, 8, 8, 8))
    hu[:2] += 120 * np.array([k.mass is not None for k in (patient.kidney_left, patient.kidney_right)])[:, None, None, None]
    return Row(hu.astype(np.int16), np.ones(len(contract.regions), np.float32))


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs the command on a tiny trained recipe, and gives the folder of its results; the cases of the training patients."""
    patch = pytest.MonkeyPatch()
    patch.setattr("medvl.data.cohort._phantom_row", _noise)
    out = tmp_path_factory.mktemp("few")
    recipe, findings = load_recipe(recipe_file("renalclip-small"), SET), load_findings(findings_file("phantom"))
    run_stages(open_workspace(recipe, out / "run", out, lambda *_: None, findings, stages=out / "stages"))
    script = _script()

    def call(*more: str, seeds: tuple[str, ...] = ("0", "1"), changes: tuple[str, ...] = ()) -> Path:
        words = ["--stages", str(out / "stages"), "--cohorts", str(out), "--out", str(out / "curve"), "--draws", "20"]
        words += ["--findings", "renal_mass", "--fractions", "0.03", "0.5", "1", "--seeds", *seeds]
        script.main([*words, *more, "--set", *SET, *changes])
        return next((out / "curve" / "renalclip-small").glob("attributes-*"))

    yield call
    patch.undo()


def _result(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text())["findings"]["renal_mass"]


def test_shares_scores_and_resuming(curve: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = curve()
    shown = capsys.readouterr().out
    names = {path.stem for path in folder.glob("*.json")}
    drawn = {f"0.03-seed{s}" for s in (0, 1)} | {f"0.5-seed{s}" for s in (0, 1)} | {"1-seed0"}
    assert names == {f"probe-{tower}-{d}" for tower in ("pre-trained", "untrained") for d in drawn}
    half, whole = _result(folder, "probe-pre-trained-0.5-seed0"), _result(folder, "probe-pre-trained-1-seed0")
    masses = [_noise_case(n)[side]["mass"] is not None for n in range(40) for side in _kidneys(n)]
    assert whole["n"] == len(masses) and whole["present"] == sum(masses)
    assert whole["patients"] == len({n for n in range(40) if _kidneys(n)})
    assert half["patients"] == int(np.floor(whole["patients"] / 2 + 0.5))
    assert whole["auroc"] > 0.9 and whole["ci"][0] <= whole["auroc"] <= whole["ci"][1]
    assert whole["sensitivity"] > 0.7 and whole["specificity"] > 0.7
    assert half["auroc"] != _result(folder, "probe-pre-trained-0.5-seed1")["auroc"] or half["n"] != whole["n"]
    assert "| renal_mass | probe | pre-trained |" in shown and f"{whole['auroc']:.3f}" in shown
    kept = {path: path.stat().st_mtime_ns for path in folder.parent.glob("*.safetensors")}
    one = folder / "probe-untrained-0.5-seed1.json"
    before = one.read_text()
    one.unlink()
    curve()
    assert one.read_text() == before
    assert {path: path.stat().st_mtime_ns for path in folder.parent.glob("*.safetensors")} == kept


def _noise_case(number: int) -> dict[str, Any]:
    return describe(21, number)["truth"]


def _kidneys(number: int) -> list[str]:
    return [side for side in ("kidney_left", "kidney_right") if describe(21, number)["region_texts"].get(side)]


def test_first_rows_are_the_tables_first_whatever_the_seed(curve: Callable[..., Path]) -> None:
    folder = curve("--first-rows")
    assert {path.stem for path in folder.glob("*-first.json")} == {
        f"probe-{tower}-{f}-first" for tower in ("pre-trained", "untrained") for f in ("0.03", "0.5", "1")
    }
    masses = [_noise_case(n)[side]["mass"] is not None for n in range(40) for side in _kidneys(n)]
    half = _result(folder, "probe-pre-trained-0.5-first")
    assert half["n"] == len(masses) // 2 and half["present"] == sum(masses[: len(masses) // 2])


def test_the_tower_learns_with_the_head(curve: Callable[..., Path]) -> None:
    folder = curve("--finetune", "--epochs", "3", seeds=("0",))
    for tower in ("pre-trained", "untrained"):
        assert _result(folder, f"fine-tuned-{tower}-1-seed0")["auroc"] > 0.8


def test_a_run_that_is_not_finished_is_told(curve: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no finished stage"):
        _script().main(["--stages", str(tmp_path), "--out", str(tmp_path / "o"), "--set", *SET])
    with pytest.raises(ConfigError, match=r"attributes-\w+ of renalclip-small not finished"):
        curve(changes=("seed=7",))
