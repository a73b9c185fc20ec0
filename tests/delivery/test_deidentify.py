"""De-identified headers: what goes, what stays, and that ids, UIDs and dates keep their relations under one key."""

from __future__ import annotations

import copy
import datetime
import hashlib
import hmac
import io
import uuid
from typing import Any

import numpy as np
import pydicom
import pytest
from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom import DataElement, Dataset, dcmread, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless

from medvl.delivery.burned_in import burned_in, face_visible
from medvl.delivery.deidentify import Deidentifier, Deidentify
from medvl.delivery.deidentify_rules import action, cleaned
from medvl.errors import ConfigError

KEY = bytes(range(32))
SECRET = "Zwetschgenknoedel"
TEXT_VRS = {"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}


def study(**changes: Any) -> Dataset:
    """A small CT image with identity, dates and references."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, "1.2.3.4.5"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.9"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"{SECRET}^Jürgen", "MRN-77001", "19310203"
    ds.PatientSex, ds.PatientAge, ds.PatientWeight = "M", "093Y", "81.5"
    ds.StudyDate, ds.SeriesDate, ds.AcquisitionDateTime, ds.StudyTime = "20240229", "20240301", "20240229101112.5+0100", "101112"
    ds.Modality, ds.ImageType, ds.Manufacturer, ds.ConvolutionKernel = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "SIEMENS", "B30f"
    ds.SeriesDescription, ds.StationName, ds.DeviceSerialNumber = f"Abdomen {SECRET} venous 2.0mm", "CT-EAST-2", "SN998"
    ds.AccessionNumber, ds.InstitutionName, ds.BodyPartExamined = "ACC-5512", f"{SECRET} Hospital", "ABDOMEN"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 4, 4, 16, 16, 15
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.add_new(0x7FE00010, "OW", bytes(range(32)))
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, "1.2.3.4.5"
    item.PatientName, item.StudyDate = SECRET, "20240229"
    ds.ReferencedImageSequence = [item]
    ds.private_block(0x0009, SECRET, create=True).add_new(1, "LO", SECRET)
    for name, value in changes.items():
        setattr(ds, name, value)
    return ds


def raw(ds: Dataset) -> bytes:
    """The data set as bytes."""
    out = io.BytesIO()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(out, ds, implicit_vr=False, little_endian=True)
    return out.getvalue()


def clean(ds: Dataset, **options: Any) -> Dataset:
    return Deidentifier(KEY, Deidentify(**options)).header(ds)


def test_the_input_is_not_touched() -> None:
    ds = study()
    before = copy.deepcopy(ds)
    clean(ds)
    assert ds == before


def test_identity_goes_and_the_image_stays() -> None:
    out = clean(study())
    data = raw(out)
    for secret in (SECRET, "MRN-77001", "1931", "ACC-5512", "CT-EAST", "SN998", "2024", "93Y", "81.5", "Jürgen"):
        for encoding in ("latin-1", "utf-8", "utf-16-le", "utf-16-be"):
            assert secret.encode(encoding) not in data.replace(str(out.StudyInstanceUID).encode(), b""), secret
    assert out.PixelData == bytes(range(32))
    assert (out.Modality, out.Manufacturer, out.ConvolutionKernel, out.Rows) == ("CT", "SIEMENS", "B30f", 4)
    assert "SpecificCharacterSet" not in out and "SeriesDescription" not in out
    assert out.PatientIdentityRemoved == "YES" and out.LongitudinalTemporalInformationModified == "REMOVED"
    assert [(i.CodeValue, i.CodingSchemeDesignator) for i in out.DeidentificationMethodCodeSequence] == [("113100", "DCM")]
    assert not out.StudyDate and not out.PatientBirthDate and "SeriesDate" not in out


def planted(tag: int, vr: str) -> Any:
    """A value to look for; None for representations that hold none."""
    if vr in TEXT_VRS:
        return f"{SECRET[:8]}{tag:08x}"
    fixed = {"DA": "19770707", "DT": "19770707070707", "AS": "077Y", "UI": f"1.99.{tag}", "OB": SECRET.encode() + b" "}
    return fixed.get(vr)


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("options", [{}, {"dates": "shift", "clean_descriptors": True}])
def test_every_attribute_of_the_tables_goes_at_every_depth(depth: int, options: dict[str, Any]) -> None:
    tables = dicom_anonymization_database_selector("dicomfields_2026c")
    ds, inner, count = study(), Dataset(), 0
    for group, number, *mask in tables["ALL_TAGS"]:
        tag = group << 16 | number
        if mask or group in (0, 2):
            continue
        vr = dictionary_VR(tag) if known(tag) else "LO"
        value = planted(tag, vr)
        if value is not None:
            inner.add(DataElement(tag, vr, value))
            count += 1
    assert count > 450
    inner.add_new(0x60003000, "OW", SECRET.encode() + b" ")
    inner.add_new(0x50003000, "OW", SECRET.encode() + b" ")
    inner.add_new(0x00091010, "LO", SECRET)
    if depth == 0:
        ds.update(inner)
    else:
        for _ in range(depth - 1):
            outer = Dataset()
            outer.SourceImageSequence = [inner]
            inner = outer
        ds.ReferencedImageSequence = [inner]
    data = raw(clean(ds, **options))
    assert SECRET[:8].encode() not in data
    assert b"19770707" not in data and b"1.99." not in data and b"077Y" not in data


def known(tag: int) -> bool:
    try:
        return bool(dictionary_VR(tag))
    except KeyError:
        return False


def test_what_no_table_names_goes_too_unless_it_is_technical() -> None:
    ds = study()
    ds.add_new(0x0028FFF0, "LO", SECRET)  # no such attribute
    ds.add_new(0x00081140, "LO", SECRET)  # a sequence by the standard, a text by the file
    ds.add(DataElement(0x00180060, "LO", SECRET[:12], validation_mode=0))  # a number by the standard
    ds.add_new(0x00180050, "DS", "1.25")
    ds.add(DataElement(0x00080068, "CS", SECRET, validation_mode=0))  # no honest code string
    ds.SoftwareVersions = f"VA48 for {SECRET}"  # technical, but holds the patient's own name
    out = clean(ds)
    assert SECRET[:12].encode() not in raw(out) and SECRET[:12].upper().encode() not in raw(out)
    assert out.SliceThickness == 1.25 and not out.SoftwareVersions


def test_uids_are_keyed_and_consistent() -> None:
    one, other = clean(study()), clean(study(SOPInstanceUID="1.2.3.4.6", PatientID="OTHER"))
    seed = hmac.new(KEY, b"medvl deidentify uid\x001.2.3", hashlib.sha256).digest()[:16]
    assert one.StudyInstanceUID == f"2.25.{uuid.UUID(bytes=seed, version=5).int}" == other.StudyInstanceUID
    assert one.SOPInstanceUID == one.ReferencedImageSequence[0].ReferencedSOPInstanceUID != other.SOPInstanceUID
    assert one.ReferencedImageSequence[0].ReferencedSOPClassUID == CTImageStorage == one.SOPClassUID
    assert Deidentifier(b"another key of 32 bytes, as it is").header(study()).StudyInstanceUID != one.StudyInstanceUID
    assert all(len(uid) <= 64 and pydicom.uid.UID(uid).is_valid for uid in (one.StudyInstanceUID, one.SOPInstanceUID))
    assert clean(study(), retain_uids=True).StudyInstanceUID == "1.2.3"
    hostile = study()
    hostile.add(DataElement(0x0020000D, "UI", "1.2.x/../y", validation_mode=0))
    assert clean(hostile, retain_uids=True).StudyInstanceUID.startswith("2.25.")


def test_patients_stay_together_and_apart() -> None:
    ids = [clean(study(**change)).PatientID for change in ({}, {"PatientName": "Other"}, {"PatientID": "MRN-77002"})]
    assert ids[0] == ids[1] != ids[2] and len(ids[0]) == 16
    nameless = [clean(study(PatientID="", StudyInstanceUID=uid)).PatientID for uid in ("1.2.3", "1.2.4")]
    assert len({*ids, *nameless}) == 4


def test_dates_shift_by_whole_days_of_the_patient() -> None:
    first, second = study(), study(StudyDate="20250301", StudyInstanceUID="1.2.4")
    days = Deidentifier(KEY).shift_days(first)
    out = [clean(ds, dates="shift") for ds in (first, second)]
    told = [datetime.date(int(ds.StudyDate[:4]), int(ds.StudyDate[4:6]), int(ds.StudyDate[6:])) for ds in out]
    assert told[0] == datetime.date(2024, 2, 29) - datetime.timedelta(days=days)
    assert told[1] - told[0] == datetime.date(2025, 3, 1) - datetime.date(2024, 2, 29)
    assert str(out[0].AcquisitionDateTime) == f"{told[0]:%Y%m%d}101112.5+0100"
    assert out[0].StudyTime == "101112" and not out[0].PatientBirthDate
    assert str(out[0].SeriesDate) == f"{told[0] + datetime.timedelta(days=1):%Y%m%d}"
    assert 1 <= days <= 3650 and out[0].LongitudinalTemporalInformationModified == "MODIFIED"
    assert days != Deidentifier(KEY).shift_days(study(PatientID="B"))
    kept = clean(study(), dates="keep")
    assert (kept.StudyDate, kept.LongitudinalTemporalInformationModified) == ("20240229", "UNMODIFIED")
    assert not kept.PatientBirthDate


@pytest.mark.parametrize("bad", ["20241399", "hello", "2024", "00010101"])
def test_a_date_that_cannot_move_goes(bad: str) -> None:
    ds = study()
    ds.add(DataElement(0x00080020, "DA", bad, validation_mode=0))
    assert not clean(ds, dates="shift").StudyDate


def test_options_keep_what_they_name() -> None:
    out = clean(study(), retain_patient_characteristics=True, retain_device=True, clean_descriptors=True)
    assert (out.PatientSex, out.PatientAge, out.PatientWeight) == ("M", "090Y", 81.5)
    assert (out.StationName, out.DeviceSerialNumber) == ("CT-EAST-2", "SN998")
    assert out.SeriesDescription == "Abdomen venous 2.0mm"
    assert {i.CodeValue for i in out.DeidentificationMethodCodeSequence} == {"113100", "113105", "113108", "113109"}
    assert "PatientAge" not in clean(study())


def test_descriptions_keep_common_words_only() -> None:
    text = "Nierentumor Meier, CT ABDOMEN pv 1,5mm 4711 12.03.1950 (Hip)"
    assert cleaned(text, frozenset({"hip"})) == "CT ABDOMEN pv 1,5mm"


@pytest.mark.parametrize("charset", [None, "", "ISO 2022 IR 87", "GB18030", ["", "ISO 2022 IR 149"], "no such set", "utf_7"])
def test_charsets_end_as_ascii(charset: Any) -> None:
    pixels = study().PixelData
    data = raw(study(PatientName="X")).replace(b"ISO_IR 192", b"ISO_IR 192")
    ds = dcmread(io.BytesIO(data), force=True)
    ds.add(DataElement(0x00080005, "CS", charset, validation_mode=0))
    ds.add(DataElement(0x00100010, "PN", b"\x1b$B;3ED\xff\xfe", validation_mode=0))
    ds.add(DataElement(0x00080070, "LO", "GE " + "京" * 3, validation_mode=0))
    out = clean(ds)
    written = raw(out).replace(pixels, b"")
    assert "SpecificCharacterSet" not in out and "京".encode() not in written and b"\x1b" not in written
    assert out.Manufacturer == "GE" and out.PatientIdentityRemoved == "YES"


def test_private_code_items_go() -> None:
    own, coded = Dataset(), Dataset()
    own.CodeValue, own.CodingSchemeDesignator, own.CodeMeaning = "1", "99MEIER", "local"
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = "71854001", "SCT", "Colon"
    out = clean(study(AnatomicRegionSequence=[own, coded]))
    assert [i.CodeValue for i in out.AnatomicRegionSequence] == ["71854001"]


def test_comments_of_compressed_streams_and_bytes_behind_pixels_go() -> None:
    assert clean(study(PixelData=bytes(range(32)) + SECRET.encode() + b" ")).PixelData == bytes(range(32))
    note = SECRET.encode()
    jpeg = b"\xff\xd8\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + b"\xff\xe1\x00\x06Exif\xff\xda\x00\x02body\xff\xd9"
    j2k = (
        b"\xff\x4f\xff\x51\x00\x04\x00\x00\xff\x64"
        + (len(note) + 4).to_bytes(2, "big")
        + b"\0\1"
        + note
        + b"\xff\x90\xff\xfebody"
    )
    for stream in (jpeg, j2k):
        ds = study(PixelData=encapsulate([stream]))
        ds["PixelData"].is_undefined_length = True
        blank = clean(ds).PixelData
        assert note not in blank and b"Exif" not in blank and b"body" in blank
        assert len(blank) in (len(ds.PixelData), len(ds.PixelData) + 8)


def test_a_compressed_image_decodes_as_before() -> None:
    ds = study(Rows=64, Columns=64, PixelData=np.arange(4096, dtype="<u2").tobytes())
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    out = clean(ds)
    out.file_meta = copy.deepcopy(ds.file_meta)
    assert np.array_equal(out.pixel_array, np.arange(4096).reshape(64, 64))


def test_short_keys_and_unknown_dates_are_refused() -> None:
    with pytest.raises(ConfigError, match="16 random bytes"):
        Deidentifier(b"short")
    with pytest.raises(ConfigError, match="remove, shift or keep"):
        Deidentify(dates="maybe")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"BurnedInAnnotation": "NO"}, None),
        ({"BurnedInAnnotation": "YES"}, "burned_in"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "burned_in_likely"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, "burned_in_likely"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, "burned_in_likely"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "burned_in_likely"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, None),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}, "burned_in_likely"),
        ({"SeriesDescription": "Dose Report"}, "burned_in_likely"),
        ({"ConversionType": "WSD"}, "burned_in_likely"),
        ({"Modality": "US"}, "burned_in_likely"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "burned_in_likely"),
    ],
)
def test_images_that_may_show_text(changes: dict[str, Any], code: str | None) -> None:
    reason = burned_in(study(**changes))
    assert (reason.code if reason else None) == code


def test_overlays_in_spare_bits_are_found() -> None:
    ds = study()
    ds.add_new(0x60000010, "US", 4)
    reason = burned_in(ds)
    assert reason is not None and reason.code == "embedded_overlay"
    ds.add_new(0x60003000, "OW", b"\0\0")
    assert burned_in(ds) is None and 0x60003000 not in clean(ds)


def test_faces_are_told_not_hidden() -> None:
    assert face_visible(study(BodyPartExamined="HEAD")) and face_visible(study(RecognizableVisualFeatures="YES"))
    assert not face_visible(study())


def test_the_tables_decide() -> None:
    tables = dicom_anonymization_database_selector("dicomfields_2026c")
    assert {action(g << 16 | e) for g, e, *mask in tables["X_TAGS"] if not mask} <= {"remove", "date"}
    assert {action(g << 16 | e) for g, e in tables["U_TAGS"] if g >= 8} == {"uid"}
