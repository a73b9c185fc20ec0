"""A night against a real Orthanc, as a hospital's IT would do it. Run by `test_station.py` in a network namespace."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from night import (
    ENVIRONMENT,
    call,
    cutting,
    errors_of,
    first,
    held,
    medvl,
    results_in,
    sent_from,
    storescu,
    until,
    upload,
    web,
)
from orthanc import LOGIN, Pacs, free_port, new_pacs
from pydicom import dcmread

from medvl.batch import finder
from medvl.batch.dues import Dues
from medvl.batch.ledger import Ledger
from medvl.batch.options import Options
from medvl.batch.run import Run
from medvl.batch.summary import Summary
from medvl.batch.tables import deliveries
from medvl.inference.predictor import Predictor
from medvl.network.access import Access
from medvl_pipelines.station import KINDS, exit_code

LATER = ["objects made", "delivery sent"]
ONE_EACH = Counter({"SR": 1, "SEG": 1, "OT": 1, "DOC": 1})


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    """An Orthanc that does not run yet."""
    found = new_pacs(tmp_path / "orthanc")
    yield found
    found.stop()


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """The login as a private file."""
    path = tmp_path / "credentials.yaml"
    path.write_text(f"user: {LOGIN.user}\npassword: {LOGIN.password}\n")
    path.chmod(0o600)
    return path


def run(demo: Predictor, out: Path, inputs: Sequence[Any], *targets: str, **options: Any) -> Summary:
    """A run in this process, where the model is loaded already."""
    values = {
        "readers": 0,
        "kinds": KINDS if targets else (),
        "targets": targets,
        "access": LOGIN,
        "send_wait_s": 20.0,
        **options,
    }
    return Run(demo, out, Options(**values)).go(inputs)


def check_delivered(pacs: Pacs, images: Path, results: Path, back: Path) -> None:
    """The PACS holds what was sent, each object once, filed with its images, valid."""
    source = first(images)
    found = results_in(pacs, source.StudyInstanceUID, back)
    numbers = {kind: len(paths) for kind, paths in found.items()}
    assert numbers == {"sr": 1, "seg": max(1, numbers["seg"]), "page": 1, "pdf": 1}, "one seg for each region with heat maps"
    sent = {
        uid: path for uid, path in sent_from(results).items() if first(path.parent).StudyInstanceUID == source.StudyInstanceUID
    }
    back_again = [path for paths in found.values() for path in paths]
    series = set()
    assert sorted(str(dcmread(path).SOPInstanceUID) for path in back_again) == sorted(sent)
    for path in back_again:
        got = dcmread(path)
        assert errors_of(path) == []
        assert got == dcmread(sent[str(got.SOPInstanceUID)])
        for name in ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyInstanceUID", "StudyDate"):
            assert got.get(name, "") == source.get(name, ""), name
        series.add(str(got.SeriesInstanceUID))
    assert len(series) == 4
    document = dcmread(found["pdf"][0])
    text = subprocess.run(["pdftotext", "-", "-"], input=document.EncapsulatedDocument, capture_output=True, check=True).stdout
    assert b"Research software" in text


def test_evening_and_morning(pacs: Pacs, patients: Sequence[Path], credentials: Path, tmp_path: Path) -> None:
    upload(pacs.start(), *patients[:2])
    images, out = len(pacs.rest("/instances")), tmp_path / "R"
    words = ["infer", f"{pacs.web}?ModalitiesInStudy=CT", "-b", "phantom-demo", "-o", out, "--send", pacs.web]
    words += ["--credentials", credentials, "--readers", 1, "--json"]
    night = call(*words)
    assert night.returncode == 0, night.stderr
    told = json.loads(night.stdout)
    assert (told["studies"], told["done"], told["deliveries"]) == (2, 2, {"sent": 2})
    assert len(pacs.rest("/instances")) == images + len(sent_from(out))
    for number, patient in enumerate(patients[:2]):
        check_delivered(pacs, patient, out, tmp_path / f"back{number}")
    last = pacs.last_change()
    morning = call(*words)
    assert morning.returncode == 0, morning.stderr
    again = json.loads(morning.stdout)
    assert (again["studies"], again["resumed"], again["done"], again["deliveries"]) == (2, 2, 0, {"sent": 2})
    assert pacs.new_since(last) == []
    page = (out / "summary.html").read_text()
    assert "2 studies" in page and "resumed" in page
    assert {case["case_id"] for case in again["cases"]} == {p.parent.name for p in out.glob("studies/*/findings.json")}
    said = night.stdout + night.stderr + morning.stdout + morning.stderr + page
    hidden = [LOGIN.password, *(str(first(p)[name].value) for p in patients[:2] for name in ("StudyInstanceUID", "PatientID"))]
    assert [word for word in hidden if word in said] == []
    assert list((out / "spool").iterdir()) == [], "images that were fetched do not stay"


def test_studies_that_are_sent_to_us(pacs: Pacs, patients: Sequence[Path], tmp_path: Path) -> None:
    pacs.start()
    port, out = free_port(), tmp_path / "R"
    words = ["listen", "--port", port, "--allow", "CT1", "--quiet", 1, "-b", "phantom-demo", "-o", out, "--send", pacs.peer]
    words += ["--readers", 1, "--min-free-gb", 0]

    def listening(log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            process = subprocess.Popen(medvl(*words), stdout=file, stderr=file, env=ENVIRONMENT)
        until(lambda: "listening on" in log.read_text() or process.poll() is not None, "listening")
        assert process.poll() is None, log.read_text()
        return process

    killed = listening(tmp_path / "log1")
    storescu(port, patients[2])
    until(lambda: ": done" in (tmp_path / "log1").read_text(), "the first study is done")
    storescu(port, patients[3])
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    process = listening(tmp_path / "log2")
    through = out / "received" / "late"
    until(lambda: len([*through.glob("*-*")]) == 2, "both studies are made, sent and through")
    process.terminate()
    assert process.wait(60) == 0, (tmp_path / "log2").read_text()
    for number, patient in enumerate(patients[2:4]):
        check_delivered(pacs, patient, out, tmp_path / f"back{number}")


# pynetdicom forgets to close a socket that never got connected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_pacs_that_is_down_refuses_or_forgets_to_answer(
    pacs: Pacs, patients: Sequence[Path], demo: Predictor, tmp_path: Path
) -> None:
    out, study = tmp_path / "R", [patients[0]]
    down = run(demo, out, study, pacs.web, pacs.peer, send_wait_s=0.5)
    assert (dict(down.statuses), dict(down.deliveries), dict(down.undelivered)) == (
        {"done": 1},
        {"waiting": 2},
        {"pacs_unreachable": 2},
    )
    assert exit_code(down) == 3
    pacs.start()

    wrong = run(demo, out, study, pacs.web, access=Access(user="night", password="wrong"), send_wait_s=10)
    assert (dict(wrong.deliveries), dict(wrong.undelivered)) == ({"refused": 1, "sent": 1}, {"pacs_refused": 1})
    assert (exit_code(wrong), held(pacs)) == (3, ONE_EACH), "what was owed by C-STORE arrived"
    with Ledger(out / "ledger.sqlite") as ledger:
        refused = [row for row in Dues(ledger).rows() if row["target"] == pacs.web]
        assert "401" in refused[0]["message"] and LOGIN.user not in refused[0]["message"]
    stubborn = run(demo, out, study, pacs.web, pacs.peer)
    assert (dict(stubborn.deliveries), exit_code(stubborn)) == ({"refused": 1, "sent": 1}, 3)
    with Ledger(out / "ledger.sqlite") as ledger:
        assert [r["attempts"] for r in Dues(ledger).rows() if r["target"] == pacs.web] == [refused[0]["attempts"]]
    right = run(demo, out, study, pacs.web, pacs.peer, retry_refused=True)
    assert (dict(right.statuses), dict(right.deliveries), exit_code(right)) == ({"resumed": 1}, {"sent": 2}, 0)
    assert held(pacs) == ONE_EACH, "two ways into one PACS, one object each"

    last = pacs.last_change()
    with Ledger(out / "ledger.sqlite") as ledger, ledger.writing() as db:  # as kill -9 between the PACS's answer and its note
        db.execute(deliveries.update().values(state="waiting", owner=None, sent_at=None))
    after = run(demo, out, study, pacs.web, pacs.peer)
    assert (dict(after.deliveries), exit_code(after)) == ({"sent": 2}, 0)
    assert (pacs.new_since(last), held(pacs)) == ([], ONE_EACH)

    elsewhere = run(demo, tmp_path / "R2", study, pacs.web)
    assert (dict(elsewhere.statuses), dict(elsewhere.deliveries)) == ({"done": 1}, {"sent": 1})
    assert (pacs.new_since(last), held(pacs)) == ([], ONE_EACH), (
        "worked out anew in another folder, the objects are the same ones"
    )


def test_a_connection_that_breaks_while_images_come(
    pacs: Pacs, patients: Sequence[Path], demo: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(pacs.start(), patients[0])
    monkeypatch.setattr(finder, "WAITS_S", (0.1, 0.2))
    with cutting(pacs.http, cuts=1000) as cutter:
        address = web(f"dicomweb+http://127.0.0.1:{cutter.port}/dicom-web?ModalitiesInStudy=CT")
        broken = run(demo, tmp_path / "R", [address])
        assert ([c["reason"] for c in broken.cases], dict(broken.statuses)) == (["pacs_unreachable"], {"failed": 1})
        assert (exit_code(broken), cutter.cuts) == (3, 1000 - 3)
        cutter.cuts = 2
        whole = run(demo, tmp_path / "R", [address])
        assert (dict(whole.statuses), exit_code(whole), cutter.cuts) == ({"done": 1}, 0, 0)
        assert not [*(tmp_path / "R" / "spool").iterdir()], "images that were fetched do not stay"
        cutter.cuts = 1
        sent = run(demo, tmp_path / "R", [address], pacs.web)
        assert (dict(sent.statuses), dict(sent.deliveries), exit_code(sent), cutter.cuts) == ({"resumed": 1}, {"sent": 1}, 0, 0)
        check_delivered(pacs, patients[0], tmp_path / "R", tmp_path / "back")
    with Ledger(tmp_path / "R" / "ledger.sqlite") as ledger:
        assert [e["what"] for e in ledger.events()] == ["queued again"] * 2 + ["failed"] + ["queued again"] * 2 + ["done"] + LATER


def test_a_pacs_that_is_down_when_it_is_asked(
    pacs: Pacs, patients: Sequence[Path], demo: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "WAITS_S", (0.1, 0.1))
    address = web(f"{pacs.web}?ModalitiesInStudy=CT")
    down = run(demo, tmp_path / "R", [address])
    assert ([(c["status"], c["reason"]) for c in down.cases], exit_code(down)) == ([("failed", "pacs_unreachable")], 3)
    wrong = run(demo, tmp_path / "R", [web(pacs.start().web)], access=Access(token="wrong"))
    assert ([(c["status"], c["reason"]) for c in wrong.cases], exit_code(wrong)) == ([("failed", "pacs_refused")], 3)
    empty = run(demo, tmp_path / "R", [address])
    assert (empty.cases, exit_code(empty)) == ([], 0)
    assert not [*(tmp_path / "R" / "studies").iterdir()], "no row in the table for an input that is well by now"


@pytest.mark.data
def test_a_real_scan_there_and_back(pacs: Pacs, demo: Predictor, shared_data: Path, tmp_path: Path) -> None:
    images, out = shared_data / "dicom" / "abdomen_portal_venous_crlm1004" / "dicom", tmp_path / "R"
    upload(pacs.start(), images)
    address = web(f"{pacs.web}?ModalitiesInStudy=CT")
    done = run(demo, out, [address], pacs.web, pacs.peer)
    assert (dict(done.statuses), dict(done.deliveries), exit_code(done)) == ({"done": 1}, {"sent": 2}, 0)
    assert (held(pacs) | ONE_EACH) == ONE_EACH and held(pacs)["SR"] == 1
    found = results_in(pacs, first(images).StudyInstanceUID, tmp_path / "back")
    for path in (path for paths in found.values() for path in paths):
        assert errors_of(path) == []
        assert dcmread(path) == dcmread(sent_from(out)[str(dcmread(path).SOPInstanceUID)])
    again = run(demo, out, [address], pacs.web, pacs.peer)
    assert (dict(again.statuses), exit_code(again)) == ({"resumed": 1}, 0)
