"""Reads a results folder (`findings.json` per study) into typed records; an unreadable file becomes a record that says so."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from medvl.errors import InputError

from .study import FORMAT, ReasonRecord, Study

_CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


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
