"""From one finished study to DICOM objects on disk: written, read back, compared, and only then given their names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom import Dataset

from medvl.delivery.check import check
from medvl.delivery.report_sr import structured_report
from medvl.delivery.segments import segmentations
from medvl.delivery.source import quiet, read_source
from medvl.delivery.stamp import Job, save
from medvl.delivery.told import read_told
from medvl.errors import ConfigError, did_you_mean
from medvl.files import private, whole
from medvl.imaging.load import Entry
from medvl.text.prompts import FindingList

KINDS = ("sr", "seg", "page", "pdf")
_FILES = {"sr": "sr", "seg": "seg", "page": "page", "pdf": "report"}


@dataclass(frozen=True)
class Made:
    """One DICOM file that may be sent.

    Args:
        kind: one of `KINDS`.
        path: where it lies; `seg-2.dcm` and so on where several regions have heat maps.
        sha256: of the file.
    """

    kind: str
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    sha256: str


def make_objects(
    study: Path,
    entry: Entry,
    out: Path,
    *,
    kinds: Sequence[str] = KINDS,
    made_at: datetime,
    findings: FindingList | None = None,
    headers: Sequence[Dataset] | None = None,
) -> list[Made]:
    """Write the objects of one study into `out`, each checked against what it is meant to say.

    Equal arguments give equal bytes. Folder and files are readable by their owner alone. There is no `seg` where no answer has a
    heat map or the source names no frame of reference.

    Args:
        study: its results, `results/studies/CASE`.
        entry: the volume that the answers are about; it is read again for `page` and `pdf`.
        out: made when missing.
        kinds: which of `KINDS`.
        made_at: goes into the objects as their time; in the source's time zone when both tell one.
        findings: the list that was asked, for its codes; private codes without it.
        headers: instead of the source's own, such as de-identified ones.

    Raises:
        ConfigError: an unknown kind.
        InputError: of `read_told`, `read_source` and `Entry.read`; ``object_check_failed`` when a file holds something else.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"no kind of object {kind}; {did_you_mean(kind, KINDS)}")
    job = Job(read_source(entry, headers), read_told(study), made_at)
    private(out)
    with quiet():
        return [_written(job, kind, made, out / f"{name}.dcm") for kind, name, made in _objects(job, entry, kinds, findings)]


def _objects(job: Job, entry: Entry, kinds: Sequence[str], findings: FindingList | None) -> Iterator[tuple[str, str, Dataset]]:
    """Kind, name of the file and object, in the order of `KINDS`."""
    segments = segmentations(job, findings) if "seg" in kinds else []
    if "sr" in kinds:
        yield "sr", _FILES["sr"], structured_report(job, findings, segments)
    for number, segment in enumerate(segments, 1):
        yield "seg", _FILES["seg"] if number == 1 else f"{_FILES['seg']}-{number}", segment
    drawn = [kind for kind in ("page", "pdf") if kind in kinds]
    if drawn:
        from medvl.delivery.page import summary_page  # brings matplotlib
        from medvl.delivery.pdf import report_pdf
        from medvl.delivery.planes import views

        seen = views(job.told, entry.read())
        makers: dict[str, Callable[[], Dataset]] = {
            "page": lambda: summary_page(job, seen),
            "pdf": lambda: report_pdf(job, seen),
        }
        for kind in drawn:
            yield kind, _FILES[kind], makers[kind]()


def _written(job: Job, kind: str, made: Dataset, path: Path) -> Made:
    with whole(path, 0o600) as part:
        save(made, part)
        check(job, kind, made, part)
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
    return Made(kind, path, str(made.SOPClassUID), str(made.SOPInstanceUID), digest)
