"""One row of the manifest made into a cached volume and a clean report, and the note of it that lets a stopped run go on.

A note is `journal/CASE.json`, written after the volume has reached the disk. It has two halves, each with a key over all that it
depends on: the image's, and the text's. It holds no identifier: keys are keyed hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvl.data.identity import keyed_id
from medvl.data.person import fingerprint, person_of
from medvl.data.reuse import OUR_FAULT, source_hash
from medvl.dataset.likeness import picture
from medvl.dataset.schema import JOURNAL, SCANNER, VOLUMES
from medvl.dataset.scrub import scrub
from medvl.dataset.web import Web
from medvl.dicom.choose import Want
from medvl.dicom.source import Opener
from medvl.errors import InputError
from medvl.files import replace_text
from medvl.imaging.load import Entry, load
from medvl.imaging.volume_file import SUFFIX, as_int16, read_header, write_volume
from medvl.records import Volume

CONVERT_VERSION, SCRUB_VERSION = 1, 1
TRANSIENT = frozenset({OUR_FAULT, "timeout", "worker_died", "pacs_unreachable", "unreadable_file"})
_KEPT = (*SCANNER, "phase_hints", "patient_position")
_NAMES = {"noncontrast": "native"}
_TAGS = re.findall(
    r"\w+",
    """PatientName PatientID OtherPatientIDs PatientBirthDate PatientBirthName PatientAddress PatientTelephoneNumbers StudyID
    AccessionNumber StudyInstanceUID SeriesInstanceUID StudyDate SeriesDate AcquisitionDate ReferringPhysicianName
    RequestingPhysician PerformingPhysicianName NameOfPhysiciansReadingStudy PhysiciansOfRecord OperatorsName InstitutionName
    InstitutionAddress IssuerOfPatientID MedicalRecordLocator ResponsiblePerson""",
)


@dataclass(frozen=True)
class Task:
    """One row to convert.

    Args:
        case_id: names its files; place: path, or UID or address; phase: wanted, may be empty.
        report: as it came; identity: what identifies the patient in it; patient: the number that the manifest gives.
    """

    case_id: str
    place: str = field(repr=False)
    phase: str = ""
    report: str = field(default="", repr=False)
    identity: tuple[str, ...] = field(default=(), repr=False)
    patient: str = field(default="", repr=False)


@dataclass(frozen=True)
class Converter:
    """Makes rows; can be sent to worker processes.

    Args:
        out: folder of the dataset; root: of relative paths; key: of the folder.
        clean: take identifiers out of reports.
        reviews: keys of results folders, to find the rows that humans reviewed.
        web: the PACS, where studies are fetched.
        patient_key: of the site, for links of the patient; empty for none.
    """

    out: Path
    root: Path
    key: bytes = field(repr=False)
    clean: bool = True
    reviews: tuple[bytes, ...] = field(default=(), repr=False)
    web: Web | None = None
    patient_key: bytes = field(default=b"", repr=False)

    def known(self, task: Task) -> dict[str, Any] | None:
        """The note of an earlier run, where it still holds in full; None where there is something to do."""
        note = self._note(task.case_id)
        if note is None or {k: note.get(k) for k in ("image_key", "text_key")} != self._keys(task):
            return None
        return None if self._unsettled(note) else note

    def __call__(self, task: Task) -> dict[str, Any]:
        """Convert what is new and give the note; what goes wrong is in it, and nothing is raised for a bad study."""
        note: dict[str, Any] = {"case_id": task.case_id}
        try:
            note |= self._keys(task)
            before = self._note(task.case_id) or {}
            fresh = before.get("image_key") != note["image_key"] or self._unsettled(before)
            note |= self._made(task, None if fresh else before)
        except InputError as error:
            note |= {"code": error.code, "message": error.message}
        except Exception as error:
            note |= {"code": OUR_FAULT, "message": f"{type(error).__name__} while converting; please report it"}
        self.keep(note)
        return note

    def keep(self, note: Mapping[str, Any]) -> None:
        """Write a note whole."""
        replace_text(self.out / JOURNAL / f"{note['case_id']}.json", json.dumps(note) + "\n")

    def volume(self, case_id: str) -> Path:
        """Where a case's volume lies."""
        return self.out / VOLUMES / f"{case_id}{SUFFIX}"

    def _note(self, case_id: str) -> dict[str, Any] | None:
        try:
            note: dict[str, Any] = json.loads((self.out / JOURNAL / f"{case_id}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return note

    def _unsettled(self, note: Mapping[str, Any]) -> bool:
        """Whether the note tells of something that another try may mend, or its volume is gone or cut short."""
        if "code" in note:
            return note["code"] in TRANSIENT
        path = self.volume(note["case_id"])
        try:
            return bool(read_header(path).sha256 != note["sha256"] or path.stat().st_size != note["bytes"])
        except (InputError, OSError):
            return True

    def _keys(self, task: Task) -> dict[str, str]:
        """Keyed hashes over all that the image and the text depend on; empty where the study's files cannot be listed."""
        path = self.root / task.place
        try:
            source = source_hash(path) if self.web is None or path.exists() else self.web.name(task.place)
        except OSError:
            source = ""
        seen = [hashlib.sha256(key).hexdigest() for key in self.reviews]
        linked = (fingerprint(self.patient_key),) if self.patient_key else ()
        return {
            "image_key": self._keyed("image", CONVERT_VERSION, source, task.phase),
            "text_key": self._keyed("text", SCRUB_VERSION, self.clean, task.report, task.identity, seen, *linked),
        }

    def _keyed(self, *parts: Any) -> str:
        return hmac.new(self.key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()

    def _made(self, task: Task, before: Mapping[str, Any] | None) -> dict[str, Any]:
        path = self.root / task.place
        if self.web is not None and not path.exists():
            with self.web.fetched(task.place, self.out / JOURNAL / f".{task.case_id}.fetch") as folder:
                return self._from(folder, task, before)
        return self._from(path, task, before)

    def _from(self, path: Path, task: Task, before: Mapping[str, Any] | None) -> dict[str, Any]:
        entry, study = _chosen(path, task.phase)
        image = {k: before[k] for k in ("sha256", "bytes", "facts", "grid", "warnings", "picture", "series")} if before else None
        identity = study if entry.path is None else f"file:{entry.path.resolve()}"
        made = image or self._image(entry, task.case_id)
        person = person_of(self.patient_key, task.patient, entry.patient_number)
        linked = {"person": person} if person else {}
        return {**made, **self._text(entry, task), **linked, "reviewed": [keyed_id(key, identity) for key in self.reviews]}

    def _image(self, entry: Entry, case_id: str) -> dict[str, Any]:
        volume = entry.read()
        hu = as_int16(volume.hu)
        facts = {name: volume.facts[name] for name in _KEPT if volume.facts.get(name) not in (None, "", [])}
        plain = Volume(hu, volume.geometry, volume.reasons, {})
        sha256 = write_volume(plain, self.volume(case_id), facts)
        grid = volume.geometry
        return {
            "sha256": sha256,
            "bytes": self.volume(case_id).stat().st_size,
            "facts": facts,
            "grid": {"shape_dhw": list(grid.shape_dhw), "spacing_mm": [round(s, 4) for s in grid.spacing_mm], "axes": grid.axes},
            "warnings": sorted({reason.code for reason in volume.reasons}),
            "picture": picture(hu, grid),
            "series": keyed_id(self.key, f"series:{entry.key}"),
        }

    def _text(self, entry: Entry, task: Task) -> dict[str, Any]:
        if not self.clean or not task.report:
            return {"report": task.report, "removed": {}}
        text, counts = scrub(task.report, (*task.identity, *_identity(entry)))
        return {"report": text, "removed": {kind: n for kind, n in sorted(counts.items()) if n}}


def _chosen(path: Path, phase: str) -> tuple[Entry, str]:
    """The series to take, and the key of its study.

    Raises:
        InputError: ``not_found``, or ``no_volume`` with the reasons of all series.
    """
    loaded = load(path, Want(phase=_NAMES.get(phase, phase) or None))
    entry = loaded.chosen
    if entry is None:
        refused = sorted({e.reasons[0].code for study in loaded for e in study.entries if e.reasons})
        raise InputError("no_volume", f"the study holds no CT volume ({', '.join(refused) or 'no images'}); see `medvl inspect`")
    return entry, next(study.key for study in loaded if entry in study.entries)


def _identity(entry: Entry) -> tuple[str, ...]:
    """What the header of the series says of who, where and when; empty where it has none or cannot be read again."""
    if entry.series is None or not entry.series.frames:
        return ()
    import pydicom

    item = entry.series.frames[0].item
    with warnings.catch_warnings(), Opener() as opener:
        warnings.simplefilter("ignore")
        try:
            source = item.path if item.member is None else io.BytesIO(opener.read(item))
            header = pydicom.dcmread(source, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            values = [header.get(name) for name in _TAGS]
        except (OSError, ValueError, AttributeError, LookupError, NotImplementedError, InputError, EOFError, TypeError):
            return ()
    texts = [text for value in values for text in _texts(value)]
    return tuple(dict.fromkeys(text for text in texts if len(text) > 1))


def _texts(value: Any) -> list[str]:
    """The texts of a value that may be one, several or none."""
    many = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [str(one).strip() for one in many if one is not None]
