"""Making the tables of a ledger, and bringing those of an earlier version up to this one, within one transaction."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from medvl.batch.tables import SCHEMA, Sending, about, delivered, deliveries, metadata, studies
from medvl.errors import ConfigError


def made_ready(db: Connection) -> None:
    """Have the tables of this version in a database, whether it is empty or holds those of an earlier one.

    Raises:
        ConfigError: they are of a version that this medvl does not know.
    """
    metadata.create_all(db)
    told = db.execute(sa.select(about.c.value).where(about.c.name == "schema")).scalar()
    if told is None:
        db.execute(about.insert().values(name="schema", value=str(SCHEMA)))
    elif told == "1":
        _from_1(db)
    elif told != str(SCHEMA):
        raise ConfigError(f"the ledger has schema {told}, this medvl writes {SCHEMA}; use a new --out folder")


def _from_1(db: Connection) -> None:
    """Version 1 did not know in which way objects were made: they are made anew; hashes tell which of them a PACS has already."""
    for column in (studies.c.bundle, studies.c.contract, studies.c.way, deliveries.c.way):
        kind = column.type.compile(db.dialect)
        db.execute(sa.DDL(f"ALTER TABLE {column.table.name} ADD COLUMN {column.name} {kind}"))
    sent = (
        sa.select(deliveries.c.case_id, deliveries.c.target, deliveries.c.sent_at, studies.c.objects)
        .join(studies, studies.c.case_id == deliveries.c.case_id)
        .where((deliveries.c.state == Sending.sent) & studies.c.objects.is_not(sa.null()))
    )
    for row in db.execute(sent).all():
        for digest in {str(made["sha256"]) for made in row.objects}:
            values: dict[str, Any] = {"case_id": row.case_id, "target": row.target, "sha256": digest}
            db.execute(delivered.insert().values(**values, at=row.sent_at or time.time()))
    db.execute(about.update().where(about.c.name == "schema").values(value=str(SCHEMA)))
