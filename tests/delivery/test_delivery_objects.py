"""Objects of a finished study: valid, the same each time, and of the right patient."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from finished import NAMES, conforms, edited, finished, heat_map, series

from medvl.delivery.objects import KINDS, Made, make_objects
from medvl.errors import ConfigError, InputError
from medvl.imaging.load import Entry, load
from medvl.text.prompts import FindingList, load_findings

NOW = datetime(2026, 3, 4, 5, 6, 7)
LIST = Path(__file__).parents[2] / "configs" / "findings" / "phantom.yaml"


@pytest.fixture(scope="module")
def findings() -> FindingList:
    return load_findings(LIST)


def entry_of(folder: Path) -> Entry:
    entry = load(folder).chosen
    assert entry is not None
    return entry


def center(entry: Entry) -> np.ndarray:
    assert entry.geometry is not None
    return entry.geometry.center_lps


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, findings: FindingList) -> dict[str, Made]:
    """Objects of one study, by file name."""
    root = tmp_path_factory.mktemp("made")
    entry = entry_of(series(root / "ct"))
    study = finished(root / "results", center(entry), tilt_deg=20)
    found = make_objects(study, entry, root / "out", made_at=NOW, findings=findings)
    return {m.path.name: m for m in found}


def read(made: Made) -> pydicom.FileDataset:
    return pydicom.dcmread(made.path)


def test_all_kinds_are_there_and_valid(made: dict[str, Made]) -> None:
    assert sorted(made) == ["page.dcm", "report.dcm", "seg-2.dcm", "seg.dcm", "sr.dcm"]
    assert [m.kind for m in made.values()] == ["sr", "seg", "seg", "page", "pdf"]
    for m in made.values():
        conforms(m.path)


def test_each_is_a_new_series_of_the_same_study(made: dict[str, Made]) -> None:
    objects = {name: read(m) for name, m in made.items()}
    assert {ds.StudyInstanceUID for ds in objects.values()} == {"1.2.3.4.0"}
    assert len({ds.SeriesInstanceUID for ds in objects.values()} - {"1.2.3.4.1"}) == len(KINDS)
    assert len({ds.SOPInstanceUID for ds in objects.values()}) == 5
    for ds in objects.values():
        assert (ds.PatientName, ds.PatientID, ds.PatientSex, ds.AccessionNumber) == ("Doe^Jane", "ID-1", "F", "A1")
        assert (ds.SeriesDate, ds.ContentDate, ds.ContentTime, ds.StudyDate) == ("20260304", "20260304", "050607", "20260101")
        assert "research use only" in ds.SeriesDescription
        assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in (ds.SeriesInstanceUID, ds.SOPInstanceUID))


def walked(ds: pydicom.Dataset) -> list[pydicom.Dataset]:
    """All content items below a document."""
    return [item for child in ds.get("ContentSequence", []) for item in (child, *walked(child))]


def test_structured_report_says_every_answer_in_codes(made: dict[str, Made]) -> None:
    report = hd.sr.srread(made["sr.dcm"].path)
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    points = report.content.get_planar_roi_measurement_groups()
    others = report.content.get_image_measurement_groups()
    assert (len(points), len(others)) == (3, 3)
    first = points[0]
    assert first.finding_type == hd.sr.CodedConcept("309088003", "SCT", "Renal mass")
    assert first.finding_sites[0].value == hd.sr.CodedConcept("64033007", "SCT", "Kidney")
    assert first.finding_sites[0].laterality == hd.sr.CodedConcept("7771000", "SCT", "Left")
    numbers = {m.name.meaning: m.value for m in first.get_measurements()}
    assert numbers["Certainty of Finding"] == 90.12
    assert (numbers["Threshold Value"], numbers["Lower end of the 95% interval of the certainty"]) == (44.0, 84.0)
    presence = hd.sr.CodedConcept("121052", "DCM", "Presence of property")
    verdicts = [group.get_qualitative_evaluations(presence)[0].value.value for group in [*points, *others[:2]]]
    assert verdicts == ["52101004", "121059", "52101004", "272519000", "121059"]
    assert points[1].finding_type.scheme_designator == "99MEDVL"
    assert others[1].finding_type == hd.sr.CodedConcept("60046008", "SCT", "Pleural effusion")
    assert others[1].finding_sites[0].laterality == hd.sr.CodedConcept("7771000", "SCT", "Left")
    survival = {m.name.value: m.value for m in others[2].get_measurements()}
    assert (survival["survival-365d"], survival["log-hazard"], survival["121415"]) == (89.9, -0.3226, 38.0)
    text = "\n".join(item.TextValue for item in walked(report) if item.get("ValueType") == "TEXT")
    assert "RESEARCH USE ONLY" in text
    assert "ab" * 32 in text
    assert "score 0.44 lies between 0.41 and 0.48" in text
    referred = {uid for _, _, uid, _ in report.get_evidence()}
    assert {f"1.2.3.4.2.{k}" for k in range(1, 6)} | {
        made["seg.dcm"].sop_instance_uid,
        made["seg-2.dcm"].sop_instance_uid,
    } == referred


def test_peaks_lie_where_the_record_says(made: dict[str, Made]) -> None:
    report = hd.sr.srread(made["sr.dcm"].path)
    segments = hd.seg.segread(made["seg.dcm"].path)
    point = report.content.get_planar_roi_measurement_groups()[0].roi
    assert point.frame_of_reference_uid == segments.FrameOfReferenceUID == "1.2.3.9"
    frame = segments.get_volume(combine_segments=False, rescale_fractional=True)
    hottest = np.unravel_index(int(np.argmax(frame.array[..., 0])), frame.array.shape[:3])
    assert np.abs(frame.map_indices_to_reference(np.array([hottest]))[0] - point.value[0]).max() < 0.02
    group = report.content.get_planar_roi_measurement_groups()[0]
    assert group.tracking_uid == segments.SegmentSequence[0].TrackingUID


def test_segments_hold_the_heat_maps_to_half_a_level(made: dict[str, Made]) -> None:
    """Frame by frame from the header, without the library's own volume."""
    ds = read(made["seg.dcm"])
    frames = ds.pixel_array
    shared = ds.SharedFunctionalGroupsSequence[0]
    rows, columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    assert (rows, columns, float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices)) == pytest.approx(
        (2.5, 2.0, 3.0), abs=1e-6
    )
    heats = {1: heat_map(1), 2: heat_map(2)}
    seen = 0
    places = [tuple(map(float, f.PlanePositionSequence[0].ImagePositionPatient)) for f in ds.PerFrameFunctionalGroupsSequence]
    order = sorted({p[2] for p in places})
    for pixels, item, place in zip(frames, ds.PerFrameFunctionalGroupsSequence, places, strict=True):
        segment = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        meant = heats[segment][order.index(place[2])]
        assert np.abs(pixels / 255.0 - meant).max() <= 0.5 / 255 + 1e-6
        seen += 1
    assert seen == 14
    assert (ds.SegmentationFractionalType, ds.MaximumFractionalValue) == ("PROBABILITY", 255)


def test_page_and_report_burn_in_no_identity(made: dict[str, Made]) -> None:
    page, report = read(made["page.dcm"]), read(made["report.dcm"])
    assert (page.BurnedInAnnotation, report.BurnedInAnnotation) == ("NO", "NO")
    assert page.pixel_array.shape == (1200, 1600, 3)
    assert page.pixel_array.std() > 20
    content = report.EncapsulatedDocument[: report.EncapsulatedDocumentLength]
    assert content.startswith(b"%PDF-")
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") in (2, 3)
    for word in (b"Doe", b"ID-1", b"1.2.3.4"):
        assert word not in content


def test_equal_input_gives_equal_bytes(tmp_path: Path, made: dict[str, Made], findings: FindingList) -> None:
    """In another results folder too, whose case ids and timings are others."""
    entry = entry_of(series(tmp_path / "ct"))
    study = finished(tmp_path / "results", center(entry), tilt_deg=20)
    edited(study, case_id="ffffffffffff", timings_s={"encode": 9.9}, series={"key": "ffff00000000"})
    again = make_objects(study, entry, tmp_path / "out", made_at=NOW, findings=findings)
    assert {m.path.name: m.sha256 for m in again} == {name: m.sha256 for name, m in made.items()}


def test_other_answers_get_other_uids(tmp_path: Path, made: dict[str, Made]) -> None:
    entry = entry_of(series(tmp_path / "ct"))
    study = finished(tmp_path / "results", center(entry), tilt_deg=20)
    record = json.loads((study / "findings.json").read_text())
    record["findings"][0]["score"] = 0.9013
    edited(study, findings=record["findings"])
    again = make_objects(study, entry, tmp_path / "out", kinds=("sr", "seg"), made_at=NOW)
    old = {m.sop_instance_uid for m in made.values()}
    assert not old & {m.sop_instance_uid for m in again}
    other = entry_of(series(tmp_path / "ct2", uid="1.2.3.5"))
    moved = make_objects(study, other, tmp_path / "out2", kinds=("sr",), made_at=NOW)
    assert moved[0].sop_instance_uid not in old | {m.sop_instance_uid for m in again}


def test_without_heat_maps_or_frame_of_reference_there_is_no_segmentation(tmp_path: Path) -> None:
    entry = entry_of(series(tmp_path / "ct"))
    study = finished(tmp_path / "results", center(entry), heat=False)
    cold = make_objects(study, entry, tmp_path / "out", made_at=NOW)
    assert [m.kind for m in cold] == ["sr", "page", "pdf"]
    bare = entry_of(series(tmp_path / "ct2", frame=""))
    made = make_objects(finished(tmp_path / "hot", center(bare)), bare, tmp_path / "out2", kinds=("sr", "seg"), made_at=NOW)
    assert [m.kind for m in made] == ["sr"]
    assert hd.sr.srread(made[0].path).content.get_planar_roi_measurement_groups() == []
    for m in [*cold, *made]:
        conforms(m.path)


def test_headers_take_the_place_of_the_files_own(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    entry = entry_of(folder)
    headers = []
    for path in sorted(folder.iterdir()):
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        ds.PatientName, ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "Anon", "P1", "2.25.1", "2.25.2"
        ds.SOPInstanceUID = f"2.25.9{path.name[1:]}"
        ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "basic profile"
        headers.append(ds)
    study = finished(tmp_path / "results", center(entry))
    for m in make_objects(study, entry, tmp_path / "out", made_at=NOW, headers=headers):
        conforms(m.path)
        ds = read(m)
        assert (ds.PatientName, ds.PatientID, ds.StudyInstanceUID, ds.PatientIdentityRemoved) == ("Anon", "P1", "2.25.1", "YES")
        raw = m.path.read_bytes()
        assert all(word not in raw for word in (b"Doe", b"ID-1", b"1.2.3.4"))


def test_times_are_told_in_the_sources_zone(tmp_path: Path) -> None:
    entry = entry_of(series(tmp_path / "ct", TimezoneOffsetFromUTC=b"+0900"))
    study = finished(tmp_path / "results", center(entry))
    moment = datetime(2026, 3, 4, 20, 0, 0, tzinfo=timezone(timedelta(0)))
    ds = read(make_objects(study, entry, tmp_path / "out", kinds=("sr",), made_at=moment)[0])
    assert (ds.ContentDate, ds.ContentTime, ds.TimezoneOffsetFromUTC) == ("20260305", "050000", "+0900")


def test_what_cannot_be_delivered_is_refused(tmp_path: Path) -> None:
    entry = entry_of(series(tmp_path / "ct"))
    study = finished(tmp_path / "results", center(entry))
    with pytest.raises(ConfigError, match="did you mean seg"):
        make_objects(study, entry, tmp_path / "out", kinds=("segg",), made_at=NOW)
    nifti = Entry("k", "NIfTI", 1, "volume", (), None, None, path=tmp_path / "a.nii")
    with pytest.raises(InputError, match="no_dicom_source"):
        make_objects(study, nifti, tmp_path / "out", made_at=NOW)
    edited(study, status="skipped")
    with pytest.raises(InputError, match="not_done"):
        make_objects(study, entry, tmp_path / "out", made_at=NOW)
    (study / "findings.json").write_text("{")
    with pytest.raises(InputError, match="results_unreadable"):
        make_objects(study, entry, tmp_path / "out", made_at=NOW)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../../outside.nii.gz", "/etc/hostname"])
def test_heat_maps_outside_the_study_are_not_read(tmp_path: Path, name: str) -> None:
    entry = entry_of(series(tmp_path / "ct"))
    study = finished(tmp_path / "results", center(entry))
    record = json.loads((study / "findings.json").read_text())
    record["findings"][0]["heatmap"] = name
    edited(study, findings=record["findings"])
    with pytest.raises(InputError, match="results_unreadable"):
        make_objects(study, entry, tmp_path / "out", kinds=("seg",), made_at=NOW)


def test_two_patients_in_one_series_are_refused(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    path = folder / "I2"
    ds = pydicom.dcmread(path)
    ds.PatientID = "ID-2"
    ds.save_as(path)
    entry = entry_of(folder)
    with pytest.raises(InputError, match="mixed_identity") as raised:
        make_objects(finished(tmp_path / "r", center(entry)), entry, tmp_path / "out", made_at=NOW)
    assert all(value.decode() not in str(raised.value) for value in NAMES.values() if len(value) > 2)
