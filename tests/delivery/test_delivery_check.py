"""A file that does not say what the results say is not kept."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from finished import conforms, finished, series

from medvl.delivery import objects
from medvl.delivery.objects import make_objects
from medvl.errors import InputError
from medvl.imaging.load import load

NOW = datetime(2026, 3, 4, 5, 6, 7)


def another_patient(ds: pydicom.Dataset) -> None:
    ds.PatientID = "ID-2"


def another_study(ds: pydicom.Dataset) -> None:
    ds.StudyInstanceUID = "1.2.3.4.7"


def no_birth_date(ds: pydicom.Dataset) -> None:
    del ds.PatientBirthDate


def one_voxel(ds: pydicom.Dataset) -> None:
    pixels = bytearray(ds.PixelData)
    pixels[100] = (pixels[100] + 3) % 256
    ds.PixelData = bytes(pixels)


def shifted(ds: pydicom.Dataset) -> None:
    for item in ds.PerFrameFunctionalGroupsSequence:
        plane = item.PlanePositionSequence[0]
        plane.ImagePositionPatient = [float(v) + 0.5 for v in plane.ImagePositionPatient]


def measurements(ds: pydicom.Dataset) -> pydicom.Dataset:
    return ds.ContentSequence[-1]


def a_group_less(ds: pydicom.Dataset) -> None:
    del measurements(ds).ContentSequence[1]


def another_verdict(ds: pydicom.Dataset) -> None:
    for item in measurements(ds).ContentSequence[0].ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "121052":
            item.ConceptCodeSequence[0].CodeValue = "272519000"


def another_certainty(ds: pydicom.Dataset) -> None:
    for item in measurements(ds).ContentSequence[0].ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "111012":
            item.MeasuredValueSequence[0].NumericValue = "91"


def another_peak(ds: pydicom.Dataset) -> None:
    for item in measurements(ds).ContentSequence[0].ContentSequence:
        if item.ValueType == "SCOORD3D":
            item.GraphicData = [float(v) + 1 for v in item.GraphicData]


def verified(ds: pydicom.Dataset) -> None:
    ds.VerificationFlag = "VERIFIED"


def cut(ds: pydicom.Dataset) -> None:
    ds.EncapsulatedDocument = ds.EncapsulatedDocument[:-200]


CHANGES = [
    ("sr", another_patient), ("seg", another_patient), ("pdf", another_study), ("page", no_birth_date),
    ("seg", one_voxel), ("seg", shifted), ("page", one_voxel), ("pdf", cut), ("sr", verified),
    ("sr", a_group_less), ("sr", another_verdict), ("sr", another_certainty), ("sr", another_peak),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change"), CHANGES)
def test_what_differs_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, change: Callable[[pydicom.Dataset], None]
) -> None:
    """The change happens on the disk, after the writer is done."""
    entry = load(series(tmp_path / "ct")).chosen
    assert entry is not None and entry.geometry is not None
    study = finished(tmp_path / "results", entry.geometry.center_lps)

    def spoiled(made: pydicom.Dataset, path: Path) -> None:
        made.save_as(path, enforce_file_format=True)
        found = pydicom.dcmread(path)
        change(found)
        found.save_as(path)

    monkeypatch.setattr(objects, "save", spoiled)
    with pytest.raises(InputError, match="object_check_failed") as raised:
        make_objects(study, entry, tmp_path / "out", kinds=(kind,), made_at=NOW)
    assert list((tmp_path / "out").iterdir()) == []
    assert all(word not in str(raised.value) for word in ("Doe", "ID-1", "ID-2", "1.2.3.4"))


def test_an_untouched_file_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = load(series(tmp_path / "ct")).chosen
    assert entry is not None and entry.geometry is not None
    study = finished(tmp_path / "results", entry.geometry.center_lps)
    assert len(make_objects(study, entry, tmp_path / "out", kinds=("sr", "seg"), made_at=NOW)) == 3


REAL = {
    "chest_64x64_copdgene": 5,
    "liver_ct_with_dicom_seg": 5,
    "tilt_plus16_philips_phantom": 5,
    "tilt14_siemens_4slices": 3,  # names no frame of reference
    "abdomen_portal_venous_crlm1004": 5,
    "petct_abdomen_j2k": 5,  # JPEG 2000; its UIDs were emptied
    "enhanced_multiframe_ct": 3,  # a derived map: no volume to draw, but a header to refer to
}


@pytest.mark.data
@pytest.mark.parametrize("case", REAL)
def test_real_headers(tmp_path: Path, shared_data: Path, case: str) -> None:
    study = load(shared_data / "dicom" / case / "dicom").studies[0]
    entry = study.entries[0]
    center = np.zeros(3) if entry.geometry is None else entry.geometry.center_lps
    results = finished(tmp_path / "results", center)
    kinds = ("sr", "seg", "page", "pdf") if entry.verdict == "volume" else ("sr", "seg")
    headers = None
    if case == "petct_abdomen_j2k":
        with pytest.raises(InputError, match="source_incomplete"):
            make_objects(results, entry, tmp_path / "out", kinds=("sr",), made_at=NOW)
        paths = sorted((shared_data / "dicom" / case / "dicom").iterdir())
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
        for k, header in enumerate(headers):
            header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"2.25.7{k}"
            header.StudyInstanceUID, header.SeriesInstanceUID = "2.25.5", "2.25.6"
    made = make_objects(results, entry, tmp_path / "out", kinds=kinds, made_at=NOW, headers=headers)
    assert len(made) == REAL[case]
    for m in made:
        conforms(m.path)
