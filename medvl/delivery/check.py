"""Reading back what was written, by other code than wrote it, and comparing it with what was meant."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code as Concept

from medvl.delivery import codes
from medvl.delivery.identity import COPIED, REQUIRED
from medvl.delivery.segments import LEVELS, regions_with_heat
from medvl.delivery.stamp import Job
from medvl.errors import InputError

_PEAK_MM = 0.01
_GRID_MM = 0.01


def check(job: Job, kind: str, meant: Dataset, path: Path) -> None:
    """Compare a written file with its study.

    Args:
        job: the study.
        kind: of object.
        meant: the object as it was before it was written; of pages and PDFs, the pixels and bytes must be the same.
        path: the file.

    Raises:
        InputError: ``object_check_failed``, naming what differs and no value.
    """
    try:
        found = dcmread(path)
        _identity(job, found)
        _MORE[kind](job, meant, found)
    except (AttributeError, KeyError, IndexError, OSError, TypeError, ValueError) as error:
        raise _failed(kind, f"it cannot be read back ({type(error).__name__})") from error


def _failed(kind: str, why: str) -> InputError:
    return InputError(
        "object_check_failed", f"the {kind} object differs from the results: {why}; it was not kept and must not be sent"
    )


def _identity(job: Job, found: Dataset) -> None:
    """Patient and study byte for byte, or letter for letter where the character set had to change; a series of its own."""
    source = job.source
    same_set = _terms(found) == source.identity.charset
    for keyword in COPIED:
        element = found.get_item(keyword)
        raw = source.identity.raw.get(keyword)
        if element is None:
            if raw is not None or keyword in REQUIRED:
                raise _failed(str(found.Modality), f"{keyword} is missing")
            continue
        value = bytes(element.value or b"").rstrip(b" \0")
        wanted = (raw or b"").rstrip(b" \0")
        if not same_set:
            wanted = source.identity.text(keyword).encode("utf-8").rstrip(b" \0")
        if value != wanted:
            raise _failed(str(found.Modality), f"{keyword} is another")
    if found.StudyInstanceUID != source.study_uid or found.SeriesInstanceUID == source.series_uid:
        raise _failed(str(found.Modality), "it is not a new series of the source's study")


def _terms(found: Dataset) -> tuple[str, ...]:
    value = found.get("SpecificCharacterSet") or []
    return (value,) if isinstance(value, str) else tuple(str(term) for term in value)


def _sr(job: Job, meant: Dataset, found: Dataset) -> None:
    report = hd.sr.Comprehensive3DSR.from_dataset(found)
    if (found.VerificationFlag, found.PreliminaryFlag) != ("UNVERIFIED", "PRELIMINARY"):
        raise _failed("sr", "it is not marked as unverified and preliminary")
    groups = _groups(report)
    answers = {answer.name: answer for answer in job.told.answers}
    told = {name for name in groups if name not in ("risk", "nothing asked")}
    if told != set(answers) or ("risk" in groups) != (job.told.risk is not None):
        raise _failed("sr", f"{len(told)} answers instead of {len(answers)}")
    for name, answer in answers.items():
        items = groups[name]
        verdict = _coded(items, codes.PRESENCE)
        if verdict != [codes.VERDICTS[answer.verdict].value]:
            raise _failed("sr", "a verdict is another")
        score = [float(item.MeasuredValueSequence[0].NumericValue) for item in items if _named(item, codes.CERTAINTY)]
        wanted = [] if answer.score is None else [100 * answer.score]
        if len(score) != len(wanted) or not np.allclose(score, wanted, atol=0.006):
            raise _failed("sr", "a certainty is another")
        points = [np.array(item.GraphicData) for item in items if item.ValueType == "SCOORD3D"]
        has_point = answer.peak_lps is not None and job.source.frame_of_reference is not None
        if len(points) != has_point or any(np.abs(p - np.array(answer.peak_lps)).max() > _PEAK_MM for p in points):
            raise _failed("sr", "a peak lies elsewhere")
    referred = {uid for _, _, uid, _ in report.get_evidence()}
    if not {image.SOPInstanceUID for image in job.source.images} <= referred:
        raise _failed("sr", "it does not refer to all images")


def _groups(report: hd.sr.Comprehensive3DSR) -> Mapping[str, list[Dataset]]:
    """Content items of each measurement group by its tracking identifier."""
    found: dict[str, list[Dataset]] = {}
    for container in report.ContentSequence:
        if container.ConceptNameCodeSequence[0].CodeValue == "126010":
            for group in container.ContentSequence:
                items = list(group.ContentSequence)
                name = next(item.TextValue for item in items if item.ConceptNameCodeSequence[0].CodeValue == "112039")
                found[str(name)] = items
    return found


def _named(item: Dataset, name: Concept) -> bool:
    code = item.ConceptNameCodeSequence[0]
    return (code.get("CodeValue"), code.CodingSchemeDesignator) == (name.value, name.scheme_designator)


def _coded(items: list[Dataset], name: Concept) -> list[str]:
    return [str(item.ConceptCodeSequence[0].CodeValue) for item in items if item.ValueType == "CODE" and _named(item, name)]


def _seg(job: Job, meant: Dataset, found: Dataset) -> None:
    """Every voxel within half a level of the heat map, at its place in the patient."""
    segments = hd.seg.Segmentation.from_dataset(found)
    answers = regions_with_heat(job)[int(found.InstanceNumber) - 1][1]
    volume = segments.get_volume(combine_segments=False, rescale_fractional=True)
    if found.FrameOfReferenceUID != job.source.frame_of_reference:
        raise _failed("seg", "it lies in another frame of reference")
    if [s.TrackingID for s in found.SegmentSequence] != [a.name for a in answers]:
        raise _failed("seg", "its segments are others")
    for k, answer in enumerate(answers):
        heat, grid = answer.heat, answer.grid
        if heat is None or grid is None or volume.array.shape[:3] != heat.shape:
            raise _failed("seg", "its grid is another")
        if volume.affine[:3, 0] @ grid.affine_lps[:3, 0] < 0:
            volume = volume.flip_spatial(0)  # frames may be read from either end
        if np.abs(volume.affine - grid.affine_lps).max() > _GRID_MM:
            raise _failed("seg", "it lies elsewhere")
        if np.abs(volume.array[..., k] - heat).max() > 0.5001 / LEVELS:
            raise _failed("seg", "a heat map is another")


def _page(job: Job, meant: Dataset, found: Dataset) -> None:
    if found.pixel_array.tobytes() != meant.PixelData[: found.Rows * found.Columns * 3] or found.BurnedInAnnotation != "NO":
        raise _failed("page", "its pixels are others")


def _pdf(job: Job, meant: Dataset, found: Dataset) -> None:
    content = found.EncapsulatedDocument[: found.EncapsulatedDocumentLength]
    wanted = meant.EncapsulatedDocument[: meant.EncapsulatedDocumentLength]
    if hashlib.sha256(content).digest() != hashlib.sha256(wanted).digest() or not io.BytesIO(content).read(5) == b"%PDF-":
        raise _failed("pdf", "its document is another")


_MORE: Mapping[str, Callable[[Job, Dataset, Dataset], None]] = {"sr": _sr, "seg": _seg, "page": _page, "pdf": _pdf}
