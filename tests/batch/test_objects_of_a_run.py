"""DICOM objects that a run makes: of every finished study once, with identity or without."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from tiny import places, scan_of

from medvl.batch.ledger import Ledger
from medvl.batch.options import Options
from medvl.batch.run import Run
from medvl.delivery.deidentify import Deidentifier, Deidentify
from medvl.imaging.nifti import write_nifti
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.truth import Patient
from medvl.inference.predictor import Predictor

KEY = bytes(range(32))


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
