"""The worklist's rows: one line a study, kept in memory and renewed only where a file or the ledger changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from medvl.batch.tables import State, studies
from medvl.store import open_engine

from .results import parse_study, stamp_of, study_folders
from .study import Status, Study
from .wording import finding_name, headline, spoken

URGENCY, ABSTENTION, AGE = 60.0, 25.0, 15.0
UNCALIBRATED = 0.5
ABSTENTIONS_FULL, AGE_FULL_H = 5, 72.0
RESCAN_S = 1.0
SERVER_S = 5.0  # between questions to a ledger on a server
_NOT_READ = ("skipped", "failed", "unreadable", "quarantined")


@dataclass(frozen=True, slots=True)
class Row:
    """What the worklist tells of a study.

    Args:
        case_id: keyed hash.
        status: how inference ended, or where the ledger says it is.
        line: counts and top finding, or the reason why there are none.
        present, undecided: how many findings.
        urgency: highest score of a present finding, in [0, 1]; an uncalibrated one counts half.
        top, region, score: of the finding to see first.
        since: when the answers were made or the study was queued, seconds since 1970.
        words: what the search looks at, lower case.
    """

    case_id: str
    status: Status
    line: str
    present: int = 0
    undecided: int = 0
    urgency: float = 0.0
    top: str = ""
    region: str = ""
    score: float | None = None
    since: float = 0.0
    words: str = ""

    def priority(self, now: float) -> float:
        """From 0 to 100: how soon a person should look; a study without an answer has abstained from all of it."""
        if self.status == "waiting":
            return 0.0
        abstained = 1.0 if self.status in _NOT_READ else min(self.undecided, ABSTENTIONS_FULL) / ABSTENTIONS_FULL
        waited = min(max(now - self.since, 0.0) // 3600, AGE_FULL_H) / AGE_FULL_H
        return URGENCY * self.urgency + ABSTENTION * abstained + AGE * waited


def row_of(study: Study, written: float) -> Row:
    """The row of a study whose findings.json was written at `written`, which is its age where the file tells none."""
    line = headline(study)
    told = [f"{f.label} {f.finding} {f.region} {spoken(f.region)}" for f in study.findings if f.verdict != "absent"]
    row = Row(study.case_id, study.status, line, since=_seconds(study.made_at, written))
    words = " ".join((study.case_id, study.status, line, *told)).lower()
    if study.status != "done" or study.top is None:
        return replace(row, words=words)
    scores = [(f.score or 0.0) * (1.0 if f.calibrated else UNCALIBRATED) for f in study.findings if f.verdict == "present"]
    return replace(
        row,
        present=study.count("present"),
        undecided=study.count("undecided"),
        urgency=max(scores, default=0.0),
        top=finding_name(study.top),
        region=spoken(study.top.region),
        score=study.top.score,
        words=words,
    )


def _seconds(made_at: str, written: float) -> float:
    try:
        told = datetime.fromisoformat(made_at)
    except ValueError:
        return written
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


def answered(row: Row | None) -> bool:
    """Whether there is something to read; answers that are being made anew can be read meanwhile."""
    return row is not None and row.status != "unreadable"


class Index:
    """Rows of one results folder, for all sessions of the process.

    Args:
        root: the results folder.
        ledger: address of the server that keeps the ledger; empty for the one in the folder.
        clock: seconds. The folder is looked at again `RESCAN_S` after the last look; later where looking takes long, so that it
            takes a twentieth of the time at most.
    """

    def __init__(self, root: Path, ledger: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.root, self._clock = root, clock
        self._server = open_engine(ledger) if ledger else None
        self._server_due = float("-inf")
        self._lock = threading.Lock()
        self._due = float("-inf")
        self._read: dict[str, tuple[tuple[int, int] | None, Row]] = {}
        self._ledger_stamp: tuple[int, ...] = ()
        self._ledger: dict[str, Row] = {}
        self._rows: tuple[Row, ...] = ()

    def rows(self) -> tuple[Row, ...]:
        """All studies by case id. The same tuple is returned as long as nothing changed."""
        with self._lock:
            begun = self._clock()
            if begun >= self._due:
                self._look()
                ended = self._clock()
                self._due = ended + max(RESCAN_S, 20 * (ended - begun))
            return self._rows

    def _look(self) -> None:
        read: dict[str, tuple[tuple[int, int] | None, Row]] = {}
        for folder in study_folders(self.root):
            stamp, known = stamp_of(folder), self._read.get(folder.name)
            if known is None or known[0] != stamp:
                known = (stamp, row_of(parse_study(folder), stamp[0] / 1e9 if stamp else time.time()))
            read[folder.name] = known
        ledger = self._from_ledger()
        if read == self._read and ledger == self._ledger:
            return
        self._read, self._ledger = read, ledger
        rows = {case_id: row for case_id, (_, row) in read.items()}
        rows |= {
            case_id: row for case_id, row in ledger.items() if row.status == "quarantined" or not answered(rows.get(case_id))
        }
        self._rows = tuple(rows[case_id] for case_id in sorted(rows))

    def _from_ledger(self) -> dict[str, Row]:
        """Studies that wait or were set aside; asked when a file of the ledger changed, of a server every few seconds."""
        if self._server is not None:
            return self._from_server(self._server)
        files = [self.root / f"ledger.sqlite{tail}" for tail in ("", "-wal")]
        stamp = tuple(n for path in files if path.exists() for n in (path.stat().st_mtime_ns, path.stat().st_size))
        if stamp == self._ledger_stamp:
            return self._ledger
        try:
            rows = ledger_rows(files[0])
        except sa.exc.DatabaseError:  # locked or of another make: the rows known so far stay, and the next look asks again
            return self._ledger
        self._ledger_stamp = stamp
        return rows

    def _from_server(self, server: sa.Engine) -> dict[str, Row]:
        if self._clock() >= self._server_due:
            self._server_due = self._clock() + SERVER_S
            try:
                return rows_of(server)
            except sa.exc.DBAPIError:  # away for now: the rows known so far stay
                return self._ledger
        return self._ledger


def ledger_rows(path: Path) -> dict[str, Row]:
    """Studies of a ledger that have no answers of their own making yet, by case id; nothing is written to it.

    Raises:
        sqlalchemy.exc.DatabaseError: it is no ledger, or it is locked.
    """
    if not path.exists():
        return {}
    engine = sa.create_engine(f"sqlite:///file:{path.resolve()}?mode=ro&uri=true", connect_args={"timeout": 2})
    try:
        return rows_of(engine)
    finally:
        engine.dispose()


def rows_of(engine: sa.Engine) -> dict[str, Row]:
    """The same of a ledger that is open.

    Raises:
        sqlalchemy.exc.DBAPIError: it cannot be asked now.
    """
    columns = (studies.c.case_id, studies.c.state, studies.c.reason, studies.c.message, studies.c.queued_at)
    wanted = studies.c.state.in_([str(s) for s in (State.queued, State.running, State.quarantined)])
    with engine.connect() as db:
        found = db.execute(sa.select(*columns).where(wanted)).all()
    return {case_id: _ledger_row(case_id, state, reason, message, since) for case_id, state, reason, message, since in found}


def _ledger_row(case_id: str, state: str, reason: str, message: str, since: float) -> Row:
    if state == State.quarantined:
        line = message or reason or "no reason was recorded"
        return Row(case_id, "quarantined", line, since=since, words=f"{case_id} quarantined {reason} {line}".lower())
    doing = "being read by inference" if state == State.running else "waits for inference"
    line = f"{doing}: {message}" if message else doing
    return Row(case_id, "waiting", line, since=since, words=f"{case_id} waiting {reason} {line}".lower())
