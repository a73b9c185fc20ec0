"""What humans decided, from `reviews.sqlite` in the results folder, for the pages that only look."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DatabaseError

from medvl.errors import ConfigError
from medvl.review.audit import Verified
from medvl.review.book import FILE
from medvl.review.desk import Reviews
from medvl.review.record import Status, Who

from .extras import extras

_lock = threading.Lock()
_open: dict[Path, Reviews] = {}
_known: dict[Path, tuple[object, dict[str, Status]]] = {}


def reviews(root: Path) -> Reviews:
    """The reviews of a results folder, opened once for all sessions of the process.

    Raises:
        ConfigError: they cannot be opened; the message says why.
    """
    with _lock:
        if root not in _open or not (root / FILE).exists():
            try:
                _open[root] = Reviews(root, key_file=extras().audit_key)
            except (OSError, DatabaseError) as error:
                raise ConfigError(f"reviews cannot be kept in this results folder: {type(error).__name__}") from error
        return _open[root]


def statuses(root: Path, state: object) -> dict[str, Status]:
    """Where each study stands that anybody worked on; others are unread. Asked anew when a file of the reviews changed.

    Args:
        root: the results folder.
        state: any value that changes with the studies: new answers make a study unread again.
    """
    stamp = (state, *(path.stat().st_mtime_ns for tail in ("", "-wal") if (path := root / f"{FILE}{tail}").exists()))
    known = _known.get(root)
    if known is not None and known[0] == stamp:
        return known[1]
    try:
        found = reviews(root).statuses() if (root / FILE).exists() else {}
    except (ConfigError, DatabaseError):
        return {}
    _known[root] = stamp, found
    return found


def note(root: Path, who: Who, what: str, case_id: str = "", **detail: Any) -> None:
    """Add to the audit log who did what.

    Raises:
        ConfigError: there is no log to write to: what must be logged may then not be done.
    """
    try:
        reviews(root).log(who, what, case_id, **detail)
    except DatabaseError as error:
        raise ConfigError(f"the audit log cannot be written: {type(error).__name__}; look at the disk of the results") from error


def events(root: Path) -> list[dict[str, Any]]:
    """The audit log in order.

    Raises:
        ConfigError: it cannot be opened.
    """
    return reviews(root).events()


def verify(root: Path, since: str | None = None) -> Verified:
    """Check the audit log against tampering.

    Raises:
        ConfigError: it cannot be opened, or `since` is no head of a log.
    """
    return reviews(root).verify(since)
