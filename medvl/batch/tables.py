"""The tables of the ledger, the same in SQLite and in PostgreSQL."""

from __future__ import annotations

import time
from enum import StrEnum

from sqlalchemy import JSON, Column, Float, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.engine import Connection

SCHEMA = 2


class State(StrEnum):
    """Where a study is. The first two are under way; the others are ends."""

    queued = "queued"
    running = "running"
    done = "done"
    skipped = "skipped"
    failed = "failed"
    quarantined = "quarantined"


ENDS = (State.done, State.skipped, State.failed, State.quarantined)


class Sending(StrEnum):
    """Where the delivery of a study to one target is."""

    waiting = "waiting"
    sent = "sent"
    refused = "refused"


metadata = MetaData()
_JSON = JSON(none_as_null=True)

about = Table("about", metadata, Column("name", String(40), primary_key=True), Column("value", Text, nullable=False))

studies = Table(
    "studies",
    metadata,
    Column("case_id", String(32), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("source", _JSON, nullable=False),  # where it lies: may hold paths and UIDs
    Column("series", _JSON),  # record of the series to use, free of identifiers
    Column("fingerprint", String(64)),  # of what was found at that place
    Column("answers", String(64), nullable=False),  # of bundle, questions and options that change answers
    Column("bundle", String(64)),  # SHA-256 of the bundle that answers or answered
    Column("contract", String(64)),  # hash of its preprocessing contract
    Column("reason", String(64), nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Column("pixels", String(64)),  # SHA-256 of the HU that were read
    Column("way", Text),  # in which objects for a PACS are made, see `marks.way_of`
    Column("objects", _JSON),  # what was made in that way; null until it is
    Column("owner", String(200)),  # who works on it, or makes its objects
    Column("lease_until", Float, nullable=False, default=0.0),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("queued_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("timings", _JSON),
    Index("studies_by_state", "state", "position"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("case_id", String(32), primary_key=True),
    Column("target", String(300), primary_key=True),
    Column("way", Text),  # in which the objects to send are made; others are not sent
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("reason", String(64), nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Column("owner", String(200)),
    Column("lease_until", Float, nullable=False, default=0.0),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("sent_at", Float),
)

delivered = Table(
    "delivered",
    metadata,
    Column("case_id", String(32), primary_key=True),
    Column("target", String(300), primary_key=True),
    Column("sha256", String(64), primary_key=True),  # of an object that the target has
    Column("at", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("case_id", String(32), nullable=False),
    Column("what", String(40), nullable=False),
    Column("reason", String(64), nullable=False, default=""),
)


def note(db: Connection, case_id: str, what: str, reason: str = "") -> None:
    """Add to the events what happened to a study."""
    db.execute(events.insert().values(at=time.time(), case_id=case_id, what=str(what), reason=reason))
