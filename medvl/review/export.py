"""Files of what humans decided: a study as JSON, PDF or DICOM report, the labels of a folder, the audit log."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from medvl.delivery.stamp import save
from medvl.errors import ConfigError, InputError, did_you_mean
from medvl.files import replace_text, whole, write_json
from medvl.imaging.load import Entry, load
from medvl.review.desk import Reviews
from medvl.review.record import Review, Who
from medvl.review.statement import statement
from medvl.text.prompts import FindingList

KINDS = ("json", "pdf", "sr")
FORMATS = ("csv", "parquet", "json")


def export(
    desk: Reviews,
    case_id: str,
    kind: str,
    who: Who,
    *,
    organisation: str = "",
    findings: FindingList | None = None,
) -> bytes:
    """The decision about a study as a file's content; the export is noted in the audit log.

    Args:
        desk: where the decision is kept.
        case_id: the study.
        kind: one of `KINDS`; ``sr`` is a DICOM file.
        who: asks for it.
        organisation: see `decision_report`.
        findings: the list that was asked, for its codes.

    Raises:
        ConfigError: an unknown kind.
        ReviewError: a DICOM report of a study that is not signed.
        InputError: the results or, for a DICOM report, the images cannot be read.
    """
    if kind not in KINDS:
        raise ConfigError(f"no export {kind}; {did_you_mean(kind, KINDS)}")
    review = desk.review(case_id)
    makers: Mapping[str, Callable[[], bytes]] = {
        "json": lambda: _json(review),
        "pdf": lambda: _pdf(review),
        "sr": lambda: _sr(desk.folder, review, organisation, findings),
    }
    made = makers[kind]()
    desk.log(who, "exported", case_id, kind=kind, status=str(review.status), version=review.version)
    return made


def _json(review: Review) -> bytes:
    return (json.dumps(statement(review), indent=1, allow_nan=False) + "\n").encode()


def _pdf(review: Review) -> bytes:
    from medvl.review.pdf import decision_pdf  # brings matplotlib

    return decision_pdf(review)


def _sr(folder: Path, review: Review, organisation: str, findings: FindingList | None) -> bytes:
    from medvl.review.report_sr import check_readable, decision_report

    case_id = review.answers.case_id
    study = folder / "studies" / case_id
    made = decision_report(study, review, source_entry(folder, case_id), organisation=organisation, findings=findings)
    with tempfile.TemporaryDirectory() as held:
        path = Path(held) / "review.dcm"
        save(made, path)
        check_readable(made, path)
        return path.read_bytes()


def source_entry(folder: Path, case_id: str) -> Entry:
    """The series that the answers of a study are about, found by `sources.json`.

    Raises:
        InputError: ``source_gone``.
    """
    gone = InputError("source_gone", "the images are no longer where they were read from; put them back, then export again")
    try:
        told = json.loads((folder / "sources.json").read_text(encoding="utf-8"))[case_id]
        path, key = Path(str(told["path"])), str(told.get("series_key", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise gone from error
    if not path.exists():
        raise gone
    loaded = load(path)
    entries = [entry for study in loaded for entry in study.entries if entry.key == key]
    entry = entries[0] if entries else loaded.chosen if not key else None
    if entry is None:
        raise gone
    return entry


def write_labels(table: pd.DataFrame, out: Path, form: str) -> None:
    """Write labels whole or not at all, for their owner alone.

    Raises:
        ConfigError: an unknown format.
    """
    if form not in FORMATS:
        raise ConfigError(f"no format {form}; {did_you_mean(form, FORMATS)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    if form == "csv":
        replace_text(out, table.to_csv(index=False), 0o600)
    elif form == "json":
        write_json(out, table.to_dict("records"), mode=0o600)
    else:
        with whole(out) as part:
            part.touch(0o600)
            table.to_parquet(part, index=False)


def write_log(desk: Reviews, out: Path) -> int:
    """Write the audit log as JSON lines, digests included; returns how many."""
    events = desk.events()
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, "".join(json.dumps(event, sort_keys=True) + "\n" for event in events), 0o600)
    return len(events)
