"""Which crops an earlier build of a table already made: rows are known by a hash of all that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medvl.data.cache import DONE, Row
from medvl.data.table import Scan

ROWS_NAME = "rows.json"
OUR_FAULT = "internal_error"


def row_key(facts: str, scans: Sequence[Scan]) -> str:
    """Hash of all that a row's crops depend on: contract, localiser, and each scan's files, phase, masks and centres."""
    parts = [[source_hash(s.study), s.phase, source_hash(s.masks) if s.masks else "", sorted(s.centers.items())] for s in scans]
    return hashlib.sha256(json.dumps([facts, parts]).encode()).hexdigest()


def source_hash(path: Path) -> str:
    """Hash of a file or folder by the names, sizes and times of change of its files; contents are not read."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    seen = [(p.relative_to(path).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(json.dumps([path.is_dir(), seen]).encode()).hexdigest()


def known_rows(folder: Path) -> dict[str, tuple[Path, int]]:
    """Row key to the folder and row of an earlier build."""
    found = {}
    for path in sorted(folder.glob(f"table-*/{ROWS_NAME}")):
        keys = json.loads(path.read_text(encoding="utf-8"))
        found.update({key: (path.parent, row) for row, key in enumerate(keys)})
    return found


def taken_over(place: Path, row: int, lead: tuple[int, ...]) -> Row | None:
    """A row of an earlier build as it would be made for this one; None where it is not there or failed by our own fault."""
    try:
        if np.load(place / "done.npy")[row] != DONE:
            return None
        hu, covered = np.load(place / "hu.npy", mmap_mode="r")[row], np.load(place / "covered.npy", mmap_mode="r")[row]
        note = np.load(place / "notes.npy", mmap_mode="r")[row].decode("utf-8", "ignore")
    except (OSError, ValueError, EOFError, IndexError):
        return None
    if covered.shape != lead or failed(note):
        return None
    return Row(np.array(hu), np.array(covered), note)


def failed(note: str) -> bool:
    """Whether a row's note tells of an error of our own, which is worth another try."""
    return any(line.split("|", 2)[1:2] == [OUR_FAULT] for line in note.splitlines())
