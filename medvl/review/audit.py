"""Who did what, in a chain that shows when it was tampered with.

Each row holds a keyed hash (HMAC-SHA256) over the row before it and its own content, and a sealed head names the last row.
Whoever alters, removes or moves rows without the key is found out. Whoever also has the key, or puts the whole file back to an
earlier copy of itself, is found out by a head that was noted elsewhere: `verify(since=...)`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from medvl.errors import ConfigError
from medvl.review.record import Who
from medvl.review.tables import TEXT_DROPPED, TEXT_SAVED, about, audit, decisions, history, studies, texts

_START = "0" * 64
_HEAD = "audit head"


class Chain:
    """Adds to and checks the audit log of a database.

    Args:
        key: of the results folder; from it the chain's own key is derived.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hmac.new(key, b"medvl audit chain", hashlib.sha256).digest()

    def add(self, db: Connection, who: Who, what: str, case_id: str = "", at: float | None = None, **detail: Any) -> None:
        """One event, in the transaction of what it tells of; `detail` is plain JSON."""
        number, last = self._head(db)
        row = {
            "number": number + 1,
            "at": time.time() if at is None else at,
            "who": who.name,
            "role": who.role,
            "what": what,
            "case_id": case_id,
            "detail": json.dumps(detail, sort_keys=True, allow_nan=False),
        }
        digest = self._digest(last, row)
        db.execute(audit.insert().values(**row, digest=digest))
        db.execute(about.delete().where(about.c.name == _HEAD))
        seal = self._mac(f"{number + 1} {digest}")
        db.execute(about.insert().values(name=_HEAD, value=f"{number + 1} {digest} {seal}"))

    def _head(self, db: Connection) -> tuple[int, str]:
        """Number and digest of the last row."""
        row = db.execute(sa.select(audit.c.number, audit.c.digest).order_by(audit.c.number.desc()).limit(1)).first()
        return (0, _START) if row is None else (int(row[0]), str(row[1]))

    def _digest(self, before: str, row: Mapping[str, Any]) -> str:
        told = [row[name] for name in ("number", "at", "who", "role", "what", "case_id", "detail")]
        return self._mac(before + json.dumps(told))

    def _mac(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def verify(self, db: Connection, since: str | None = None) -> Verified:
        """Walk the whole chain, and the history that it vouches for.

        Args:
            db: a connection to look with.
            since: a head noted earlier, ``NUMBER:DIGEST``; the log must still hold that row.

        Raises:
            ConfigError: `since` is no head.
        """
        noted = _noted(since)
        problems: list[str] = []
        vouched: dict[int, str] = {}
        number, before = 0, _START
        for row in rows(db):
            number += 1
            if row["number"] != number:
                problems.append(f"rows {number} to {row['number'] - 1} were removed")
                number = row["number"]
            elif self._digest(before, row) != row["digest"]:
                problems.append(f"row {number} was altered, or moved to another place")
            if noted is not None and noted[0] == number and noted[1] != row["digest"]:
                problems.append(f"row {number} is not the one that was noted: the log was written anew")
            before = row["digest"]
            vouched |= _vouched(row)
        if noted is not None and noted[0] > number:
            problems.append(f"the log ends at row {number}, though row {noted[0]} was noted: it was cut, or an old copy put back")
        problems += self._ends_well(db, number, before) + _history_problems(db, vouched) + _current_problems(db)
        return Verified(number, f"{number}:{before}", tuple(problems))

    def _ends_well(self, db: Connection, number: int, digest: str) -> list[str]:
        told = str(db.execute(sa.select(about.c.value).where(about.c.name == _HEAD)).scalar() or "").split(" ")
        if len(told) != 3 or not hmac.compare_digest(told[2], self._mac(f"{told[0]} {told[1]}")):
            return ["the seal of the log's end is broken"]
        if told[:2] != [str(number), digest]:
            return [f"rows at the end were removed or added: the seal names row {told[0]}, the log ends at row {number}"]
        return []


@dataclass(frozen=True)
class Verified:
    """What the check of a log found.

    Args:
        n_rows: events in the log.
        head: ``NUMBER:DIGEST`` of the last one, to be noted elsewhere.
        problems: sentences; none when nothing was tampered with.
    """

    n_rows: int
    head: str
    problems: tuple[str, ...]


def rows(db: Connection) -> Iterator[dict[str, Any]]:
    """The events in order, `detail` as JSON text."""
    yield from (dict(row) for row in db.execute(sa.select(audit).order_by(audit.c.number)).mappings())


def digest_of(row: Mapping[str, Any]) -> str:
    """SHA-256 of a row of the history, which the audit log vouches for."""
    names = ("number", "at", "by", "role", "case_id", "results", "what", "item", "version", "content")
    return hashlib.sha256(json.dumps([row[name] for name in names]).encode()).hexdigest()


def _vouched(row: Mapping[str, Any]) -> dict[int, str]:
    try:
        detail = json.loads(row["detail"])
        return {int(detail["history"]): str(detail["sha256"])} if "history" in detail else {}
    except (ValueError, KeyError, TypeError):  # an altered row, told already
        return {}


def _history_problems(db: Connection, vouched: Mapping[int, str]) -> list[str]:
    """Rows of the history that are not as the log says."""
    found = {int(row["number"]): digest_of(dict(row)) for row in db.execute(sa.select(history)).mappings()}
    gone = [f"row {number} of the history was removed" for number in sorted(set(vouched) - set(found))]
    foreign = [f"row {number} of the history was added from outside" for number in sorted(set(found) - set(vouched))]
    altered = [f"row {n} of the history was altered" for n in sorted(set(found) & set(vouched)) if found[n] != vouched[n]]
    return [*gone, *foreign, *altered]


def _current_problems(db: Connection) -> list[str]:
    """Decisions and statuses that are not as the history says."""
    last: dict[tuple[str, str, str], Any] = {}
    written: dict[tuple[str, str], Any] = {}
    status: dict[str, str] = {}
    for row in db.execute(sa.select(history).order_by(history.c.number)).mappings():
        content = _content(row)
        wrote = row["what"] in (TEXT_SAVED, TEXT_DROPPED)
        if wrote:
            written[row["case_id"], row["results"]] = content
        elif row["item"]:
            last[row["case_id"], row["results"], row["item"]] = content
        status[row["case_id"]] = "in review" if row["item"] or wrote else str(content.get("status"))
    now = {(r["case_id"], r["results"], r["item"]): dict(r) for r in db.execute(sa.select(decisions)).mappings()}
    others = sorted(key for key in now.keys() | last.keys() if now.get(key) != last.get(key))
    kept = {(r["case_id"], r["results"]): _without(r, "case_id", "results") for r in db.execute(sa.select(texts)).mappings()}
    foreign = sorted(key for key in kept.keys() | written.keys() if kept.get(key) != written.get(key))
    told = {row.case_id: row.status for row in db.execute(sa.select(studies.c.case_id, studies.c.status))}
    turned = sorted(case for case in told.keys() | status.keys() if told.get(case) != status.get(case))
    return [
        *(f"the decision on {item} of study {case} is not as its history says" for case, _, item in others),
        *(f"the report text of study {case} is not as its history says" for case, _ in foreign),
        *(f"the status of study {case} is not as its history says" for case in turned),
    ]


def _without(row: Mapping[Any, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _content(row: Mapping[Any, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(row["content"]))
    except (ValueError, TypeError):  # an altered row, told already
        return {}


def _noted(since: str | None) -> tuple[int, str] | None:
    if since is None:
        return None
    number, _, digest = since.partition(":")
    if not number.isdigit() or len(digest) != 64:
        raise ConfigError(f"a head of the audit log looks like 12:ab01..., not {since!r}; copy it from an earlier check")
    return int(number), digest
