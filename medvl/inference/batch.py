"""Many studies, one after another: every one ends as done, skipped or failed, with a reason; a rerun goes on where it stopped."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvl.errors import InputError
from medvl.imaging.load import Entry, Study, load
from medvl.inference.predictor import CaseResult, Predictor
from medvl.inference.results import ResultsFolder
from medvl.records import Reason

Told = Callable[[str, str], None]


@dataclass
class Summary:
    """How a run ended: studies by status, reasons of what was not done, and seconds."""

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    cases: list[dict[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "studies": sum(self.statuses.values()),
            **{s: self.statuses[s] for s in ("done", "resumed", "skipped", "failed")},
            "reasons": dict(self.reasons),
            "seconds": round(self.seconds, 2),
            "cases": self.cases,
        }


def run_batch(inputs: Sequence[Path], predictor: Predictor, out: Path, told: Told | None = None) -> Summary:
    """Findings for every study in `inputs`, written under `out`.

    Args:
        inputs: DICOM folders, files or zips, or NIfTI files; each may hold several studies.
        predictor: a loaded bundle.
        out: results folder.
        told: called with (case id, status) after each study.
    """
    folder, summary, started = ResultsFolder(out, predictor.asked), Summary(), time.monotonic()
    for source in inputs:
        for study in _studies(source, folder, predictor, summary, told):
            _one(study, source, folder, predictor, summary, told)
    folder.tables()
    summary.seconds = time.monotonic() - started
    return summary


def _studies(source: Path, folder: ResultsFolder, predictor: Predictor, summary: Summary, told: Told | None) -> Sequence[Study]:
    """The studies of one input; an input that cannot be opened or holds none ends as one skipped or failed case."""
    case_id = folder.case_id(f"input:{source.resolve()}")
    try:
        loaded = load(source)
        if len(loaded):
            return loaded.studies
        codes = Counter(r.reason.code for r in loaded.rejected)
        what = ", ".join(f"{n} {code}" for code, n in sorted(codes.items())) or "no files"
        raise InputError("no_images", f"the input holds no CT images ({what}); see `medvl inspect`")
    except InputError as error:
        _end(case_id, "skipped", [Reason(error.code, error.message)], None, None, (source, folder, predictor, summary, told))
    except Exception as error:
        _end(case_id, "failed", [_failure(error)], None, None, (source, folder, predictor, summary, told))
    return ()


def _one(study: Study, source: Path, folder: ResultsFolder, predictor: Predictor, summary: Summary, told: Told | None) -> None:
    case_id = folder.case_id(_identity(study))
    entry = study.entries[0] if study.chosen is not None else None
    context = (source, folder, predictor, summary, told)
    if folder.finished(case_id, predictor.bundle, entry):
        _count(case_id, "resumed", [], summary, told)
        return
    try:
        volume = study.read()
        result = predictor.predict(volume, age_years=(entry.facts.get("age_years") if entry else None))
        _end(case_id, "done", list(volume.reasons), entry, result, context)
    except InputError as error:
        _end(case_id, "skipped", [Reason(error.code, error.message)], entry, None, context)
    except Exception as error:
        _end(case_id, "failed", [_failure(error)], entry, None, context)


def _identity(study: Study) -> str:
    """What makes a study this one: its own UID, or for NIfTI, which has none, where the file lies."""
    path = study.entries[0].path if study.entries else None
    return study.key if path is None else f"file:{path.resolve()}"


def _end(
    case_id: str,
    status: str,
    reasons: list[Reason],
    entry: Entry | None,
    result: CaseResult | None,
    context: tuple[Path, ResultsFolder, Predictor, Summary, Told | None],
) -> None:
    source, folder, predictor, summary, told = context
    folder.write(case_id, folder.record(case_id, predictor.bundle, status, reasons, entry, result), result)
    folder.remember({case_id: {"path": str(source.resolve()), "series_key": entry.key if entry else ""}})
    _count(case_id, status, reasons, summary, told)


def _count(case_id: str, status: str, reasons: list[Reason], summary: Summary, told: Told | None) -> None:
    summary.statuses[status] += 1
    if status in ("skipped", "failed"):
        summary.reasons.update(r.code for r in reasons[:1])
    summary.cases.append(
        {"case_id": case_id, "status": status, "reason": reasons[0].code if reasons and status != "done" else ""}
    )
    if told:
        told(case_id, status)


def _failure(error: Exception) -> Reason:
    """Our fault: the kind of error and where in medvl it arose; its text may hold identifiers and is left out."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "medvl" in f.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside medvl"
    return Reason("internal_error", f"{type(error).__name__} at {where}; please report it")
