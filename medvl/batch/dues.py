"""What a PACS is owed: objects made of finished studies, each sent once to each target."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from medvl.batch.owner import lives
from medvl.batch.tables import Sending, State, deliveries, note, studies
from medvl.records import Reason

if TYPE_CHECKING:
    from medvl.batch.ledger import Ledger


def enter(db: Connection, case_id: str, targets: Sequence[str]) -> None:
    """Note that a study is to be sent to `targets`; what is entered already stays as it is."""
    known = set(db.execute(sa.select(deliveries.c.target).where(deliveries.c.case_id == case_id)).scalars())
    for target in targets:
        if target not in known:
            db.execute(deliveries.insert().values(case_id=case_id, target=target, state=Sending.waiting))


class Dues:
    """The deliveries of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def owe(self, case_ids: Sequence[str], targets: Sequence[str], *, refused: bool = False) -> None:
        """Studies that are done already are to be sent to `targets` too; sent ones stay, and refused ones unless `refused`."""
        with self._ledger.writing() as db:
            for case_id in case_ids:
                enter(db, case_id, targets)
                if refused:
                    again = (deliveries.c.case_id == case_id) & deliveries.c.target.in_(targets)
                    again &= deliveries.c.state == Sending.refused
                    db.execute(deliveries.update().where(again).values(state=Sending.waiting, not_before=0.0))
                    found = db.execute(sa.select(studies.c.objects).where(studies.c.case_id == case_id)).scalar()
                    if not found:  # nothing could be made: that is tried again as well
                        db.execute(studies.update().where(studies.c.case_id == case_id).values(objects=None))

    def unmade(self, limit: int = 1) -> list[tuple[str, dict[str, Any], dict[str, Any] | None]]:
        """Studies that are done and for which no DICOM objects were made yet: id, source and series."""
        wanted = (studies.c.state == State.done) & studies.c.objects.is_(sa.null())
        with self._ledger.reading() as db:
            query = sa.select(studies.c.case_id, studies.c.source, studies.c.series).where(wanted)
            rows = db.execute(query.order_by(studies.c.position).limit(limit)).all()
        return [(r.case_id, r.source, r.series) for r in rows]

    def made(self, case_id: str, objects: Sequence[Mapping[str, Any]], reason: Reason | None = None) -> None:
        """What was made of a study for a PACS; empty where nothing could be, for a `reason`: then it is sent nowhere."""
        with self._ledger.writing() as db:
            db.execute(studies.update().where(studies.c.case_id == case_id).values(objects=[dict(o) for o in objects]))
            note(db, case_id, "objects made" if reason is None else "no objects", "" if reason is None else reason.code)
            if reason is not None:
                owed = (deliveries.c.case_id == case_id) & (deliveries.c.state == Sending.waiting)
                values = {"state": Sending.refused, "reason": reason.code, "message": reason.message}
                db.execute(deliveries.update().where(owed).values(**values))

    def to_send(self) -> tuple[str, str, list[dict[str, Any]]] | None:
        """A delivery that is due and whose objects are made: id, target and objects. It belongs to this process from now on."""
        now = time.time()
        with self._ledger.writing() as db:
            due = (deliveries.c.state == Sending.waiting) & (deliveries.c.not_before <= now)
            query = (
                sa.select(deliveries, studies.c.objects)
                .join(studies, studies.c.case_id == deliveries.c.case_id)
                .where(due & (studies.c.state == State.done) & studies.c.objects.is_not(sa.null()))
                .order_by(studies.c.position)
            )
            for row in db.execute(query).mappings():
                alive = lives(row["owner"]) if row["owner"] else False
                if row["objects"] is None or alive or (alive is None and row["lease_until"] > now):
                    continue
                mine = (deliveries.c.case_id == row["case_id"]) & (deliveries.c.target == row["target"])
                values = {"owner": self._ledger.owner, "lease_until": now + self._ledger.lease_s, "attempts": row["attempts"] + 1}
                db.execute(deliveries.update().where(mine).values(**values))
                return row["case_id"], row["target"], row["objects"]
        return None

    def sent(self, case_id: str, target: str, state: Sending, reason: str = "", message: str = "", wait_s: float = 0.0) -> None:
        """How sending went: sent, refused for good, or waiting for another try after `wait_s`."""
        now = time.time()
        values = {"state": state, "reason": reason, "message": message, "owner": None, "not_before": now + wait_s}
        values |= {"sent_at": now} if state == Sending.sent else {}
        with self._ledger.writing() as db:
            mine = (deliveries.c.case_id == case_id) & (deliveries.c.target == target)
            db.execute(deliveries.update().where(mine).values(**values))
            note(db, case_id, f"delivery {state}", reason)

    def rows(self) -> list[dict[str, Any]]:
        """All deliveries."""
        with self._ledger.reading() as db:
            return [dict(r) for r in db.execute(sa.select(deliveries).order_by(deliveries.c.case_id)).mappings()]
