"""Many studies: statuses, reasons, resuming, and that no identifier reaches anything that may be passed on."""

from __future__ import annotations

import csv
import gzip
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from tiny import Tiny, places, scan_of

from medvl.errors import ConfigError
from medvl.imaging.nifti import write_nifti
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.truth import Patient
from medvl.inference.batch import Summary, run_batch
from medvl.inference.predictor import CaseResult, Predictor
from medvl.inference.results import COLUMNS, SCHEMA
from medvl.models.localiser import Localiser
from medvl.records import Volume
from medvl_pipelines import infer

SECRET = "ZZSECRET"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, who: Patient) -> list[Path]:
    """A good study under telling names and tags, a damaged NIfTI and a folder without images."""
    root = tmp_path_factory.mktemp("in")
    good = root / f"{SECRET}_Jane_1950-01-01"
    for path in write_dicom(scan_of(who), who, good, localizer=True):
        slice_ = pydicom.dcmread(path)
        for name in ("PatientID", "AccessionNumber", "InstitutionName", "StudyDescription", "PatientComments", "StudyID"):
            setattr(slice_, name, SECRET)
        slice_.PatientName = slice_.ReferringPhysicianName = f"{SECRET}^Jane"
        slice_.save_as(path)
    broken = root / f"{SECRET}.nii.gz"
    broken.write_bytes(gzip.compress(b"no volume " * 60))
    empty = root / f"{SECRET} letters"
    empty.mkdir()
    (empty / f"{SECRET}.txt").write_text(f"Dear {SECRET}")
    return [good, broken, empty]


def codes(out: Path) -> dict[str, str]:
    """Reason code by status of every study in a results folder."""
    found = [json.loads(p.read_text()) for p in sorted(out.glob("studies/*/findings.json"))]
    return {v["case_id"]: f"{v['status']} {v['reasons'][0]['code'] if v['status'] != 'done' else ''}".strip() for v in found}


def readable(path: Path) -> bytes:
    """The bytes of a file, unpacked where a format packs them."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_csv().encode() + path.read_bytes()
    return path.read_bytes()


def test_command_ends_every_input_with_a_reason_and_names_nobody(
    tiny_run: Tiny,
    who: Patient,
    inputs: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Localiser, "locate", lambda _self, _volume: places(who))
    with caplog.at_level(logging.DEBUG):
        assert infer.run(inputs, bundle=str(tiny_run.bundle), out=tmp_path, device="cpu") == 3
    told = capsys.readouterr()
    assert sorted(codes(tmp_path).values()) == ["done", "skipped no_images", "skipped no_volume"]
    uid = pydicom.dcmread(next(inputs[0].glob("*.dcm"))).StudyInstanceUID
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {p.name for p in files} >= {"key", "sources.json", "run.json", "results.csv", "results.parquet", "findings.json"}
    assert any(p.name.endswith(".nii.gz") for p in files)
    for hidden in (SECRET, uid, str(inputs[0].parent)):
        assert [p.name for p in files if hidden.encode() in readable(p)] == (["sources.json"] if hidden != uid else [])
        assert hidden not in told.out + told.err + caplog.text
    assert not [p.name for p in files if p.name.endswith(".part")]
    for name in ("key", "sources.json"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "run.json").read_text())["studies"] == 3


def test_table_has_a_row_for_every_answer(predictor: Predictor, inputs: list[Path], tmp_path: Path) -> None:
    run_batch(inputs, predictor, tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS) == list(pd.read_parquet(tmp_path / "results.parquet").columns)
    studies = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("studies/*/findings.json"))]
    assert {s["schema"] for s in studies} == {SCHEMA}
    done = next(s for s in studies if s["status"] == "done")
    mine = [row for row in rows if row["case_id"] == done["case_id"]]
    assert [(r["finding"], r["region"], r["verdict"]) for r in mine] == [
        (f["finding"], f["region"], f["verdict"]) for f in done["findings"]
    ]
    np.testing.assert_allclose([float(r["score"]) for r in mine], [f["score"] for f in done["findings"]])
    assert len(rows) == len(mine) + 2
    for finding in done["findings"]:
        assert (finding["heatmap"] is None) == (finding["verdict"] == "absent")
        if finding["heatmap"]:
            assert (tmp_path / "studies" / done["case_id"] / finding["heatmap"]).is_file()


def test_a_rerun_does_only_what_is_not_done(
    predictor: Predictor, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_batch(inputs, predictor, tmp_path)
    monkeypatch.setattr(predictor, "predict", lambda *_a, **_k: pytest.fail("a finished study was run again"))
    again = run_batch(inputs, predictor, tmp_path)
    assert (first.statuses["done"], first.statuses["skipped"]) == (1, 2)
    assert (again.statuses["resumed"], again.statuses["skipped"]) == (1, 2)
    assert [c["case_id"] for c in first.cases] == [c["case_id"] for c in again.cases]


def test_a_study_that_gained_slices_is_done_again(predictor: Predictor, who: Patient, tmp_path: Path) -> None:
    paths = write_dicom(scan_of(who), who, tmp_path / "in")
    last = paths[-1].read_bytes()
    paths[-1].unlink()
    assert run_batch([tmp_path / "in"], predictor, tmp_path / "out").statuses["done"] == 1
    paths[-1].write_bytes(last)
    assert run_batch([tmp_path / "in"], predictor, tmp_path / "out").statuses["done"] == 1


def test_case_ids_belong_to_one_results_folder(predictor: Predictor, inputs: list[Path], tmp_path: Path) -> None:
    a, b = (run_batch(inputs, predictor, tmp_path / name) for name in "ab")
    assert all(len(case["case_id"]) == 12 for case in a.cases)
    assert not {c["case_id"] for c in a.cases} & {c["case_id"] for c in b.cases}


def test_two_files_of_one_name_are_two_cases(predictor: Predictor, who: Patient, tmp_path: Path) -> None:
    volume = scan_of(who)
    for name in ("day1", "day2"):
        (tmp_path / name).mkdir()
    write_nifti(volume, None, tmp_path / "day1" / "ct.nii.gz")
    write_nifti(Volume((volume.hu + 30).astype(np.int16), volume.geometry), None, tmp_path / "day2" / "ct.nii.gz")
    summary = run_batch([tmp_path / n / "ct.nii.gz" for n in ("day1", "day2")], predictor, tmp_path / "out")
    assert summary.statuses["done"] == 2
    assert len(codes(tmp_path / "out")) == 2


def test_our_own_failure_stops_nothing_and_tells_nothing(
    predictor: Predictor, who: Patient, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = tmp_path / "sound.nii.gz"
    write_nifti(scan_of(who), None, sound)
    predict, calls = predictor.predict, []

    def failing(volume: Volume, **options: object) -> CaseResult:
        calls.append(volume)
        if len(calls) == 1:
            raise RuntimeError(f"{SECRET} in {inputs[0]}")
        return predict(volume, explain=False)

    monkeypatch.setattr(predictor, "predict", failing)
    told: list[Sequence[str]] = []
    summary = run_batch([inputs[0], sound], predictor, tmp_path / "out", lambda *words: told.append(words))
    assert [case["status"] for case in summary.cases] == ["failed", "done"] == [words[1] for words in told]
    assert dict(summary.reasons) == {"internal_error": 1}
    assert_quiet(tmp_path / "out", summary)
    monkeypatch.undo()
    monkeypatch.setattr(predictor.prepare.localiser, "locate", lambda _volume: places(who))
    assert run_batch([inputs[0], sound], predictor, tmp_path / "out").statuses == {"done": 1, "resumed": 1}


def assert_quiet(out: Path, summary: Summary) -> None:
    failed = next(p for p in out.glob("studies/*/findings.json") if json.loads(p.read_text())["status"] == "failed")
    message = json.loads(failed.read_text())["reasons"][0]["message"]
    assert "RuntimeError" in message
    assert SECRET not in failed.read_text() + json.dumps(summary.as_dict())


def test_cuda_that_is_not_there(tiny_run: Tiny, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="--device cpu"):
        infer.run(inputs, bundle=str(tiny_run.bundle), out=tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()
