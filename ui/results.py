"""Reads a results folder (`findings.json` per study) into typed records; an unreadable file becomes a record that says so."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medvl.errors import InputError

FORMAT = "medvl.findings/1"
Point = tuple[float, float, float]
Status = Literal["done", "skipped", "failed", "unreadable", "waiting", "quarantined"]  # the last two are the ledger's
Verdict = Literal["present", "absent", "undecided"]
_CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class _Record(BaseModel):
    """Frozen; keys of later versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ReasonRecord(_Record):
    """A reason code with its sentence."""

    code: str = ""
    message: str = ""


class BundleRecord(_Record):
    """Which model bundle wrote the result."""

    name: str = ""
    sha256: str = ""
    contract: str = ""


class SeriesRecord(_Record):
    """The series that was used, or why none could be."""

    key: str = ""
    modality: str = ""
    facts: dict[str, str | float | bool | list[str] | None] = {}
    verdict: str = ""
    reasons: tuple[ReasonRecord, ...] = ()
    shape_dhw: tuple[int, int, int] | None = None
    spacing_mm: Point | None = None
    why: str = ""


class OodRecord(_Record):
    """Distance of a region's features from those the model was trained on."""

    distance: float | None = None
    limit: float | None = None
    out: bool = False


class RegionRecord(_Record):
    """One organ side: where it was found and how sure the localiser was."""

    name: str
    found: bool = True
    center_lps: Point | None = None
    confidence: float | None = None
    source: str = ""
    covered: float | None = None
    shape_dhw: tuple[int, int, int] | None = None
    reasons: tuple[ReasonRecord, ...] = ()
    ood: OodRecord | None = None


class PromptsRecord(_Record):
    """The sentences the image was compared with."""

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


class DeletionRecord(_Record):
    """Score before and after the evidence region was removed from the image, and after as much was removed elsewhere."""

    before: float
    after: float
    control: float | None = None


class SpreadRecord(_Record):
    """The score over other wordings of the prompts: standard deviation, 95 % range, share with the other answer."""

    sd: float
    low: float
    high: float
    turned: float


class FindingRecord(_Record):
    """One finding in one region."""

    finding: str
    label: str = ""
    region: str = ""
    score: float | None = None
    calibrated: bool = False
    verdict: Verdict = "undecided"
    threshold: float | None = None
    threshold_low: float | None = None
    threshold_high: float | None = None
    reasons: tuple[ReasonRecord, ...] = ()
    prompts: PromptsRecord = PromptsRecord()
    heatmap: str | None = None
    peak_lps: Point | None = None
    deletion: DeletionRecord | None = None
    interval: tuple[float, float] | None = None
    spread: SpreadRecord | None = None
    margin: float | None = None
    percentile: float | None = None

    @property
    def key(self) -> str:
        """Unique within a study."""
        return f"{self.finding}@{self.region}"


class RiskRecord(_Record):
    """The survival head's output."""

    endpoint: str = ""
    value: float | None = None
    percentile: float | None = None
    survival: dict[str, float] | None = None
    reasons: tuple[ReasonRecord, ...] = ()


class Study(_Record):
    """One study's `findings.json`."""

    format: str = Field(default=FORMAT, alias="schema")
    case_id: str
    software: str = ""
    research_use: str = ""
    bundle: BundleRecord = BundleRecord()
    made_at: str = ""
    status: Status = "done"
    reasons: tuple[ReasonRecord, ...] = ()
    series: SeriesRecord | None = None
    pixels_sha256: str = ""
    regions: tuple[RegionRecord, ...] = ()
    findings: tuple[FindingRecord, ...] = ()
    risk: RiskRecord | None = None

    def count(self, verdict: Verdict) -> int:
        """How many findings have this verdict."""
        return sum(finding.verdict == verdict for finding in self.findings)

    @property
    def top(self) -> FindingRecord | None:
        """The finding a reader should see first: present before undecided before absent, then the highest score."""
        return ranked(self.findings)[0] if self.findings else None


def region_center(study: Study, name: str) -> Point | None:
    """Where a region's middle lies, in LPS mm; None when it was not found."""
    return next((region.center_lps for region in study.regions if region.name == name), None)


def ranked(findings: tuple[FindingRecord, ...]) -> tuple[FindingRecord, ...]:
    """Findings in reading order: present, undecided, absent; within each the highest score first, no score last."""
    order = {"present": 0, "undecided": 1, "absent": 2}
    return tuple(sorted(findings, key=lambda f: (order[f.verdict], -(f.score if f.score is not None else -1.0))))


def study_folders(root: Path) -> list[Path]:
    """Folders of the studies of the results folder `root`, by case id; none when there are no results yet."""
    try:
        with os.scandir(root / "studies") as entries:
            names = [entry.name for entry in entries if _CASE_ID.fullmatch(entry.name) and entry.is_dir()]
    except OSError:
        return []
    return [root / "studies" / name for name in sorted(names)]


def read_study(root: Path, case_id: str) -> Study:
    """One study; a file that did not change is not parsed again.

    Raises:
        InputError: ``file_outside_study`` when `case_id` is no case id.
    """
    folder = study_file(root, case_id, "findings.json").parent
    stamp = stamp_of(folder)
    return _missing(case_id) if stamp is None else _held(folder, *stamp)


def stamp_of(folder: Path) -> tuple[int, int] | None:
    """Changes with every writing of the study's findings.json: time in ns and size; None when there is none."""
    try:
        told = (folder / "findings.json").stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size


@lru_cache(maxsize=64)
def _held(folder: Path, mtime_ns: int, size: int) -> Study:
    del mtime_ns, size  # part of the cache key: a rewritten file is parsed again
    return parse_study(folder)


def parse_study(folder: Path) -> Study:
    """The study in `folder`, read from the disk; one that says what is wrong when it cannot be read."""
    case_id = folder.name
    try:
        study = Study.model_validate(json.loads((folder / "findings.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return _missing(case_id)
    except (OSError, ValueError, RecursionError) as error:
        return _unreadable(
            case_id, "findings_unreadable", f"findings.json cannot be read ({_short(error)}). Run this study again."
        )
    if study.format != FORMAT:
        message = f"findings.json has format {study.format[:40]!r}; this viewer reads {FORMAT!r}. Update medvl."
        return _unreadable(case_id, "findings_version", message)
    return study if study.case_id == case_id else study.model_copy(update={"case_id": case_id})


def _missing(case_id: str) -> Study:
    message = "This study has no findings.json: inference was stopped before it ended. Run it again."
    return _unreadable(case_id, "findings_missing", message)


def _short(error: Exception) -> str:
    """What is wrong with the file, without its content."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON at line {error.lineno}"
    return type(error).__name__


def _unreadable(case_id: str, code: str, message: str) -> Study:
    reason = ReasonRecord(code=code, message=message)
    return Study(case_id=case_id, status="unreadable", reasons=(reason,))


def study_file(root: Path, case_id: str, relative: str) -> Path:
    """Path of a file of one study, which may not lie outside that study's folder.

    Raises:
        InputError: ``file_outside_study`` when the case id or the path leads elsewhere.
    """
    folder = (root / "studies" / case_id).resolve()
    path = (folder / relative).resolve()
    if not _CASE_ID.fullmatch(case_id) or not path.is_relative_to(folder):
        raise InputError("file_outside_study", "findings.json names a file outside its study folder; run this study again")
    return path


def source_of(root: Path, case_id: str) -> tuple[Path, str] | None:
    """Where the images came from and the key of the series, from `sources.json`; None when it is not recorded."""
    try:
        entry = json.loads((root / "sources.json").read_text(encoding="utf-8"))[case_id]
        return Path(str(entry["path"])), str(entry.get("series_key", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
