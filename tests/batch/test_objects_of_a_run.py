"""DICOM objects that a run makes: of every finished study once, with identity or without, and anew where others are wanted."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from orthanc import free_port
from tiny import places, scan_of

from medvl.batch.dues import Dues
from medvl.batch.ledger import Ledger
from medvl.batch.options import Options
from medvl.batch.owner import machine
from medvl.batch.run import Run
from medvl.batch.sending import Sender
from medvl.batch.summary import Summary
from medvl.delivery.deidentify import Deidentifier, Deidentify
from medvl.errors import ConfigError
from medvl.imaging.nifti import write_nifti
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.truth import Patient
from medvl.inference.predictor import Predictor
from medvl_pipelines.station import Station, options_of

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
HIDDEN: dict[str, Any] = {"deidentify": Deidentify(), "deidentify_key": KEY}
ALL = ("sr", "seg", "page", "pdf")


@pytest.fixture(scope="module")
def study(who: Patient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for path in write_dicom(scan_of(who), who, folder):
        image = pydicom.dcmread(path)
        image.PatientName, image.PatientID = "PLANTED^NAME", "PLANTED77"
        image.save_as(path)
    return folder


def made(study: Path, predictor: Predictor, who: Patient, out: Path, **changes: object) -> list[Path]:
    options = Options(readers=0, given=places(who), kinds=("sr",), **changes)  # type: ignore[arg-type]
    assert Run(predictor, out, options).go([study]).complete
    return sorted(out.glob("studies/*/dicom/*"))


def test_objects_are_of_the_source_s_patient_and_made_once(
    study: Path, predictor: Predictor, who: Patient, tmp_path: Path
) -> None:
    (path,) = made(study, predictor, who, tmp_path)
    report, image = pydicom.dcmread(path), pydicom.dcmread(next(study.iterdir()))
    for name in ("PatientName", "PatientID", "StudyInstanceUID"):
        assert report[name].value == image[name].value
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert made(study, predictor, who, tmp_path) == [path]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_objects_without_identity_fit_images_without_identity(
    study: Path, predictor: Predictor, who: Patient, tmp_path: Path
) -> None:
    (path,) = made(study, predictor, who, tmp_path, deidentify=Deidentify(), deidentify_key=KEY)
    assert b"PLANTED" not in path.read_bytes()
    report, image = pydicom.dcmread(path), pydicom.dcmread(next(study.iterdir()))
    theirs = Deidentifier(KEY)
    assert report.PatientIdentityRemoved == "YES"
    assert report.StudyInstanceUID == theirs.uid(image.StudyInstanceUID) != image.StudyInstanceUID
    assert image.StudyInstanceUID.encode() not in path.read_bytes()
    assert theirs.uid(image.SOPInstanceUID).encode() in path.read_bytes()


def test_images_that_may_show_a_name_give_no_objects_without_identity(
    study: Path, predictor: Predictor, who: Patient, tmp_path: Path
) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    for path in study.iterdir():
        image = pydicom.dcmread(path)
        image.BurnedInAnnotation = "YES"
        image.save_as(shown / path.name)
    told: list[tuple[str, ...]] = []
    options = Options(readers=0, given=places(who), kinds=("sr",), deidentify=Deidentify(), deidentify_key=KEY)
    Run(predictor, tmp_path / "out", options, lambda *words: told.append(words)).go([shown])
    assert [words[1:] for words in told] == [("done", ""), ("no objects", "burned_in")]
    assert not list((tmp_path / "out").glob("studies/*/dicom/*"))


def test_a_scan_that_is_no_dicom_gives_none_and_says_why(predictor: Predictor, who: Patient, tmp_path: Path) -> None:
    write_nifti(scan_of(who), None, tmp_path / "scan.nii.gz")
    options = Options(readers=0, given=places(who), kinds=("sr",), targets=("dicom://PACS@localhost:1",), send_wait_s=0)
    summary = Run(predictor, tmp_path / "out", options).go([tmp_path / "scan.nii.gz"])
    assert (summary.deliveries, summary.undelivered) == ({"refused": 1}, {"no_dicom_source": 1})
    assert (summary.without_objects, summary.complete) == (1, False)
    with Ledger(tmp_path / "out" / "ledger.sqlite") as ledger:
        assert [(e["what"], e["reason"]) for e in ledger.events()] == [("done", ""), ("no objects", "no_dicom_source")]


@dataclass
class Peer:
    """dcmtk's receiver, which keeps what comes."""

    folder: Path
    address: str
    known: set[str] = field(default_factory=set)

    def news(self) -> list[Path]:
        """What came since this was asked last; the same object again counts."""
        found = {f"{path} {path.stat().st_mtime_ns}": path for path in self.folder.iterdir()}
        new = [path for name, path in found.items() if name not in self.known]
        self.known |= set(found)
        return new


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    """A receiver of this test's own."""
    if shutil.which("storescp") is None:
        pytest.skip("no storescp: install dcmtk")
    port, folder = free_port(), tmp_path / "came"
    folder.mkdir()
    process = subprocess.Popen(["storescp", "-od", str(folder), str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield Peer(folder, f"dicom://RESEARCH@127.0.0.1:{port}")
    process.kill()
    process.wait()


@dataclass
class Place:
    """A results folder and the study that is worked on in it."""

    study: Path
    predictor: Predictor
    who: Patient
    out: Path

    def go(self, *targets: str, kinds: tuple[str, ...] = ("sr",), **changes: Any) -> Summary:
        """A run in this process."""
        options = Options(readers=0, given=places(self.who), kinds=kinds, targets=targets, send_wait_s=1, **changes)
        return Run(self.predictor, self.out, options).go([self.study])

    def objects(self) -> dict[str, bytes]:
        """Content by name of the objects that lie in the folder."""
        return {path.name: path.read_bytes() for path in self.out.glob("studies/*/dicom/*")}

    def events(self) -> list[str]:
        """What happened, since the study was done."""
        with Ledger(self.out / "ledger.sqlite") as ledger:
            return [event["what"] for event in ledger.events()]


@pytest.fixture(scope="module")
def done(study: Path, predictor: Predictor, who: Patient, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A results folder in which the study is done, without objects."""
    place = Place(study, predictor, who, tmp_path_factory.mktemp("done"))
    assert place.go(kinds=()).complete
    return place


@pytest.fixture
def place(done: Place, tmp_path: Path) -> Place:
    """A copy of it."""
    shutil.copytree(done.out, tmp_path / "out")
    return replace(done, out=tmp_path / "out")


def named(paths: list[Path]) -> list[bool]:
    """Of each object, whether it names the patient."""
    return [b"PLANTED" in path.read_bytes() or pydicom.dcmread(path).get("PatientIdentityRemoved") != "YES" for path in paths]


def test_nothing_identified_is_sent_once_identity_is_to_be_taken_out(place: Place, peer: Peer) -> None:
    assert place.go(kinds=ALL).complete
    identified = place.objects()
    assert all(b"PLANTED77" in content for content in identified.values()) and len(identified) >= 3
    summary = place.go(peer.address, kinds=ALL, **HIDDEN)
    assert (summary.statuses, summary.deliveries, summary.complete) == ({"resumed": 1}, {"sent": 1}, True)
    came = peer.news()
    assert len(came) == len(identified) and not any(named(came))
    assert sorted(path.read_bytes() for path in came) != sorted(identified.values())
    assert not any(b"PLANTED" in content for content in place.objects().values()) and len(place.objects()) == len(identified)
    before = place.objects(), place.events()
    assert place.go(peer.address, kinds=ALL, **HIDDEN).deliveries == {"sent": 1}
    assert ((place.objects(), place.events()), peer.news()) == (before, [])


@pytest.mark.slow
def test_a_set_that_was_sent_counts_for_no_other_and_is_not_sent_again(place: Place, peer: Peer) -> None:
    place.go(peer.address)
    assert named(peer.news()) == [True]
    place.go(peer.address, **HIDDEN)
    assert named(peer.news()) == [False]
    back = place.go(peer.address)
    assert (back.deliveries, peer.news()) == ({"sent": 1}, [])
    assert all(b"PLANTED77" in content for content in place.objects().values())


def test_more_kinds_and_fewer(place: Place, peer: Peer) -> None:
    place.go(peer.address, kinds=("sr",))
    assert (list(place.objects()), len(peer.news())) == (["sr.dcm"], 1)
    place.go(peer.address, kinds=("sr", "page", "pdf"))
    assert sorted(place.objects()) == ["page.dcm", "report.dcm", "sr.dcm"]
    assert sorted(pydicom.dcmread(path).Modality for path in peer.news()) == ["DOC", "OT"], "the report is there"
    place.go(peer.address, kinds=("sr",))
    assert (list(place.objects()), peer.news()) == (["sr.dcm"], [])
    assert place.go(peer.address, kinds=("seg", "sr")).complete and place.go(peer.address, kinds=("sr", "seg")).complete
    assert place.events().count("objects made") == 4, "the same kinds in another order"


@pytest.mark.parametrize(
    "other",
    [
        {"deidentify_key": OTHER_KEY},
        {"deidentify": Deidentify(dates="keep")},
        {"deidentify": Deidentify(retain_uids=True)},
        {"deidentify": Deidentify(retain_patient_characteristics=True)},
    ],
)
def test_another_key_or_option_makes_other_objects(other: dict[str, Any], place: Place, peer: Peer) -> None:
    place.go(peer.address, kinds=("sr",), **HIDDEN)
    (first,) = peer.news()
    place.go(peer.address, kinds=("sr",), **(HIDDEN | other))
    (second,) = peer.news()
    reports = [pydicom.dcmread(path) for path in (first, second)]
    assert reports[0].SOPInstanceUID != reports[1].SOPInstanceUID, "a PACS would keep the first"
    assert named([first, second]) == [False, False]
    (now,) = place.objects().values()
    assert reports[1].SOPInstanceUID.encode() in now
    with Ledger(place.out / "ledger.sqlite") as ledger:
        told = repr([ledger.studies(), Dues(ledger).rows()])
    assert KEY.hex() not in told and OTHER_KEY.hex() not in told and b"PLANTED" not in now


# pynetdicom forgets to close a socket that never got connected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_what_a_former_command_still_owes_waits_for_it(place: Place, peer: Peer) -> None:
    nowhere = f"dicom://PACS@127.0.0.1:{free_port()}"
    assert place.go(nowhere).deliveries == {"waiting": 1}
    hidden = place.go(peer.address, **HIDDEN)
    assert (hidden.deliveries, hidden.undelivered) == ({"waiting": 1, "sent": 1}, {"made_otherwise": 1})
    assert named(peer.news()) == [False]
    assert place.go(nowhere).undelivered == {"pacs_unreachable": 1}


@pytest.mark.slow
def test_a_former_ledger_is_taken_over(place: Place, peer: Peer) -> None:
    place.go(peer.address)
    assert named(peer.news()) == [True]
    engine = sa.create_engine(f"sqlite:///{place.out / 'ledger.sqlite'}")
    with engine.begin() as db:
        for column in ("studies DROP COLUMN way", "studies DROP COLUMN bundle", "studies DROP COLUMN contract"):
            db.execute(sa.text(f"ALTER TABLE {column}"))
        db.execute(sa.text("ALTER TABLE deliveries DROP COLUMN way"))
        db.execute(sa.text("DROP TABLE delivered"))
        db.execute(sa.text("UPDATE about SET value = '1'"))
    engine.dispose()
    again = place.go(peer.address)
    assert (again.statuses, again.deliveries, peer.news()) == ({"resumed": 1}, {"sent": 1}, []), "the same objects came out"
    assert again.cases[0]["bundle"] == place.predictor.bundle.sha256
    assert again.cases[0]["contract"] == place.predictor.bundle.contract.hash
    place.go(peer.address, **HIDDEN)
    assert named(peer.news()) == [False]


class KilledError(Exception):
    """Stands for kill -9 at this very step."""


@pytest.mark.parametrize("step", ["taken", "made", "noted", "sent"])
@pytest.mark.slow
def test_a_kill_between_making_and_sending(step: str, place: Place, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    place.go(peer.address)
    peer.news()

    def dies(*_: Any, **__: Any) -> Any:
        raise KilledError

    options = Options(readers=0, given=places(place.who), kinds=("sr",), targets=(peer.address,), **HIDDEN)
    killed = Run(place.predictor, place.out, options)
    killed.ledger.owner = f"{machine()}/999999999/1/x"
    with monkeypatch.context() as patch:
        patch.setattr(Dues, "put_back", lambda *_: None)
        where = {"taken": (shutil, "rmtree"), "made": (Dues, "made"), "noted": (Sender, "step"), "sent": (Dues, "sent")}[step]
        patch.setattr(*where, dies)
        assert not killed.go([place.study]).complete
    assert named(peer.news()) == ([False] if step == "sent" else [])
    assert place.go(peer.address, **HIDDEN).deliveries == {"sent": 1}
    assert named(peer.news()) == [False], "under the same UID where it came before"
    assert place.go(peer.address, **HIDDEN).complete and peer.news() == []
    assert place.go(peer.address).complete and peer.news() == [], "the identified set has been there from before"


def test_only_what_was_made_is_sent(place: Place, peer: Peer) -> None:
    place.go(kinds=("sr",))
    identified = place.objects()["sr.dcm"]
    place.go(kinds=("sr",), **HIDDEN)
    (path,) = place.out.glob("studies/*/dicom/*")
    path.write_bytes(identified)  # as from a backup
    place.go(peer.address, kinds=("sr",), **HIDDEN)
    assert place.go(peer.address, kinds=("sr",), **HIDDEN).complete
    assert named(peer.news()) == [False]
    assert "objects changed" in place.events()


def test_options_that_change_answers_count_on_a_finished_folder(place: Place) -> None:
    assert place.go(kinds=()).statuses == {"resumed": 1}
    moved = {name: type(p)(p.center_lps + 2.0, p.confidence) for name, p in places(place.who).items()}
    for given in (places(place.who), moved):
        options = Options(readers=0, given=given, explain=False)
        runs = [Run(place.predictor, place.out, options).go([place.study]) for _ in range(2)]
        assert [run.statuses for run in runs] == [{"done": 1}, {"resumed": 1}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dates": "shift", "dicom": "sr"}, "--dates shift without --deidentify"),
        ({"retain_uids": True, "dicom": "sr"}, "--retain-uids without --deidentify"),
        ({"deidentify_key": Path("site.key"), "dicom": "sr"}, "--deidentify-key site.key without --deidentify"),
        ({"deidentify": True}, "none are made; add --dicom"),
    ],
)
def test_a_word_on_identity_that_would_change_nothing_is_refused(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        options_of(Station("phantom-demo", tmp_path / "out", **given), 0)


def test_objects_are_for_their_owner_alone_whatever_the_mask(place: Place) -> None:
    before = os.umask(0)
    try:
        place.go(kinds=("sr",))
    finally:
        os.umask(before)
    (path,) = place.out.glob("studies/*/dicom/*")
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    path.parent.chmod(0o755)  # as versions of before left it
    place.go(kinds=())
    assert path.parent.stat().st_mode & 0o777 == 0o700
