"""MeDSLIP from recipe to bundle to findings: concept streams answer through the same commands as towers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shrunk import overrides
from typer.testing import CliRunner

from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle
from medvl_pipelines import train as verb
from medvl_pipelines.cli import app


@pytest.mark.slow
def test_concept_streams_train_to_a_bundle_that_infers(tmp_path: Path) -> None:
    more = ["cohort.n_train=24", "cohort.n_validation=40"]
    assert verb.run("medslip-small", tmp_path / "run", [*overrides("medslip-small", steps=2), *more], device="cpu") == 0
    bundle = open_bundle(tmp_path / "run" / "bundle")
    shapes = bundle.values("model.json")
    assert shapes["streams"]["hidden"] == 16
    assert "renal_mass" in shapes["concepts"]["findings"]
    assert bundle.values("calibration.json")
    runner = CliRunner()
    made = runner.invoke(app, ["phantom", "--out", str(tmp_path / "cohort"), "--n", "1", "--format", "nifti"])
    assert made.exit_code == 0
    scan = next((tmp_path / "cohort").rglob("*.nii.gz"))
    run = runner.invoke(app, ["infer", str(scan), "-b", str(bundle.folder), "-o", str(tmp_path / "out"), "--device", "cpu"])
    assert run.exit_code == 0, run.output
    told = json.loads(next((tmp_path / "out").rglob("findings.json")).read_text())
    assert told["findings"]
    assert all(f["prompts"] == {"present": [], "absent": []} and f["spread"] is None for f in told["findings"])
    predictor = Predictor(bundle)
    column = shapes["concepts"]["findings"].index("renal_mass")
    grid = predictor.contract["kidney_left"].grid_dhw
    import numpy as np

    found = predictor.read([np.full(grid, 40, np.int16)], ["kidney_left"])
    assert predictor.margin(predictor.findings["renal_mass"], "kidney_left", found.answers[0]) == pytest.approx(
        float(found.answers[0, column]), abs=1e-6
    )
    assert float(found.embedding.norm()) == pytest.approx(1, abs=1e-5)
