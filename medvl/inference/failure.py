"""How an error that nobody foresaw is told."""

from __future__ import annotations

import traceback
from pathlib import Path

from medvl.records import Reason


def failure(error: BaseException) -> Reason:
    """Our fault: the kind of error and where in medvl it arose; its text may hold identifiers and is left out."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "medvl" in f.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside medvl"
    return Reason("internal_error", f"{type(error).__name__} at {where}; please report it")
