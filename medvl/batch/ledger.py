"""One durable record a study, shared by all who work on a results folder: nothing is lost, and no study has two owners.

An embedded SQLite file in WAL mode by default; a PostgreSQL address for workers on several machines. Both go through
SQLAlchemy, so there is one way of doing each thing. Every change is one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from medvl.batch.dues import enter, lacking
from medvl.batch.marks import By
from medvl.batch.owner import held, me
from medvl.batch.tables import ENDS, Sending, State, deliveries, events, note, studies
from medvl.batch.upgrade import made_ready
from medvl.store import open_engine

LEASE_S = 60.0
DEATHS = 10  # runs that may die with a study in hand, for each attempt that the study itself may spoil
_DIED = "its run died"


@dataclass(frozen=True)
class Case:
    """A study as it was found.

    Args:
        case_id: keyed hash.
        source: where it lies; what a reader needs to find it again. May hold identifiers.
        series: record of the series to use, None where it is known only once the study was fetched.
        fingerprint: of what was found; another one means that the study changed.
        state: an end where finding it already told that it cannot be used.
        reason, message: of such an end.
    """

    case_id: str
    source: Mapping[str, Any]
    series: Mapping[str, Any] | None = None
    fingerprint: str | None = None
    state: State = State.queued
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Claimed:
    """A study that the holder now works on."""

    case_id: str
    source: dict[str, Any]
    series: dict[str, Any] | None
    attempts: int


@dataclass(frozen=True)
class Ended:
    """How a study ended, and what is known of it then; `source` and `series` where reading told more of them."""

    state: State
    reason: str = ""
    message: str = ""
    pixels: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    source: Mapping[str, Any] | None = None
    series: Mapping[str, Any] | None = None


class Ledger:
    """The ledger of one results folder, opened by one process; threads may share it.

    Args:
        place: file of the embedded database (made with mode 0600), or the address of a server, ``postgresql://...``.
        lease_s: how long a study belongs to a holder who gives no sign of life.

    Raises:
        ConfigError: a ledger of a version that is not known, or a server without its driver.
    """

    def __init__(self, place: Path | str, *, lease_s: float = LEASE_S) -> None:
        self.owner, self.lease_s = me(), lease_s
        self._engine = open_engine(place)
        with self.writing() as db:
            made_ready(db)

    def __enter__(self) -> Ledger:
        """Opened."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the connections."""
        self._engine.dispose()

    def reading(self) -> Connection:
        """A connection to look with."""
        return self._engine.connect()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that holds the right to write from its start."""
        with self._engine.execution_options(writes=True).begin() as db:
            if db.dialect.name == "postgresql":
                db.execute(sa.text("SELECT pg_advisory_xact_lock(7305241)"))
            yield db

    def add(self, cases: Sequence[Case], by: By, *, again: Sequence[State] = (State.skipped, State.failed)) -> list[str]:
        """Enter studies as they were found; returns the ids of those that are done already and stay as they are.

        Args:
            cases: found.
            by: who is to answer; a study done by another one is queued again.
            again: ends that are tried anew although nothing changed.
        """
        kept: list[str] = []
        now = time.time()
        with self.writing() as db:
            top = db.execute(sa.select(sa.func.coalesce(sa.func.max(studies.c.position), 0))).scalar_one()
            for number, case in enumerate(cases, start=1):
                known = db.execute(sa.select(studies).where(studies.c.case_id == case.case_id)).mappings().first()
                if known is None:
                    db.execute(studies.insert().values(_row(case, by, now) | {"position": top + number}))
                elif not _changed(known, case, by) and known["state"] not in again:
                    kept += [case.case_id] if known["state"] == State.done else []
                    values = {"source": dict(case.source), **by.columns()}  # ledgers of before did not tell the bundle
                    db.execute(studies.update().where(studies.c.case_id == case.case_id).values(**values))
                elif known["state"] != State.running:
                    db.execute(studies.update().where(studies.c.case_id == case.case_id).values(_row(case, by, now)))
        return kept

    def claim(self, *, attempts: int, by: By | None = None) -> Claimed | None:
        """The next study that nobody works on; it then belongs to this process until it ends, or its lease does.

        Args:
            attempts: a study with which so many runs died, `DEATHS` times over, is quarantined instead.
            by: who answers it, noted so that the record tells who did even where another run had queued it.
        """
        now = time.time()
        with self.writing() as db:
            self._free(db, now, attempts)
            free = (studies.c.state == State.queued) & (studies.c.not_before <= now)
            row = db.execute(sa.select(studies).where(free).order_by(studies.c.position).limit(1)).mappings().first()
            if row is None:
                return None
            db.execute(
                studies.update()
                .where(studies.c.case_id == row["case_id"])
                .values(
                    state=State.running,
                    owner=self.owner,
                    lease_until=now + self.lease_s,
                    attempts=row["attempts"] + 1,
                    started_at=now,
                    **(by.columns() if by is not None else {}),
                )
            )
            return Claimed(row["case_id"], row["source"], row["series"], row["attempts"] + 1)

    def _free(self, db: Connection, now: float, attempts: int) -> None:
        """Take studies back from holders that died, or of which nothing was heard; those that killed too many are set aside."""
        others = sa.select(studies).where((studies.c.state == State.running) & (studies.c.owner != self.owner))
        for row in db.execute(others).mappings().all():
            if not held(row["owner"], row["lease_until"], now):
                self._orphaned(db, row, DEATHS * attempts)

    def _orphaned(self, db: Connection, row: Any, deaths: int) -> None:
        """Take back a study whose run died, hardly its fault as child processes read it; many deaths set it aside."""
        since = (events.c.case_id == row["case_id"]) & (events.c.what == _DIED) & (events.c.at >= row["queued_at"])
        note(db, row["case_id"], _DIED, "worker_died")
        values: dict[str, Any] = {"state": State.queued, "owner": None, "attempts": row["attempts"] - 1, "not_before": 0.0}
        if db.execute(sa.select(sa.func.count()).select_from(events).where(since)).scalar_one() >= deaths:
            told = {"reason": "worker_died", "message": "many runs died while they had it in hand; nothing was delivered"}
            values |= {"state": State.quarantined, "ended_at": time.time(), **told}
            note(db, row["case_id"], State.quarantined, "worker_died")
        db.execute(studies.update().where(studies.c.case_id == row["case_id"]).values(**values))

    def _back(self, db: Connection, row: Any, attempts: int, reason: str, message: str) -> State:
        tried_out = row["attempts"] >= attempts
        state = State.quarantined if tried_out else State.queued
        values: dict[str, Any] = {"state": state, "owner": None, "reason": reason, "message": message}
        values |= {"ended_at": time.time()} if tried_out else {"not_before": 0.0}
        db.execute(studies.update().where(studies.c.case_id == row["case_id"]).values(**values))
        note(db, row["case_id"], "quarantined" if tried_out else "queued again", reason)
        return state

    def beat(self) -> None:
        """Say that this process lives: its studies and deliveries stay its own."""
        until = time.time() + self.lease_s
        with self.writing() as db:
            db.execute(studies.update().where(studies.c.owner == self.owner).values(lease_until=until))
            ours = (deliveries.c.owner == self.owner) & (deliveries.c.state == Sending.waiting)
            db.execute(deliveries.update().where(ours).values(lease_until=until))

    def end(self, case_id: str, how: Ended, targets: Sequence[str] = (), way: str | None = None) -> bool:
        """A study ends, and with it is entered what has to be made and sent; False when it no longer belongs to this process.

        Args:
            case_id: of the study.
            how: it ended.
            targets: to which its objects are to be sent.
            way: in which they are to be made, None where none are.
        """
        with self.writing() as db:
            mine = (studies.c.case_id == case_id) & self._in_hand
            values = {
                "state": how.state,
                "reason": how.reason,
                "message": how.message,
                "pixels": how.pixels,
                "timings": dict(how.timings),
                "owner": None,
                "way": way,
                "objects": None,
                "ended_at": time.time(),
            }
            values |= {"source": dict(how.source)} if how.source is not None else {}
            values |= {"series": dict(how.series)} if how.series is not None else {}
            if db.execute(studies.update().where(mine).values(**values)).rowcount == 0:
                return False
            note(db, case_id, how.state, how.reason)
            if how.state == State.done:
                db.execute(deliveries.delete().where(deliveries.c.case_id == case_id))
                enter(db, case_id, targets, way)
        return True

    def back(self, case_id: str, attempts: int, reason: str, message: str) -> State:
        """Put a study back into the queue, or set it aside when it was begun `attempts` times; returns where it is now."""
        with self.writing() as db:
            row = db.execute(sa.select(studies).where(studies.c.case_id == case_id)).mappings().one()
            return self._back(db, row, attempts, reason, message)

    def later(self, case_id: str, reason: str, message: str, wait_s: float) -> None:
        """Put a study back for a while for a reason that is not its own, such as a PACS that is down: this try does not count."""
        with self.writing() as db:
            values: dict[str, Any] = {"state": State.queued, "owner": None, "reason": reason, "message": message}
            values |= {"attempts": studies.c.attempts - 1, "not_before": time.time() + wait_s}
            mine = (studies.c.case_id == case_id) & self._in_hand
            db.execute(studies.update().where(mine).values(**values))
            note(db, case_id, "queued again", reason)

    def forget(self, case_id: str) -> bool:
        """Take out what ended without a result; whether there was such a thing."""
        with self.writing() as db:
            ended = studies.c.state.in_([str(state) for state in ENDS if state != State.done])
            gone = db.execute(studies.delete().where((studies.c.case_id == case_id) & ended)).rowcount > 0
            if gone:
                note(db, case_id, "superseded")
        return gone

    def anew(self, case_ids: Sequence[str]) -> None:
        """Queue studies again that had ended, such as those whose results are gone."""
        with self.writing() as db:
            ended = studies.c.case_id.in_(case_ids) & studies.c.state.in_([str(state) for state in ENDS])
            db.execute(studies.update().where(ended).values(state=State.queued, attempts=0, objects=None, ended_at=None))

    def untouched(self, case_ids: Sequence[str]) -> None:
        """Put studies back as if they had not been begun: the run stops for a reason that is not theirs."""
        with self.writing() as db:
            mine = studies.c.case_id.in_(case_ids) & self._in_hand
            db.execute(studies.update().where(mine).values(state=State.queued, owner=None, attempts=studies.c.attempts - 1))

    def studies(self) -> list[dict[str, Any]]:
        """All studies in the order in which they were found."""
        with self.reading() as db:
            return [dict(r) for r in db.execute(sa.select(studies).order_by(studies.c.position)).mappings()]

    def events(self) -> list[dict[str, Any]]:
        """What happened, in order."""
        with self.reading() as db:
            return [dict(r) for r in db.execute(sa.select(events).order_by(events.c.number)).mappings()]

    def counts(self) -> dict[str, int]:
        """Studies by state."""
        with self.reading() as db:
            rows = db.execute(sa.select(studies.c.state, sa.func.count()).group_by(studies.c.state)).all()
        return dict.fromkeys(map(str, State), 0) | {str(state): n for state, n in rows}

    def open_ones(self, case_ids: Sequence[str], way: str | None) -> bool:
        """Whether any of these studies has not ended or, where objects are made in a `way`, lacks them or waits to be sent."""
        with self.reading() as db:
            unmade = (studies.c.state == State.done) & lacking(way)
            unfinished = studies.c.state.not_in([str(state) for state in ENDS]) | unmade
            under_way = studies.c.case_id.in_(case_ids) & unfinished
            owed = deliveries.c.case_id.in_(case_ids) & (deliveries.c.state == Sending.waiting)
            owed &= deliveries.c.way == (way or "")
            return bool(db.execute(sa.select(sa.exists().where(under_way) | sa.exists().where(owed))).scalar())

    def to_do(self) -> bool:
        """Whether a study is queued or belongs to this process: one question, for a study may go back to the queue meanwhile."""
        with self.reading() as db:
            return bool(db.execute(sa.select(sa.exists().where((studies.c.state == State.queued) | self._in_hand))).scalar())

    def mine(self) -> list[str]:
        """Ids of the studies that belong to this process."""
        with self.reading() as db:
            return list(db.execute(sa.select(studies.c.case_id).where(self._in_hand)).scalars())

    @property
    def _in_hand(self) -> sa.ColumnElement[bool]:
        """Of a study: this process works on it."""
        return (studies.c.owner == self.owner) & (studies.c.state == State.running)


def _row(case: Case, by: By, now: float) -> dict[str, Any]:
    """A study that starts anew."""
    return {
        "case_id": case.case_id,
        "state": case.state,
        "attempts": 0,
        "source": dict(case.source),
        "series": dict(case.series) if case.series is not None else None,
        "fingerprint": case.fingerprint,
        **by.columns(),
        "reason": case.reason,
        "message": case.message,
        "owner": None,
        "not_before": 0.0,
        "queued_at": now,
        "started_at": None,
        "ended_at": now if case.state in ENDS else None,
        "timings": None,
        "pixels": None,
        "way": None,
        "objects": None,
    }


def _changed(known: Any, case: Case, by: By) -> bool:
    same = case.fingerprint is None or known["fingerprint"] is None or known["fingerprint"] == case.fingerprint
    return not same or known["answers"] != by.answers
