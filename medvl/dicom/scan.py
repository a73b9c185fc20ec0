"""What is in a folder, file or archive: series with a verdict each, from headers alone."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medvl.dicom import header as dcm
from medvl.dicom.frames import Frame, Triple, facts_of, frames_of
from medvl.dicom.grouping import close, places_of, planes_of, separate, without_repeats
from medvl.dicom.header import Header
from medvl.dicom.pixels import SYNTAX_NAMES
from medvl.dicom.rules import image_warnings, refusals
from medvl.dicom.series import Rejected, Scan, Series
from medvl.dicom.source import Item, Opener, list_items, named_items
from medvl.dicom.stack import SAME_PLACE_MM, assess
from medvl.dicom.tilt import upright
from medvl.errors import InputError
from medvl.records import Reason

_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_MEDIA_TAGS = (0x0020000E, 0x00080060, 0x00280010)


@dataclass(frozen=True)
class _Lost:
    """An image of a series whose pixels cannot be read."""

    uids: tuple[str, str]
    position: Triple | None
    orientation: tuple[float, ...] | None
    reason: Reason


def scan(source: Path, names: Sequence[str] | None = None) -> Scan:
    """Find the series of a folder (nested, mixed, any file names), a single file or a zip archive.

    Reads headers only; pixels are touched where two files claim the same place. Files that belong to no series are listed
    in `rejected`; nothing is dropped in silence. With `names`, only the items that are called so are looked at.

    Raises:
        InputError: ``not_found`` or ``unsafe_archive``.
    """
    rejected: list[Rejected] = []
    by_series: dict[tuple[str, str], list[Frame]] = defaultdict(list)
    bare: dict[tuple[str, str], list[tuple[Header, Reason]]] = defaultdict(list)
    lost: list[_Lost] = []
    with Opener() as opener:
        for item in list_items(source) if names is None else named_items(source, names):
            try:
                header = dcm.read_header(lambda start, length, item=item: opener.read(item, start, length), item.size)  # type: ignore[misc]
                _refuse_index(header)
            except InputError as error:
                rejected.append(Rejected(item.name, Reason(error.code, error.message)))
                continue
            uids = _uids(item, header)
            try:
                frames = frames_of(item, header, lambda start, length, item=item: opener.read(item, start, length))  # type: ignore[misc]
                by_series[uids].extend(frames)
            except InputError as error:
                reason = Reason(error.code, error.message)
                if error.code == "not_an_image":
                    bare[uids].append((header, reason))
                    continue
                rejected.append(Rejected(item.name, reason))
                orientation = dcm.numbers(header.values, 0x00200037)
                lost.append(_Lost(uids, _position(header), orientation, reason))
        found = [series for uids, frames in by_series.items() for series in _series_of(uids, frames, lost, opener)]
    found += [_bare_series(uids, entries) for uids, entries in bare.items()]
    return Scan(tuple(sorted(found, key=lambda series: (series.study, series.key))), tuple(rejected))


def _refuse_index(header: Header) -> None:
    if dcm.text(header.values, 0x00080016) == _DIRECTORY_CLASS:
        raise InputError("index_file", "a DICOMDIR lists other files and holds no image; the files themselves were read")
    if header.pixel_offset < 0 and not any(tag in header.values for tag in _MEDIA_TAGS):
        raise InputError("index_file", "a vendor's index file without image or series; it is left out")


def _uids(item: Item, header: Header) -> tuple[str, str]:
    """Study and series UID; files without one belong together when they share a folder."""
    study, series = dcm.text(header.values, 0x0020000D), dcm.text(header.values, 0x0020000E)
    folder = item.name.rpartition("/")[0]
    return study or f"no study UID in {folder}", series or f"no series UID in {folder}"


def _position(header: Header) -> Triple | None:
    found = dcm.numbers(header.values, 0x00200032)
    return (found[0], found[1], found[2]) if found and len(found) == 3 else None


def short_hash(*parts: str) -> str:
    """Ten hexadecimal digits that stand for the parts without showing them."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


def _bare_series(uids: tuple[str, str], entries: list[tuple[Header, Reason]]) -> Series:
    """A series of objects without pixels: reports, contours, plans."""
    modality = dcm.text(entries[0][0].values, 0x00080060)
    return Series(short_hash(uids[1], "objects"), short_hash(uids[0]), modality, len(entries), "refused", (entries[0][1],))


def _series_of(uids: tuple[str, str], frames: list[Frame], lost: Iterable[_Lost], opener: Opener) -> list[Series]:
    """The series that the images of one series UID make; more than one where they cannot lie on one grid."""
    parts = separate(frames, opener)
    missing = [entry for entry in lost if entry.uids == uids]
    result = []
    for k, (part, split_by) in enumerate(parts):
        key = short_hash(uids[1], *([f"part {k}"] if k else []))
        series = _one_series(key, short_hash(uids[0]), part, missing, opener)
        if split_by and len(parts) > 1:
            note = Reason("split_series", f"one of {len(parts)} stacks in a series, told apart by {split_by}")
            series = replace(series, reasons=(*series.reasons, note))
        result.append(series)
    return result


def _one_series(key: str, study: str, frames: list[Frame], missing: list[_Lost], opener: Opener) -> Series:
    n_files = len({frame.item for frame in frames})
    modality = dcm.text(frames[0].tags, 0x00080060)
    kept, n_dropped = without_repeats(frames, opener)
    planes = planes_of(kept)
    stack = assess(planes) if planes is not None else None
    order = stack.order if stack is not None else tuple(range(len(kept)))
    kept = [kept[k] for k in order]
    reasons = [*refusals(kept), *(stack.refused if stack is not None else ())]
    if stack is not None and not any(reason.code in ("localizer", "secondary_capture") for reason in reasons):
        reasons += _lost_reasons(kept, missing)
    reasons = _most_telling(reasons)
    verdict = "refused" if reasons else "volume"
    notes = [*(stack.warnings if stack is not None else ()), *image_warnings(kept)]
    if n_dropped:
        notes.append(
            Reason("duplicate_slices", f"{n_dropped} of {len(frames)} images repeat another bit for bit; one of each was kept")
        )
    stored = stack.stored if stack is not None else None
    tilted = stored is not None and stack is not None and stack.sheared
    if tilted and modality != "CT":
        notes = [note for note in notes if note.code != "tilt_resampled"]
    facts = facts_of(kept[len(kept) // 2])
    facts["transfer_syntaxes"] = sorted({SYNTAX_NAMES.get(f.encoding.transfer_syntax, f.encoding.transfer_syntax) for f in kept})
    return Series(
        key,
        study,
        modality,
        n_files,
        verdict,  # type: ignore[arg-type]
        (*reasons, *notes),
        upright(stored) if tilted and modality == "CT" and stored is not None else stored,
        facts,
        "",
        tuple(kept),
        stored,
    )


def _most_telling(reasons: list[Reason]) -> list[Reason]:
    """Drop what follows from a graver reason: one scout is refused as a scout, not for being a single slice."""
    kinds = {reason.code for reason in reasons}
    if kinds & {"localizer", "secondary_capture", "not_an_image", "not_ct", "missing_geometry"}:
        return [reason for reason in reasons if reason.code not in ("too_few_slices", "same_position", "conflicting_slices")]
    return reasons


def _lost_reasons(frames: list[Frame], missing: list[_Lost]) -> list[Reason]:
    """A slice whose file is damaged leaves a hole, even at the end of the series where no gap shows it."""
    places = places_of(frames, frames[0])
    holes = []
    for entry in missing:
        if entry.orientation is not None and not close(entry.orientation, frames[0].orientation):
            continue
        ghost = replace(frames[0], position=entry.position)
        if entry.position is None or np.abs(places - places_of([ghost], frames[0])).min() > SAME_PLACE_MM:
            holes.append(entry)
    if not holes:
        return []
    codes = ", ".join(sorted({entry.reason.code for entry in holes}))
    message = f"{len(holes)} file{'s' * (len(holes) > 1)} of this series cannot be read ({codes}); copy the series again"
    return [Reason("missing_slice", message)]
