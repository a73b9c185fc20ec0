"""Phantom files: DICOM that others read the same way, a cohort folder that resumes, splits that stay."""

import csv
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.phantom import write
from medvl.imaging.phantom.dicom import Syntax, write_dicom
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.truth import Patient
from medvl.records import Volume
from medvl_pipelines import phantom as pipeline


def _oblique() -> Volume:
    """5x7x11 voxels of 2.5/0.8/0.7 mm, turned about two axes, with every value different."""
    a, b = np.radians(20.0), np.radians(-12.0)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn[:, [2, 1, 0]] * np.array([2.5, 0.8, 0.7])
    affine[:3, 3] = (-101.25, 33.5, -712.125)
    return Volume((np.arange(385, dtype=np.int16) * 10 - 1024).reshape(5, 7, 11), Geometry((5, 7, 11), affine))


@pytest.fixture
def patient() -> Patient:
    return sample_patient(5, 4)


@pytest.mark.parametrize("syntax", ["explicit", "jpegls"])
def test_simpleitk_reads_the_same_values_at_the_same_places(tmp_path: Path, patient: Patient, syntax: Syntax) -> None:
    volume = _oblique()
    paths = write_dicom(volume, patient, tmp_path, syntax=syntax)
    if syntax == "jpegls":  # SimpleITK's own decoder may lack 12-bit JPEG-LS, pydicom's does not
        planes = [pydicom.dcmread(path).pixel_array.astype(int) - 1024 for path in paths]
        assert np.array_equal(np.stack(planes), volume.hu)
        return
    image = sitk.ReadImage([str(path) for path in paths])
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.hu)
    for index in ((0, 0, 0), (4, 6, 10), (2, 5, 1)):
        place = image.TransformIndexToPhysicalPoint(index[::-1])
        assert np.allclose(place, volume.geometry.to_lps(index), atol=1e-4)


def test_slices_carry_the_stored_grid_in_tags(tmp_path: Path, patient: Patient) -> None:
    ds = pydicom.dcmread(write_dicom(_oblique(), patient, tmp_path)[3])
    assert (ds.Rows, ds.Columns) == (7, 11)
    assert [float(x) for x in ds.PixelSpacing] == [0.8, 0.7]
    assert float(ds.SpacingBetweenSlices) == 2.5
    assert float(ds.SliceThickness) == patient.scanner.thickness_mm
    assert (ds.BitsStored, ds.PixelRepresentation, float(ds.RescaleIntercept)) == (12, 0, -1024.0)


def test_identity_is_plainly_fake_and_the_same_each_time(tmp_path: Path, patient: Patient) -> None:
    first = [path.read_bytes() for path in write_dicom(_oblique(), patient, tmp_path / "a", localizer=True)]
    again = [path.read_bytes() for path in write_dicom(_oblique(), patient, tmp_path / "b", localizer=True)]
    assert first == again
    headers = [pydicom.dcmread(path) for path in sorted((tmp_path / "a").iterdir())]
    assert {str(ds.PatientName) for ds in headers} == {"Phantom^000004"}
    assert len({ds.SOPInstanceUID for ds in headers}) == len(headers) == 6
    assert len({ds.StudyInstanceUID for ds in headers}) == len({ds.FrameOfReferenceUID for ds in headers}) == 1
    assert all(ds.SOPInstanceUID.startswith("2.25.") and ds.SOPInstanceUID.is_valid for ds in headers)
    other = pydicom.dcmread(write_dicom(_oblique(), replace(patient, seed=6), tmp_path / "c")[0])
    assert other.StudyInstanceUID != headers[0].StudyInstanceUID


@pytest.mark.parametrize(("phase", "delay_s"), [("noncontrast", None), ("arterial", 35), ("portal_venous", 70), ("delayed", 180)])
def test_contrast_tags_follow_the_phase(tmp_path: Path, patient: Patient, phase: str, delay_s: int | None) -> None:
    contrast = replace(patient, scanner=replace(patient.scanner, phase=phase))
    ds = pydicom.dcmread(write_dicom(_oblique(), contrast, tmp_path)[0])
    if delay_s is None:
        assert "ContrastBolusAgent" not in ds
        return
    start, scan = (int(t[:2]) * 3600 + int(t[2:4]) * 60 + int(t[4:6]) for t in (ds.ContrastBolusStartTime, ds.AcquisitionTime))
    assert scan - start == delay_s


def test_localizer_and_thick_series_lie_where_the_volume_lies(tmp_path: Path, patient: Patient) -> None:
    volume = write.render(patient, Geometry.centered((0, 0, 0), (12, 20, 22), (4.0, 18.0, 17.0)))
    write_dicom(volume, patient, tmp_path, localizer=True, thick=True)
    scout = sitk.ReadImage([str(tmp_path / "01-0001.dcm")])
    assert pydicom.dcmread(tmp_path / "01-0001.dcm").ImageType[2] == "LOCALIZER"
    top = volume.geometry.to_lps((11, 9.5, 3))
    index = scout.TransformPhysicalPointToIndex([float(x) for x in top])
    assert index[:2] == (3, 0)
    assert sitk.GetArrayFromImage(scout)[0, 0, 3] == pytest.approx(volume.hu[11, :, 3].mean(), abs=1)
    thick = sitk.ReadImage([str(path) for path in sorted(tmp_path.glob("03-*.dcm"))])
    assert thick.GetSize() == (22, 20, 6)
    assert np.allclose(thick.GetOrigin(), volume.geometry.to_lps((0.5, 0, 0)), atol=1e-4)
    assert np.allclose(sitk.GetArrayFromImage(thick)[2], volume.hu[4:6].mean(axis=0), atol=1)


def test_a_sheared_grid_is_refused(tmp_path: Path, patient: Patient) -> None:
    volume = _oblique()
    affine = volume.geometry.affine_lps.copy()
    affine[:3, 0] += 0.3 * affine[:3, 1]
    with pytest.raises(ValueError, match="sheared by"):
        write_dicom(Volume(volume.hu, Geometry((5, 7, 11), affine)), patient, tmp_path)


@pytest.mark.parametrize("syntax", ["explicit", "jpegls"])
def test_dciodvfy_finds_no_error(tmp_path: Path, patient: Patient, syntax: Syntax) -> None:
    checker = shutil.which("dciodvfy")
    if checker is None:
        pytest.skip("no dciodvfy: install dicom3tools")
    volume = write.render(patient, Geometry.centered((0, 0, 0), (12, 20, 22), (4.0, 18.0, 17.0)))
    for path in write_dicom(volume, patient, tmp_path, syntax=syntax, localizer=True, thick=True):
        said = subprocess.run([checker, str(path)], capture_output=True, text=True, check=False)
        assert "CTImage" in said.stderr + said.stdout
        assert "Error" not in said.stderr + said.stdout


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies of a few coarse voxels, so that cohort tests are quick."""
    render, grid = write.render, Geometry.centered((0, 0, 0), (6, 14, 15), (60.0, 25.0, 24.0))
    monkeypatch.setattr(write, "render", lambda patient: render(patient, grid))


@pytest.mark.usefixtures("small")
def test_a_cohort_has_studies_reports_truth_and_a_manifest(tmp_path: Path) -> None:
    assert pipeline.run(tmp_path, n=3, seed=9, formats=("dicom", "nifti"), start=2, masks=True) == 0
    with (tmp_path / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["patient_id"] for row in rows] == ["PH000002", "PH000003", "PH000004"]
    for number, row in enumerate(rows, start=2):
        truth = json.loads((tmp_path / row["truth"]).read_text(encoding="utf-8"))
        patient = sample_patient(9, number)
        assert truth["time_days"] == patient.time_days == float(row["time_days"])
        assert int(row["event"]) == patient.event
        assert row["split"] == truth["split"] == write.split_of(9, patient.patient_id)
        assert set(truth["region_centers_lps"]) == {"kidney_left", "kidney_right", "chest"}
        assert (tmp_path / row["report"]).read_text(encoding="utf-8") == write.report_of(patient)
        assert (tmp_path / row["nifti"]).exists()
        assert len(list((tmp_path / row["dicom"]).iterdir())) >= 7
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.usefixtures("small")
def test_a_rerun_writes_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.run(tmp_path, n=2, seed=9)
    (tmp_path / "truth" / "PH000001.json").unlink()  # as if the run had died in this patient
    written = []
    original = pipeline.write_patient
    monkeypatch.setattr(pipeline, "write_patient", lambda p, *a, **k: (written.append(p.patient_id), original(p, *a, **k)))
    pipeline.run(tmp_path, n=3, seed=9)
    assert written == ["PH000001", "PH000002"]
    pipeline.run(tmp_path, n=1, seed=9, formats=("nifti",))
    assert written[2:] == ["PH000000"]


@pytest.mark.usefixtures("small")
def test_another_seed_or_format_is_refused(tmp_path: Path) -> None:
    pipeline.run(tmp_path, n=1, seed=9)
    with pytest.raises(ConfigError, match="'seed': 9"):
        pipeline.run(tmp_path, n=1, seed=10)
    with pytest.raises(ConfigError, match=r"unknown formats \['nrrd'\]"):
        pipeline.run(tmp_path, n=1, seed=9, formats=("nrrd",))


def test_splits_have_their_shares_and_hold_still() -> None:
    names = [write.split_of(7, f"PH{n:06d}") for n in range(4000)]
    for name, share in write.SPLITS.items():
        assert names.count(name) / 4000 == pytest.approx(share, abs=0.02)
    assert [write.split_of(7, f"PH{n:06d}") for n in range(6)] == names[:6]
    assert names != [write.split_of(8, f"PH{n:06d}") for n in range(4000)]
