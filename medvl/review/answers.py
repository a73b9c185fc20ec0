"""What a model answered about one study, as far as a human decides on it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from medvl.errors import InputError

SCHEMA = "medvl.findings/1"
_CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Item:
    """One answer of the model: a finding in a region."""

    finding: str
    label: str
    region: str
    verdict: str
    score: float | None

    @property
    def name(self) -> str:
        """Finding and region in one word, unique within a study."""
        return f"{self.finding}@{self.region}"


@dataclass(frozen=True)
class Answers:
    """The answers that a decision is about.

    Args:
        case_id: keyed hash.
        sha256: of findings.json, byte for byte; other answers have another one.
        done: whether the study was read by the model; a skipped or failed one has no items.
    """

    case_id: str
    sha256: str
    bundle: str
    bundle_sha256: str
    done: bool
    items: tuple[Item, ...]

    def item(self, name: str) -> Item | None:
        """The answer of that name."""
        return next((item for item in self.items if item.name == name), None)

    @property
    def regions(self) -> tuple[str, ...]:
        """Where anything was asked, in order."""
        return tuple(dict.fromkeys(item.region for item in self.items))


def record_path(folder: Path, case_id: str) -> Path:
    """Where the record of a study lies.

    Raises:
        InputError: ``results_unreadable`` when that is no case id.
    """
    if not _CASE_ID.fullmatch(case_id):
        raise InputError("results_unreadable", "that is no case id; open the study from the list")
    return folder / "studies" / case_id / "findings.json"


def read_answers(folder: Path, case_id: str) -> Answers:
    """The answers that a results folder holds now; unchanged files are not read again.

    Raises:
        InputError: ``results_unreadable``.
    """
    path = record_path(folder, case_id)
    try:
        told = path.stat()
        return _read(path, case_id, told.st_mtime_ns, told.st_size, told.st_ino)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"the study's record cannot be read ({type(error).__name__}); run `medvl infer` again"
        raise InputError("results_unreadable", message) from error


@lru_cache(maxsize=20_000)
def _read(path: Path, case_id: str, mtime_ns: int, size: int, inode: int) -> Answers:
    del mtime_ns, size, inode  # part of the cache key: a rewritten file is read again
    raw = path.read_bytes()
    values = json.loads(raw)
    if values["schema"] != SCHEMA:
        raise ValueError(SCHEMA)
    found = values["findings"] if values["status"] == "done" else []
    return Answers(
        case_id=case_id,
        sha256=hashlib.sha256(raw).hexdigest(),
        bundle=str(values["bundle"]["name"]),
        bundle_sha256=str(values["bundle"]["sha256"]),
        done=values["status"] == "done",
        items=tuple(
            Item(str(f["finding"]), str(f.get("label") or f["finding"]), str(f["region"]), str(f["verdict"]), f.get("score"))
            for f in found
        ),
    )


def known_findings(folder: Path, answers: Answers) -> Mapping[str, str]:
    """Keys and labels of all findings that were asked in this results folder, for a reader to add one that was missed."""
    found = {item.finding: item.label for item in answers.items}
    path = folder / "results.parquet"
    try:
        told = path.stat()
        found |= dict(_listed(path, told.st_mtime_ns, told.st_size))
    except (OSError, ValueError, KeyError):  # no table yet, or one that is just being replaced: the study's own must do
        return dict(sorted(found.items(), key=lambda pair: pair[1]))
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


@lru_cache(maxsize=8)
def _listed(path: Path, mtime_ns: int, size: int) -> tuple[tuple[str, str], ...]:
    del mtime_ns, size
    import pandas as pd

    table = pd.read_parquet(path, columns=["finding", "label"]).dropna().drop_duplicates("finding")
    return tuple((str(row.finding), str(row.label)) for row in table.itertuples() if row.finding)
