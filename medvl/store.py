"""Opening the databases that several processes share: an embedded SQLite file in WAL mode, or a PostgreSQL server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from medvl.errors import ConfigError

BUSY_S = 60.0


def open_engine(place: Path | str) -> Engine:
    """An engine on a file, which is made with mode 0600, or on the address of a server, ``postgresql://...``.

    A transaction of an engine with the execution option ``writes=True`` holds the right to write from its start; others see the
    database as it was when they began. What was committed outlives a loss of power.

    Raises:
        ConfigError: a server without its driver.
    """
    if isinstance(place, str):
        try:
            return sa.create_engine(place.replace("postgresql://", "postgresql+psycopg://", 1), pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise ConfigError("a ledger on a server needs its driver: pip install 'medvl[server]'") from error
    place.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(place, os.O_CREAT | os.O_RDWR, 0o600))
    engine = sa.create_engine(f"sqlite:///{place}", connect_args={"timeout": BUSY_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(db: Connection) -> None:
        db.exec_driver_sql("BEGIN IMMEDIATE" if db.get_execution_options().get("writes", False) else "BEGIN")

    return engine
