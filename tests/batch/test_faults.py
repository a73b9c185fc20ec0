"""Fast versions of what `benchmarks/faults.py` does to real processes: deaths, two writers, and stops between two steps."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import Tiny, places, scan_of

from medvl.batch.hand import Here, KilledError
from medvl.batch.ledger import DEATHS, Case, Ledger
from medvl.batch.marks import By
from medvl.batch.options import Options
from medvl.batch.owner import machine
from medvl.batch.run import Run
from medvl.batch.stopping import Stop
from medvl.batch.summary import Summary
from medvl.batch.tables import State
from medvl.imaging.nifti import write_nifti
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.truth import Patient
from medvl.inference.predictor import Predictor
from medvl.inference.results import ResultsFolder
from medvl_pipelines import infer, station

BY = By("b" * 64, "c" * 64, "b")


def die(ledger: Ledger, number: int) -> None:
    """From now on the ledger's owner is a process that is dead."""
    ledger.owner = f"{machine()}/{2**22 + 1 + number}/1/dead{number}"


def test_runs_that_die_count_against_a_study_only_when_they_are_many(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add([Case("c0", {"path": "/x"}, {"key": "s"}, "print")], BY)
        for number in range(2 * DEATHS):
            die(ledger, number)
            taken = ledger.claim(attempts=2)
            assert taken is not None and taken.attempts == 1, f"set aside after {number} deaths"
        die(ledger, 2 * DEATHS)
        assert ledger.claim(attempts=2) is None
        row = ledger.studies()[0]
        assert (row["state"], row["reason"], row["owner"]) == ("quarantined", "worker_died", None)


def test_deaths_of_runs_do_not_use_up_the_tries_of_a_study(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add([Case("c0", {"path": "/x"}, {"key": "s"}, "print")], BY)
        for number in range(5):
            die(ledger, number)
            assert ledger.claim(attempts=2) is not None
        die(ledger, 5)
        assert ledger.claim(attempts=2) is not None
        assert ledger.back("c0", 2, "timeout", "too long") == State.queued
        assert ledger.claim(attempts=2) is not None
        assert ledger.back("c0", 2, "timeout", "too long") == State.quarantined


def test_deaths_before_a_study_was_given_anew_are_forgotten(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        case = Case("c0", {"path": "/x"}, {"key": "s"}, "print")
        ledger.add([case], BY)
        for number in range(DEATHS + 1):
            die(ledger, number)
            ledger.claim(attempts=1)
        assert ledger.counts()[State.quarantined] == 1
        ledger.add([case], BY, again=(State.quarantined,))
        for number in range(2):
            die(ledger, number)
            assert ledger.claim(attempts=1) is not None


def test_two_runs_may_write_the_same_study_at_once(tmp_path: Path) -> None:
    folders = [ResultsFolder(tmp_path), ResultsFolder(tmp_path)]
    barrier = threading.Barrier(2)

    def write(number: int) -> None:
        for turn in range(60):
            barrier.wait(10)
            folders[number].write("0123456789ab", {"writer": number, "turn": turn}, None)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    assert json.loads((tmp_path / "studies" / "0123456789ab" / "findings.json").read_text())["turn"] == 59
    assert [p.name for p in (tmp_path / "studies").iterdir()] == ["0123456789ab"]


def test_what_killed_processes_left_half_written_goes_after_a_while(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    folder.write("0123456789ab", {"status": "done"}, None)
    old, young = tmp_path / "studies" / ".0123456789ab-1.part", tmp_path / "studies" / ".0123456789ab-2.part"
    for part in (old, young):
        (part / "heatmaps").mkdir(parents=True)
    table, object_ = tmp_path / ".aa.part", folder.folder("0123456789ab") / "dicom" / ".bb.part"
    object_.parent.mkdir()
    for file in (table, object_):
        file.write_text("half")
    for part in (old, table, object_):
        os.utime(part, (time.time() - 7200,) * 2)
    folder.tidy()
    assert sorted(p for p in tmp_path.rglob(".*")) == [young]
    assert folder.done("0123456789ab")


def go(study: Path, predictor: Predictor, who: Patient, out: Path) -> Summary:
    """A run over one study in this process."""
    return Run(predictor, out, Options(readers=0, given=places(who), explain=False)).go([study])


def record(out: Path) -> dict[str, Any]:
    """The only record of a results folder, without what differs from run to run."""
    (path,) = out.glob("studies/*/findings.json")
    return {k: v for k, v in json.loads(path.read_text()).items() if k not in ("made_at", "timings_s")}


@pytest.mark.parametrize("step", ["write", "end", "tables"])
def test_a_run_that_breaks_off_at_any_step_is_made_good_by_the_next(
    step: str, predictor: Predictor, who: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, out = tmp_path / "ct.nii.gz", tmp_path / "out"
    write_nifti(scan_of(who), None, study)
    whole = Ledger.end if step == "end" else getattr(ResultsFolder, step)

    def breaks(self: Any, *args: Any) -> None:
        if step == "tables":
            whole(self, *args)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Ledger if step == "end" else ResultsFolder, step, breaks)
    stopped = go(study, predictor, who, out)
    assert stopped.stopped == "results_unwritable"
    monkeypatch.undo()
    with Ledger(out / "ledger.sqlite") as ledger:
        (row,) = ledger.studies()
        assert (row["state"], row["owner"], row["attempts"]) == (("done", None, 1) if step == "tables" else ("queued", None, 0))
    again = go(study, predictor, who, out)
    assert again.statuses == ({"resumed": 1} if step == "tables" else {"done": 1})
    with Ledger(out / "ledger.sqlite") as ledger:
        assert [event["what"] for event in ledger.events()].count("done") == 1
    go(study, predictor, who, tmp_path / "undisturbed")
    same = ("findings", "regions", "status", "pixels_sha256", "bundle")
    assert {k: record(out)[k] for k in same} == {k: record(tmp_path / "undisturbed")[k] for k in same}


def test_a_result_on_the_disk_that_the_ledger_does_not_know_is_replaced_whole(
    predictor: Predictor, who: Patient, tmp_path: Path
) -> None:
    study, out = tmp_path / "ct.nii.gz", tmp_path / "out"
    write_nifti(scan_of(who), None, study)
    summary = go(study, predictor, who, out)
    before, case_id = record(out), summary.cases[0]["case_id"]
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (out / name).unlink(missing_ok=True)
    (out / "studies" / case_id / "findings.json").write_text('{"status": "do')
    assert go(study, predictor, who, out).statuses == {"done": 1}
    assert record(out) == before


def test_an_input_that_is_readable_again_leaves_no_end_of_before(predictor: Predictor, who: Patient, tmp_path: Path) -> None:
    study, out = tmp_path / "in", tmp_path / "out"
    study.mkdir()
    (study / "letter.txt").write_text("Dear colleague")
    assert go(study, predictor, who, out).reasons == {"no_images": 1}
    (study / "letter.txt").unlink()
    write_dicom(scan_of(who), who, study)
    assert go(study, predictor, who, out).statuses == {"done": 1}
    record(out)
    with Ledger(out / "ledger.sqlite") as ledger:
        assert [row["state"] for row in ledger.studies()] == ["done"]


def test_a_folder_that_cannot_be_listed_says_so(
    predictor: Predictor, who: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()

    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("medvl.dicom.source.os.scandir", refused)
    assert go(tmp_path / "in", predictor, who, tmp_path / "out").reasons == {"unreadable_file": 1}


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_when_the_summary_is_written_is_no_crash(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medvl.batch.page.write_json", full)
    summary = station.work(Run(predictor, tmp_path / "out", Options(readers=0)))
    assert (station.exit_code(summary), summary.stopped) == (4, "disk_full")
    assert "disk of the results folder is full" in capsys.readouterr().err


def test_a_disk_that_is_full_when_the_ledger_is_opened_is_no_crash(
    tiny_run: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medvl.batch.ledger.open_engine", full)
    (tmp_path / "in").mkdir()
    assert infer.run([str(tmp_path / "in")], station.Station(str(tiny_run.bundle), tmp_path / "out", "cpu", readers=1)) == 4
    assert "disk of the results folder is full" in capsys.readouterr().err


def test_a_stopped_run_without_tables_tells_its_end(
    tiny_run: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medvl.batch.stopping.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    (tmp_path / "in").mkdir()
    assert infer.run([str(tmp_path / "in")], station.Station(str(tiny_run.bundle), tmp_path / "out", "cpu", readers=1)) == 4
    assert "0 studies" in capsys.readouterr().out


@pytest.mark.parametrize(("deaths", "ends"), [(1, {"done": 1}), (2, {"failed": 1})])
def test_a_child_that_dies_while_it_looks_is_followed_by_another(
    deaths: int, ends: dict[str, int], predictor: Predictor, who: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, asked = tmp_path / "ct.nii.gz", []
    write_nifti(scan_of(who), None, study)
    ask = Here.ask

    def dies(self: Here, job: Any, within_s: float) -> Any:
        asked.append(job["op"])
        if asked.count("find") <= deaths and job["op"] == "find":
            raise KilledError("worker_died", "its process died")
        return ask(self, job, within_s)

    monkeypatch.setattr(Here, "ask", dies)
    assert go(study, predictor, who, tmp_path / "out").statuses == ends


def test_a_run_that_stops_blames_no_input_that_it_was_looking_at(
    predictor: Predictor, who: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, out = tmp_path / "ct.nii.gz", tmp_path / "out"
    write_nifti(scan_of(who), None, study)
    begun = Run(predictor, out, Options(readers=0, given=places(who), explain=False))

    def ended(*_: Any) -> None:
        begun.stop.now("interrupted", "the run was interrupted")
        raise KilledError("worker_died", "its process died")

    monkeypatch.setattr(Here, "ask", ended)
    assert begun.go([study]).cases == []
    monkeypatch.undo()
    assert go(study, predictor, who, out).statuses == {"done": 1}
    record(out)


def test_a_full_disk_is_known_in_the_words_of_any_library() -> None:
    class SafetensorError(Exception):
        pass

    stop = Stop()
    stop.because(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert stop.code == "disk_full"
