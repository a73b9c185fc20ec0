"""Whole folders and archives without identifiers: one file in memory at a time, running numbers for names."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from medvl.delivery.burned_in import burned_in, face_visible
from medvl.dicom.header import UNDEFINED, read_header, text
from medvl.dicom.source import Item, Opener, list_items
from medvl.errors import ConfigError, InputError
from medvl.files import whole
from medvl.records import Reason

if TYPE_CHECKING:
    from medvl.delivery.deidentify import Deidentifier

Burned = Literal["refuse", "quarantine", "keep"]
Told = Callable[[int, int], None]
MAX_FILE_BYTES = 2 << 30
QUARANTINE = "quarantine"
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_ERRORS = (AttributeError, EOFError, LookupError, NotImplementedError, OSError, RecursionError, TypeError, ValueError)


@dataclass
class Counts:
    """What became of the files of a source.

    Args:
        files: looked at.
        written: without identifiers, in their series' folders.
        quarantined: written apart, because their pixels may show identifiers.
        patients, studies, series: among those written.
        faces: images written from which a face may be rebuilt; medvl removes none.
        reasons: codes of what was refused or quarantined.
        refused: (running number of the file in the order of names, code) of each that was not written.
    """

    files: int = 0
    written: int = 0
    quarantined: int = 0
    patients: int = 0
    studies: int = 0
    series: int = 0
    faces: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[int, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; no name, id or path."""
        plain = {
            name: getattr(self, name) for name in ("files", "written", "quarantined", "patients", "studies", "series", "faces")
        }
        return {**plain, "reasons": dict(sorted(self.reasons.items())), "refused": [list(one) for one in self.refused]}


@dataclass
class _Places:
    """Running numbers for studies, series and images, in the order in which they come; what was written of them."""

    out: Path
    studies: dict[str, int] = field(default_factory=dict)
    series: dict[tuple[str, str], int] = field(default_factory=dict)
    images: Counter[tuple[str, str]] = field(default_factory=Counter)
    written: set[tuple[str, str, str]] = field(default_factory=set)

    def next(self, ds: Dataset) -> Path:
        """Where an image without identifiers goes."""
        key = (str(ds.get("StudyInstanceUID", "")), str(ds.get("SeriesInstanceUID", "")))
        study = self.studies.setdefault(key[0], len(self.studies) + 1)
        series = self.series.setdefault(key, len(self.series) + 1)
        self.images[key] += 1
        return self.out / f"study-{study:04d}" / f"series-{series:04d}" / f"{self.images[key]:06d}.dcm"


def run(deidentifier: Deidentifier, source: Path, out: Path, *, burned: Burned = "refuse", told: Told | None = None) -> Counts:
    """Write every image of `source` without identifiers under `out`; a file that cannot be used costs only itself.

    Args:
        deidentifier: key and options.
        source: folder (nested, any names), file or zip archive.
        out: a folder that is empty or not there yet; outside `source`.
        burned: what to do with images whose pixels may show identifiers.
        told: called with (files done, files in all).

    Raises:
        InputError: the source is not there or an unsafe archive.
        ConfigError: `out` holds something, or lies within `source`.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError("the output folder is not empty, and old files could be taken for new; give another")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise ConfigError("the output folder lies within the input; give one outside it")
    items = list_items(source)
    counts, places, apart = Counts(files=len(items)), _Places(out), _Places(out / QUARANTINE)
    with Opener() as opener:
        for number, item in enumerate(items, start=1):
            try:
                reason = _one(deidentifier, item, opener, burned, places, apart, counts)
            except InputError as error:
                reason = Reason(error.code, error.message)
            if reason is not None:
                counts.reasons[reason.code] += 1
                counts.refused.append((number, reason.code))
            if told:
                told(number, len(items))
    counts.patients, counts.studies = len({one[0] for one in places.written}), len({one[1] for one in places.written})
    counts.series = len({one[1:] for one in places.written})
    return counts


def _one(
    deidentifier: Deidentifier, item: Item, opener: Opener, burned: Burned, places: _Places, apart: _Places, counts: Counts
) -> Reason | None:
    """Write one file; why it was not written among the others, or None."""
    data, syntax = _image(item, opener)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = dcmread(io.BytesIO(data), force=True)
            reason = burned_in(ds)
            if reason is not None and burned == "refuse":
                return reason
            face = face_visible(ds)
            clean = deidentifier.header(ds)
            held = reason is not None and burned == "quarantine"
            path = (apart if held else places).next(clean)
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(clean, syntax, path)
            (apart if held else places).written.add((clean.PatientID, clean.StudyInstanceUID, clean.SeriesInstanceUID))
        except _ERRORS as error:
            _refuse_full_disk(error)
            raise InputError("malformed_header", f"cannot be rewritten ({type(error).__name__}); export the file again") from None
    counts.quarantined += held
    counts.written += not held
    counts.faces += face and not held
    return reason if held else None


def _refuse_full_disk(error: Exception) -> None:
    """Stop the run where nothing more can be written; reading never raises an OSError here."""
    if isinstance(error, OSError) and error.errno is not None:
        raise ConfigError(f"the output cannot be written ({type(error).__name__}, errno {error.errno}); look at disk and rights")


def _image(item: Item, opener: Opener) -> tuple[bytes, UID]:
    """The bytes of an image file and its transfer syntax, once the bounded reader has been through its header."""
    if item.size > MAX_FILE_BYTES:
        raise InputError(
            "too_large", f"a file of {item.size >> 20} MiB; files of more than {MAX_FILE_BYTES >> 20} MiB are left out"
        )
    header = read_header(lambda start, length: opener.read(item, start, length), item.size)
    if text(header.values, 0x00080016) == _DIRECTORY_CLASS:
        raise InputError("index_file", "a DICOMDIR lists other files and names their patients; it is left out")
    if header.pixel_offset < 0:
        raise InputError("not_an_image", "reports, plans and contours hold free text that no rule cleans; left out")
    if header.pixel_length != UNDEFINED and not header.deflated and header.pixel_offset + header.pixel_length > item.size:
        raise InputError("truncated_file", "the file ends inside its pixels; copy it again")
    if not text(header.values, 0x00080016) or not text(header.values, 0x00080018):
        raise InputError("malformed_header", "the image lacks its SOP class or instance UID; export it again")
    syntax = UID(header.transfer_syntax)
    if syntax.is_private or not syntax.is_transfer_syntax:
        raise InputError("undecodable", "a transfer syntax that the standard does not know; convert the series first")
    return opener.read(item), syntax


def _write(ds: Dataset, syntax: UID, path: Path) -> None:
    """One file with a meta group and a preamble of its own."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    ds.file_meta = meta
    with whole(path) as part:
        dcmwrite(part, ds, enforce_file_format=True)
