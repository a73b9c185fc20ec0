"""The tables of `reviews.sqlite`. `history` and `audit` are append-only: triggers refuse every change of a row."""

from __future__ import annotations

from sqlalchemy import DDL, Column, Float, Integer, MetaData, String, Table, Text, event

SCHEMA = 2
READABLE = ("1", "2")  # 1 had no report texts; it is brought up to date when it is opened

TEXT_SAVED, TEXT_DROPPED = "report text saved", "report text taken back"

metadata = MetaData()

about = Table("about", metadata, Column("name", String(40), primary_key=True), Column("value", Text, nullable=False))

studies = Table(
    "studies",
    metadata,
    Column("case_id", String(64), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("results", String(64), nullable=False),  # SHA-256 of the findings.json that the status is about
    Column("bundle", String(64), nullable=False),  # SHA-256 of the bundle that made it
    Column("comment", Text, nullable=False, default=""),
    Column("by", String(200), nullable=False),
    Column("role", String(40), nullable=False),
    Column("at", Float, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("case_id", String(64), primary_key=True),
    Column("results", String(64), primary_key=True),
    Column("item", String(300), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("choice", String(16), nullable=False),
    Column("presence", String(16), nullable=False),
    Column("finding", String(200), nullable=False),
    Column("label", Text, nullable=False),
    Column("region", String(100), nullable=False),
    Column("said", String(16), nullable=False),  # the model's verdict; empty where it said nothing
    Column("asked_of", String(100), nullable=False),  # region that the model answered for; empty where it said nothing
    Column("bundle", String(64), nullable=False),
    Column("comment", Text, nullable=False),
    Column("by", String(200), nullable=False),
    Column("role", String(40), nullable=False),
    Column("at", Float, nullable=False),
)

texts = Table(
    "texts",
    metadata,
    Column("case_id", String(64), primary_key=True),
    Column("results", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("text", Text, nullable=False),  # empty where it was taken back
    Column("proposed", Text, nullable=False),  # what software wrote
    Column("bundle", String(64), nullable=False),
    Column("by", String(200), nullable=False),
    Column("role", String(40), nullable=False),
    Column("at", Float, nullable=False),
)

times = Table(
    "times",
    metadata,
    Column("case_id", String(64), primary_key=True),
    Column("results", String(64), primary_key=True),
    Column("by", String(200), primary_key=True),
    Column("seconds", Float, nullable=False),
)

history = Table(
    "history",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("by", String(200), nullable=False),
    Column("role", String(40), nullable=False),
    Column("case_id", String(64), nullable=False, index=True),
    Column("results", String(64), nullable=False),
    Column("what", String(40), nullable=False),
    Column("item", String(300), nullable=False),
    Column("version", Integer, nullable=False),
    Column("content", Text, nullable=False),  # JSON: what was decided
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("who", String(200), nullable=False),
    Column("role", String(40), nullable=False),
    Column("what", String(40), nullable=False),
    Column("case_id", String(64), nullable=False, index=True),
    Column("detail", Text, nullable=False),  # JSON
    Column("digest", String(64), nullable=False),
)

for _table in (history, audit):
    for _change in ("UPDATE", "DELETE"):
        _refuse = DDL(
            f"CREATE TRIGGER {_table.name}_no_{_change.lower()} BEFORE {_change} ON {_table.name} "
            "BEGIN SELECT RAISE(ABORT, 'rows are only ever added here'); END"
        )
        event.listen(_table, "after_create", _refuse)
