"""Whether the reports and labels of a phantom cohort on disk are what this version of the code would write."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from medvl.files import replace_text

_ROOT = Path(__file__).parents[1]
_SOURCES = ("text", "imaging/phantom", "data/cohort.py")
_NOTE, _CASES, _FACTS = "described.json", "cases.jsonl", "cohort.json"


def is_described(place: Path) -> bool:
    """Whether `note_described` was called on these very cases, by code that reads and writes reports as this one does."""
    try:
        held = json.loads((place / _NOTE).read_text(encoding="utf-8"))
        return bool(held == _note(place))
    except (OSError, ValueError):
        return False


def note_described(place: Path) -> None:
    """Note which code described the cases of the cohort folder `place`."""
    replace_text(place / _NOTE, json.dumps(_note(place)))


def _note(place: Path) -> dict[str, str]:
    return {"code": _code(), "cases": _sha256(place / _CASES), "facts": _sha256(place / _FACTS)}


@cache
def _code() -> str:
    """SHA-256 over the sources that make reports, labels and truths."""
    digest = hashlib.sha256()
    for source in _SOURCES:
        path = _ROOT / source
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in (".py", ".yaml")):
            digest.update(f"{file.relative_to(_ROOT).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
