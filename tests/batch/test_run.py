"""Many studies: states, reasons, resuming, and that no identifier reaches anything that may be passed on."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from tiny import Tiny, places, scan_of

from medvl.batch.inputs import inputs_of
from medvl.batch.ledger import Ledger
from medvl.batch.limits import Limits
from medvl.batch.options import Options
from medvl.batch.page import write_summary
from medvl.batch.run import Run
from medvl.batch.summary import Summary
from medvl.errors import ConfigError
from medvl.imaging.nifti import write_nifti
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.truth import Patient
from medvl.inference.predictor import CaseResult, Predictor
from medvl.inference.regions import Prepared
from medvl.inference.results import COLUMNS, SCHEMA
from medvl.network.address import WebAddress
from medvl.records import RESEARCH_USE, Volume
from medvl_pipelines import infer
from medvl_pipelines.station import Station

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


def run(inputs: Sequence[Path], predictor: Predictor, who: Patient, out: Path, **changes: Any) -> Summary:
    """A run in this process, told where the regions of `who` are."""
    told = changes.pop("told", None)
    return Run(predictor, out, Options(readers=0, given=places(who), **changes), told).go(inputs)


def test_command_ends_every_input_with_a_reason_and_names_nobody(
    tiny_run: Tiny,
    inputs: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        station = Station(str(tiny_run.bundle), tmp_path, "cpu", readers=1)
        assert infer.run([str(path) for path in inputs], station) == 3
    told = capsys.readouterr()
    assert sorted(codes(tmp_path).values()) == ["done", "skipped no_images", "skipped no_volume"]
    uid = pydicom.dcmread(next(inputs[0].glob("*.dcm"))).StudyInstanceUID
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    private = {"sources.json", "ledger.sqlite", "ledger.sqlite-wal"}
    written = {
        "key",
        "sources.json",
        "run.json",
        "summary.html",
        "ledger.sqlite",
        "results.csv",
        "results.parquet",
        "findings.json",
    }
    assert {p.name for p in files} >= written
    for hidden in (SECRET, uid, str(inputs[0].parent)):
        assert {p.name for p in files if hidden.encode() in readable(p)} <= (private if hidden != uid else set())
        assert hidden not in told.out + told.err + caplog.text
    assert SECRET.encode() in (tmp_path / "sources.json").read_bytes()
    assert not [p.name for p in files if p.name.endswith(".part")]
    for name in ("key", "sources.json", "ledger.sqlite"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "run.json").read_text())["studies"] == 3


def test_table_has_a_row_for_every_answer(predictor: Predictor, who: Patient, inputs: list[Path], tmp_path: Path) -> None:
    run(inputs, predictor, who, tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    frame = pd.read_parquet(tmp_path / "results.parquet")
    assert list(rows[0]) == list(COLUMNS) == list(frame.columns)
    assert frame.attrs == {"research_use": RESEARCH_USE}
    studies = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("studies/*/findings.json"))]
    assert {s["schema"] for s in studies} == {SCHEMA}
    done = next(s for s in studies if s["status"] == "done")
    mine = [row for row in rows if row["case_id"] == done["case_id"]]
    assert [(r["finding"], r["region"], r["verdict"]) for r in mine] == [
        (f["finding"], f["region"], f["verdict"]) for f in done["findings"]
    ]
    np.testing.assert_allclose([float(r["score"]) for r in mine], [f["score"] for f in done["findings"]])
    np.testing.assert_allclose([float(r["threshold"]) for r in mine], [f["threshold"] for f in done["findings"]])
    origin = done["bundle"]["sha256"], done["bundle"]["contract"], done["software"], done["made_at"], done["pixels_sha256"]
    assert {tuple(r[k] for k in ("bundle_sha256", "contract", "software", "made_at", "pixels_sha256")) for r in mine} == {origin}
    assert len(rows) == len(mine) + 2
    for finding in done["findings"]:
        assert (finding["heatmap"] is None) == (finding["verdict"] == "absent")
        if finding["heatmap"]:
            assert (tmp_path / "studies" / done["case_id"] / finding["heatmap"]).is_file()


def test_a_rerun_does_only_what_is_not_done(
    predictor: Predictor, who: Patient, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(inputs, predictor, who, tmp_path)
    monkeypatch.setattr(predictor, "answer", lambda *_a, **_k: pytest.fail("a finished study was run again"))
    again = run(inputs, predictor, who, tmp_path)
    assert (first.statuses["done"], first.statuses["skipped"]) == (1, 2)
    assert (again.statuses["resumed"], again.statuses["skipped"]) == (1, 2)
    assert [c["case_id"] for c in first.cases] == [c["case_id"] for c in again.cases]
    assert first.receipt["studies_per_hour"] > 0


def test_results_that_are_gone_are_made_again(predictor: Predictor, who: Patient, inputs: list[Path], tmp_path: Path) -> None:
    first = run(inputs[:1], predictor, who, tmp_path)
    record = tmp_path / "studies" / first.cases[0]["case_id"] / "findings.json"
    before = json.loads(record.read_text())
    record.unlink()
    assert run(inputs[:1], predictor, who, tmp_path).statuses == {"done": 1}
    after = json.loads(record.read_text())
    timed = ("timings_s", "made_at")
    assert {k: v for k, v in after.items() if k not in timed} == {k: v for k, v in before.items() if k not in timed}
    assert len(after["pixels_sha256"]) == 64


def test_a_study_that_gained_slices_is_done_again(predictor: Predictor, who: Patient, tmp_path: Path) -> None:
    paths = write_dicom(scan_of(who), who, tmp_path / "in")
    last = paths[-1].read_bytes()
    paths[-1].unlink()
    assert run([tmp_path / "in"], predictor, who, tmp_path / "out").statuses == {"done": 1}
    paths[-1].write_bytes(last)
    assert run([tmp_path / "in"], predictor, who, tmp_path / "out").statuses == {"done": 1}
    assert run([tmp_path / "in"], predictor, who, tmp_path / "out").statuses == {"resumed": 1}


def test_case_ids_belong_to_one_results_folder(predictor: Predictor, who: Patient, inputs: list[Path], tmp_path: Path) -> None:
    a, b = (run(inputs, predictor, who, tmp_path / name) for name in "ab")
    assert all(len(case["case_id"]) == 12 for case in a.cases)
    assert not {c["case_id"] for c in a.cases} & {c["case_id"] for c in b.cases}


def test_two_files_of_one_name_are_two_cases(predictor: Predictor, who: Patient, tmp_path: Path) -> None:
    volume = scan_of(who)
    for name in ("day1", "day2"):
        (tmp_path / name).mkdir()
    write_nifti(volume, None, tmp_path / "day1" / "ct.nii.gz")
    write_nifti(Volume((volume.hu + 30).astype(np.int16), volume.geometry), None, tmp_path / "day2" / "ct.nii.gz")
    summary = run([tmp_path / n / "ct.nii.gz" for n in ("day1", "day2")], predictor, who, tmp_path / "out")
    assert summary.statuses["done"] == 2
    assert len(codes(tmp_path / "out")) == 2


def test_the_same_input_twice_is_one_study(predictor: Predictor, who: Patient, inputs: list[Path], tmp_path: Path) -> None:
    copy = shutil.copytree(inputs[0], tmp_path / "copy")
    summary = run([inputs[0], inputs[0], copy], predictor, who, tmp_path / "out")
    assert len(summary.cases) == 1


def test_our_own_failure_stops_nothing_and_tells_nothing(
    predictor: Predictor, who: Patient, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = tmp_path / "sound.nii.gz"
    write_nifti(scan_of(who), None, sound)
    answer, first = predictor.answer, []

    def failing(scans: Sequence[Prepared], **options: Any) -> list[CaseResult]:
        first[:] = first or [scans[0].regions["kidney_left"].hu]
        if any(scan.regions["kidney_left"].hu is first[0] for scan in scans):
            raise RuntimeError(f"{SECRET} in {inputs[0]}")
        return answer(scans, explain=False)

    monkeypatch.setattr(predictor, "answer", failing)
    told: list[Sequence[str]] = []
    summary = run([inputs[0], sound], predictor, who, tmp_path / "out", told=lambda *words: told.append(words))
    assert [case["status"] for case in summary.cases] == ["failed", "done"]
    assert sorted(words[1:] for words in told) == [("done", ""), ("failed", "internal_error")]
    assert dict(summary.reasons) == {"internal_error": 1}
    assert_quiet(tmp_path / "out", summary)
    monkeypatch.undo()
    assert run([inputs[0], sound], predictor, who, tmp_path / "out").statuses == {"done": 1, "resumed": 1}


def test_a_full_disk_stops_the_run_and_loses_nothing(
    predictor: Predictor, who: Patient, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_a: object, **_k: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("medvl.inference.results.write_nifti", full)
    stopped = run(inputs[:1], predictor, who, tmp_path)
    assert (stopped.stopped, stopped.statuses, stopped.complete) == ("disk_full", {"waiting": 1}, False)
    monkeypatch.undo()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        rows = ledger.studies()
    assert [(row["state"], row["attempts"]) for row in rows] == [("queued", 0)]
    assert run(inputs[:1], predictor, who, tmp_path).statuses == {"done": 1}


def test_less_than_the_free_space_wanted_stops_before_any_study(
    predictor: Predictor, who: Patient, inputs: list[Path], tmp_path: Path
) -> None:
    summary = run(inputs[:1], predictor, who, tmp_path, limits=Limits(min_free_bytes=1 << 60))
    assert (summary.stopped, summary.cases) == ("disk_full", [])


def test_a_list_of_inputs(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("note,path\nfirst,a\nsecond,/b/c.zip\n")
    (tmp_path / "list.txt").write_text("# of Monday\na\n\ndicomweb+https://pacs.example/web?StudyDate=today\n")
    table, lines = (inputs_of([str(tmp_path / name)]) for name in ("list.csv", "list.txt"))
    assert table == [tmp_path / "a", Path("/b/c.zip")]
    assert lines[0] == tmp_path / "a"
    assert isinstance(lines[1], WebAddress)
    (tmp_path / "bad.csv").write_text("file\na\n")
    with pytest.raises(ConfigError, match="column called path"):
        inputs_of([str(tmp_path / "bad.csv")])
    with pytest.raises(ConfigError, match="--send"):
        inputs_of(["dicom://PACS@localhost:104"])


def test_the_page_tells_what_is_not_done(predictor: Predictor, who: Patient, inputs: list[Path], tmp_path: Path) -> None:
    summary = run(inputs, predictor, who, tmp_path)
    write_summary(summary, tmp_path, "tiny")
    page = (tmp_path / "summary.html").read_text()
    for case in summary.cases:
        assert (case["case_id"] in page) == (case["status"] == "skipped")
    assert "no_volume" in page and "studies an hour" in page


def assert_quiet(out: Path, summary: Summary) -> None:
    failed = next(p for p in out.glob("studies/*/findings.json") if json.loads(p.read_text())["status"] == "failed")
    message = json.loads(failed.read_text())["reasons"][0]["message"]
    assert "RuntimeError" in message
    assert SECRET not in failed.read_text() + json.dumps(summary.as_dict())


def test_cuda_that_is_not_there(tiny_run: Tiny, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="--device cpu"):
        infer.run([str(p) for p in inputs], Station(str(tiny_run.bundle), tmp_path / "out", "cuda"))
    assert not (tmp_path / "out").exists()
