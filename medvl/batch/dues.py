"""What a PACS is owed: objects made of finished studies in the way that is asked for, each sent once to each target."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from medvl.batch.owner import held
from medvl.batch.tables import Sending, State, delivered, deliveries, note, studies
from medvl.records import Reason

if TYPE_CHECKING:
    from medvl.batch.ledger import Ledger

_OTHERWISE = Reason("made_otherwise", "its objects are made in another way by now; the command that asked for it sends it")


@dataclass(frozen=True)
class Unmade:
    """A study whose objects the holder now makes."""

    case_id: str
    source: dict[str, Any]
    series: dict[str, Any] | None


@dataclass(frozen=True)
class Due:
    """A delivery that the holder now makes: all `objects` of a study, of which the target still `lacks` some or all."""

    case_id: str
    target: str
    objects: list[dict[str, Any]]
    lacks: list[dict[str, Any]]


def lacking(way: str | None) -> sa.ColumnElement[bool]:
    """Of a study: it lacks objects that a run making them in a `way` is to make."""
    ours = studies.c.way.is_(sa.null()) | (studies.c.way == way)
    return studies.c.objects.is_(sa.null()) & ours & sa.literal(way is not None)


def enter(db: Connection, case_id: str, targets: Sequence[str], way: str | None) -> None:
    """Note that a study is to be sent to `targets`; what is entered already for objects made in the same way stays as it is."""
    rows = db.execute(sa.select(deliveries.c.target, deliveries.c.way).where(deliveries.c.case_id == case_id)).all()
    known = {row.target: row.way for row in rows}
    for target in targets:
        if target not in known:
            db.execute(deliveries.insert().values(case_id=case_id, target=target, way=way, state=Sending.waiting))
        elif known[target] != way:  # whoever sends the former ones just now stays their owner
            row = (deliveries.c.case_id == case_id) & (deliveries.c.target == target)
            anew = {"way": way, "state": Sending.waiting, "attempts": 0, "not_before": 0.0, "sent_at": None}
            db.execute(deliveries.update().where(row).values(**anew, reason="", message=""))


class Dues:
    """The deliveries of a ledger.

    Args:
        ledger: which.
        way: in which objects are made (`marks.way_of`); those made in another one are neither kept nor sent. None makes none.
    """

    def __init__(self, ledger: Ledger, way: str | None = None) -> None:
        self._ledger, self._way = ledger, way

    def owe(self, case_ids: Sequence[str], targets: Sequence[str], *, refused: bool = False) -> None:
        """Studies that are done already are to be sent to `targets` too; sent ones stay, and refused ones unless `refused`.

        Objects that were made in another way count as not made.
        """
        with self._ledger.writing() as db:
            for case_id in case_ids:
                self._outdate(db, case_id)
                enter(db, case_id, targets, self._way)
                if refused:
                    again = self._of(case_id) & deliveries.c.target.in_(targets) & (deliveries.c.state == Sending.refused)
                    db.execute(deliveries.update().where(again).values(state=Sending.waiting, not_before=0.0))
                    found = db.execute(sa.select(studies.c.objects).where(studies.c.case_id == case_id)).scalar()
                    if not found:  # nothing could be made: that is tried again as well
                        db.execute(studies.update().where(studies.c.case_id == case_id).values(objects=None))

    def _outdate(self, db: Connection, case_id: str) -> None:
        """Objects made in another way are to be made anew; what is still owed of them waits for a run that makes such."""
        if self._way is None:
            return
        other = (studies.c.case_id == case_id) & studies.c.way.is_distinct_from(self._way)
        if db.execute(studies.update().where(other).values(way=self._way, objects=None)).rowcount:
            owed = (deliveries.c.case_id == case_id) & (deliveries.c.state == Sending.waiting)
            owed &= deliveries.c.way.is_distinct_from(self._way)
            values = {"reason": _OTHERWISE.code, "message": _OTHERWISE.message}
            db.execute(deliveries.update().where(owed).values(**values))

    def unmade(self, limit: int = 1) -> list[str]:
        """Ids of studies that are done and lack objects, whoever makes them just now."""
        with self._ledger.reading() as db:
            query = sa.select(studies.c.case_id).where((studies.c.state == State.done) & lacking(self._way))
            return list(db.execute(query.order_by(studies.c.position).limit(limit)).scalars())

    def take(self, leave: Collection[str] = ()) -> Unmade | None:
        """A study whose objects nobody makes and, made in another way, nobody sends: this process makes them from now on.

        Args:
            leave: studies to pass over.
        """
        now = time.time()
        with self._ledger.writing() as db:
            wanted = (studies.c.state == State.done) & lacking(self._way)
            query = sa.select(studies.c.case_id, studies.c.owner, studies.c.lease_until).where(wanted)
            for row in db.execute(query.order_by(studies.c.position)).all():
                if row.case_id in leave or held(row.owner, row.lease_until, now) or _in_transit(db, row.case_id, now):
                    continue
                this = studies.c.case_id == row.case_id
                mine = {"way": self._way, "owner": self._ledger.owner, "lease_until": now + self._ledger.lease_s}
                db.execute(studies.update().where(this).values(**mine))
                found = db.execute(sa.select(studies.c.source, studies.c.series).where(this)).one()
                return Unmade(row.case_id, found.source, found.series)
        return None

    def made(self, case_id: str, objects: Sequence[Mapping[str, Any]], reason: Reason | None = None) -> bool:
        """What was made of a study for a PACS; empty where nothing could be, for a `reason`: then it is sent nowhere.

        False, and nothing is noted, when the study changed meanwhile or its objects are wanted in another way.
        """
        with self._ledger.writing() as db:
            mine = (studies.c.case_id == case_id) & (studies.c.owner == self._ledger.owner) & (studies.c.state == State.done)
            mine &= studies.c.way == self._way
            if not db.execute(studies.update().where(mine).values(objects=[dict(o) for o in objects], owner=None)).rowcount:
                return False
            note(db, case_id, "objects made" if reason is None else "no objects", "" if reason is None else reason.code)
            if reason is not None:
                owed = self._of(case_id) & (deliveries.c.state == Sending.waiting)
                values = {"state": Sending.refused, "reason": reason.code, "message": reason.message}
                db.execute(deliveries.update().where(owed).values(**values))
        return True

    def put_back(self, case_id: str) -> None:
        """A study whose objects this process took and did not make: others may."""
        with self._ledger.writing() as db:
            mine = (studies.c.case_id == case_id) & (studies.c.owner == self._ledger.owner) & (studies.c.state == State.done)
            db.execute(studies.update().where(mine).values(owner=None))

    def to_send(self) -> Due | None:
        """A delivery that is due and whose objects are made. It belongs to this process from now on.

        One whose target has every object already, from before they were made anew, is sent without further ado.
        """
        now = time.time()
        with self._ledger.writing() as db:
            query = sa.select(deliveries, studies.c.objects).join(studies, studies.c.case_id == deliveries.c.case_id)
            query = query.where(self._sendable & (deliveries.c.not_before <= now)).order_by(studies.c.position)
            for row in db.execute(query).mappings().all():
                if row["objects"] is None or held(row["owner"], row["lease_until"], now):
                    continue
                had = _had(db, row["case_id"], row["target"])
                lacks = [made for made in row["objects"] if made["sha256"] not in had]
                due = Due(row["case_id"], row["target"], row["objects"], lacks)
                if due.objects and not due.lacks:
                    values = {"state": Sending.sent, "reason": "", "message": "", "owner": None, "sent_at": now}
                    db.execute(deliveries.update().where(_this(due)).values(**values))
                    continue
                values = {"owner": self._ledger.owner, "lease_until": now + self._ledger.lease_s, "attempts": row["attempts"] + 1}
                db.execute(deliveries.update().where(_this(due)).values(**values))
                return due
        return None

    def waiting(self) -> bool:
        """Whether a delivery waits whose objects are made."""
        with self._ledger.reading() as db:
            joined = deliveries.join(studies, studies.c.case_id == deliveries.c.case_id)
            query = sa.select(deliveries.c.case_id).select_from(joined).where(self._sendable).limit(1)
            return db.execute(query).first() is not None

    def sent(self, due: Due, state: Sending, reason: str = "", message: str = "", wait_s: float = 0.0) -> None:
        """How sending went: sent, refused for good, or waiting for another try after `wait_s`."""
        now = time.time()
        values = {"state": state, "reason": reason, "message": message, "owner": None, "not_before": now + wait_s}
        values |= {"sent_at": now} if state == Sending.sent else {}
        with self._ledger.writing() as db:
            if state == Sending.sent:
                for digest in {str(made["sha256"]) for made in due.objects} - _had(db, due.case_id, due.target):
                    row = {"case_id": due.case_id, "target": due.target, "sha256": digest, "at": now}
                    db.execute(delivered.insert().values(**row))
            self._sent(db, due, values)
            note(db, due.case_id, f"delivery {state}", reason)

    def _sent(self, db: Connection, due: Due, values: Mapping[str, Any]) -> None:
        """Note the end of a try; where other objects are owed by now, only that nobody sends any more."""
        mine = _this(due) & (deliveries.c.owner == self._ledger.owner)
        if not db.execute(deliveries.update().where(mine & (deliveries.c.way == self._way)).values(**values)).rowcount:
            db.execute(deliveries.update().where(mine).values(owner=None))

    def unmake(self, due: Due) -> None:
        """The files are not those that were made: they are made anew before anything is sent."""
        with self._ledger.writing() as db:
            this = (studies.c.case_id == due.case_id) & (studies.c.way == self._way)
            db.execute(studies.update().where(this).values(objects=None))
            self._sent(db, due, {"owner": None})
            note(db, due.case_id, "objects changed")

    def rows(self) -> list[dict[str, Any]]:
        """All deliveries."""
        with self._ledger.reading() as db:
            return [dict(r) for r in db.execute(sa.select(deliveries).order_by(deliveries.c.case_id)).mappings()]

    def _of(self, case_id: str) -> sa.ColumnElement[bool]:
        """Of a delivery: it is of this study, and of objects made in our way."""
        return (deliveries.c.case_id == case_id) & (deliveries.c.way == self._way)

    @property
    def _sendable(self) -> sa.ColumnElement[bool]:
        """Of a delivery and its study: it waits, and its objects are made in our way."""
        ours = (deliveries.c.way == self._way) & (studies.c.way == self._way) & sa.literal(self._way is not None)
        made = (studies.c.state == State.done) & studies.c.objects.is_not(sa.null())
        return ours & made & (deliveries.c.state == Sending.waiting)


def _this(due: Due) -> sa.ColumnElement[bool]:
    return (deliveries.c.case_id == due.case_id) & (deliveries.c.target == due.target)


def _had(db: Connection, case_id: str, target: str) -> set[str]:
    """SHA-256 of the objects of a study that a target has got."""
    mine = (delivered.c.case_id == case_id) & (delivered.c.target == target)
    return set(db.execute(sa.select(delivered.c.sha256).where(mine)).scalars())


def _in_transit(db: Connection, case_id: str, now: float) -> bool:
    """Whether somebody is sending files of this study, which must not change meanwhile."""
    query = sa.select(deliveries.c.owner, deliveries.c.lease_until).where(deliveries.c.case_id == case_id)
    return any(held(row.owner, row.lease_until, now) for row in db.execute(query.where(deliveries.c.owner.is_not(sa.null()))))
