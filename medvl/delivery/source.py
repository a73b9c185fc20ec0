"""The series that answers are about: whose it is, byte for byte, and what its images are called."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from medvl.delivery.identity import COPIED, SEQUENCES, Identity, identity_of
from medvl.dicom.header import DEFLATED
from medvl.dicom.series import Series
from medvl.dicom.source import Opener
from medvl.errors import InputError
from medvl.imaging.load import Entry

_BROKEN = (
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
)
_IMAGE = (
    "Modality",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "ImageType",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
    "DimensionOrganizationType",
)
_IMAGE_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT",
}
_IDENTITY = frozenset(tag for name in (*COPIED, *SEQUENCES) if (tag := tag_for_keyword(name)) is not None)


@dataclass(frozen=True, eq=False)
class Source:
    """One CT series, by its headers.

    Args:
        images: a header for each file, in order along the stack, with its own UIDs and place, and no patient: what the new
            objects refer to.
        identity: patient and study, as they are to be copied.
    """

    images: tuple[Dataset, ...] = field(repr=False)
    identity: Identity = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    frame_of_reference: str | None = field(repr=False)


def read_source(entry: Entry, headers: Sequence[Dataset] | None = None) -> Source:
    """The series behind an entry.

    Args:
        entry: the volume that the answers are about.
        headers: use these instead of the files' own, such as de-identified ones.

    Raises:
        InputError: ``no_dicom_source`` for NIfTI, ``source_incomplete`` without the UIDs that an object must refer to,
            ``mixed_identity`` when one series names several patients, ``unreadable_file`` or ``malformed_header``.
    """
    if entry.series is None:
        raise InputError(
            "no_dicom_source", "the scan is no DICOM series, so no DICOM objects can refer to it; use the JSON and the table"
        )
    with quiet():
        try:
            found = list(headers) if headers is not None else headers_of(entry.series)
            identity = identity_of(
                _raw_identity(found[0]), _declared(found[0])
            )  # first: a header that is read is a header decoded
            images = _images(found)
            _one_patient(found)
        except _BROKEN as error:
            message = f"a header of the series cannot be followed ({type(error).__name__}); export the series again"
            raise InputError("malformed_header", message) from error
    frames = {str(image.get("FrameOfReferenceUID", "")) for image in images}
    frame = frames.pop() if len(frames) == 1 else ""
    return Source(tuple(images), identity, images[0].StudyInstanceUID, images[0].SeriesInstanceUID, frame or None)


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's and highdicom's remarks on values that break a rule: they quote the values, as warnings and in logs."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def headers_of(series: Series) -> list[Dataset]:
    """The header of each file of the series, in order; pixels are not read."""
    found: dict[Any, int] = {}
    for frame in series.frames:
        end = frame.item.size if frame.encoding.transfer_syntax == DEFLATED else frame.chunks[0][0]
        found[frame.item] = min(end, found.get(frame.item, end))
    with Opener() as opener:
        return [
            dcmread(io.BytesIO(opener.read(item, 0, end)), stop_before_pixels=True, force=True) for item, end in found.items()
        ]


def _images(headers: Sequence[Dataset]) -> list[Dataset]:
    """What the objects need to know of each image, once for each UID."""
    images: dict[str, Dataset] = {}
    for header in headers:
        uids = {
            name: str(header.get(name) or "")
            for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
        }
        if not all(_is_uid(uid) for uid in uids.values()) or uids["SOPClassUID"] not in _IMAGE_CLASSES:
            raise InputError(
                "source_incomplete",
                "an image of the series lacks the UIDs by which others refer to it, or is no CT image; export the series again",
            )
        images.setdefault(uids["SOPInstanceUID"], _image(header, uids))
    if len({(image.StudyInstanceUID, image.SeriesInstanceUID) for image in images.values()}) > 1:
        raise InputError("mixed_identity", "the headers belong to several series; deliver one series at a time")
    return list(images.values())


def _image(header: Dataset, uids: Mapping[str, str]) -> Dataset:
    """A header with the image's place and nothing of the patient."""
    image = Dataset()
    for name, uid in uids.items():
        setattr(image, name, uid)
    for name in _IMAGE:
        if name in header:
            image[name] = header[name]
    if _is_uid(frame := str(header.get("FrameOfReferenceUID") or "")):
        image.FrameOfReferenceUID = frame
        image.PositionReferenceIndicator = ""
    for name in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "ReferringPhysicianName",
    ):
        setattr(image, name, "")
    image.StudyDate = image.StudyTime = None
    image.Modality = "CT"
    return image


def _is_uid(text: str) -> bool:
    return 0 < len(text) <= 64 and all(part.isascii() and part.isdigit() for part in text.split("."))


def _raw_identity(header: Dataset) -> dict[int, RawDataElement | Any]:
    """Patient and study elements as bytes, whether the header was read or made."""
    part = Dataset()
    if _declared(header):
        part.SpecificCharacterSet = _declared(header)
    for tag in _IDENTITY:
        if tag in header:
            part[tag] = header.get_item(tag)
    if any(not isinstance(part.get_item(tag), RawDataElement) for tag in part.keys() if tag != 0x00080005):  # noqa: SIM118
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_dataset(buffer, part)
        part = dcmread(io.BytesIO(buffer.getvalue()), force=True)
    return {int(tag): part.get_item(tag) for tag in part.keys()}  # noqa: SIM118


def _declared(header: Dataset) -> list[str]:
    """The terms of the header's Specific Character Set."""
    value = header.get("SpecificCharacterSet") or []
    return [value] if isinstance(value, str) else [str(term) for term in value]


def _one_patient(headers: Sequence[Dataset]) -> None:
    """Refuse a series whose files name more than one patient."""
    named = {(str(header.get("PatientID") or ""), str(header.get("PatientName") or "")) for header in headers}
    if len(named) > 1:
        raise InputError(
            "mixed_identity", f"the files of one series name {len(named)} patients; have the archive corrected first"
        )
