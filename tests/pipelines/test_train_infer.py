"""From a recipe to findings through the commands themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny import Tiny, patient, scan_of

from medvl.imaging.phantom.dicom import write_dicom
from medvl_pipelines.cli import main


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(argv)
    return int(left.value.code or 0)


def test_trained_bundle_is_verified_and_answers(tiny_run: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bundles", "verify", str(tiny_run.bundle)) == 0
    assert re.search(r"\d+ files match", capsys.readouterr().out)
    who = patient(8)
    write_dicom(scan_of(who), who, tmp_path / "study")
    command = ("infer", str(tmp_path / "study"), "-b", str(tiny_run.bundle), "-o", str(tmp_path / "out"), "--device", "cpu")
    assert run(*command, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["studies"], first["done"]) == (1, 1)
    assert run(*command) == 0
    shown = capsys.readouterr().out
    assert "1 resumed" in shown
    assert "Not a medical device" in shown
    record = json.loads((tmp_path / "out" / "studies" / first["cases"][0]["case_id"] / "findings.json").read_text())
    assert {r["name"] for r in record["regions"]} == {"kidney_left", "kidney_right", "chest"}
    asked = {f["finding"] for f in record["findings"]}
    assert asked <= set(json.loads((tiny_run.bundle / "calibration.json").read_text()))
    assert "renal_mass" in asked
    assert record["risk"]["reasons"] or record["risk"]["value"] is not None


def test_spoilt_bundle_stops_before_any_work(tiny_run: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in tiny_run.bundle.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes() + (b" " if path.name == "calibration.json" else b""))
    (tmp_path / "study").mkdir()
    assert run("infer", str(tmp_path / "study"), "-b", str(tmp_path), "-o", str(tmp_path / "out")) == 2
    assert "calibration.json was altered" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
