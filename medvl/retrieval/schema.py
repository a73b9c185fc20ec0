"""The tables of an index, and how entries go in and come out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from medvl.errors import ConfigError
from medvl.retrieval.entry import NUMBERS, TEXTS, Entry

SCHEMA = "medvl.index/1"
COLUMNS = (*TEXTS, *NUMBERS)
TABLES = (
    "CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    f"CREATE TABLE IF NOT EXISTS entries ("
    f"row INTEGER PRIMARY KEY, {', '.join(f'{c} TEXT' for c in TEXTS)}, {', '.join(f'{c} REAL' for c in NUMBERS)}, "
    f"text_sha256 TEXT, extra TEXT NOT NULL)",
    "CREATE UNIQUE INDEX IF NOT EXISTS by_id ON entries(id)",
    "CREATE INDEX IF NOT EXISTS by_patient ON entries(patient)",
    "CREATE INDEX IF NOT EXISTS by_source ON entries(source_sha256)",
    "CREATE TABLE IF NOT EXISTS said (finding TEXT, row INTEGER, value INTEGER, PRIMARY KEY (finding, row)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS said_of ON said(row)",
    "CREATE TABLE IF NOT EXISTS dead (row INTEGER PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS batches (start INTEGER PRIMARY KEY, n INTEGER, sha256 TEXT)",
)
AT_ONCE = 500


def connect(path: Path) -> sqlite3.Connection:
    """A connection in WAL mode that waits for other writers, forgets what is deleted, and makes commits durable."""
    try:
        base = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            base.execute(f"PRAGMA {pragma}")
    except sqlite3.Error as error:
        raise ConfigError(f"{path.parent} holds no readable index ({error}); build it with medvl index build") from error
    return base


def insert(base: sqlite3.Connection, start: int, entries: Sequence[Entry]) -> None:
    """Put entries at rows `start` and after."""
    names = ("row", *COLUMNS, "text_sha256", "extra")
    marks = ", ".join("?" * len(names))
    base.executemany(
        f"INSERT INTO entries ({', '.join(names)}) VALUES ({marks})",  # noqa: S608 - names are constants
        (
            (start + i, *(_stored(e, c) for c in COLUMNS), e.text_sha256 or None, json.dumps(dict(e.extra), sort_keys=True))
            for i, e in enumerate(entries)
        ),
    )
    base.executemany(
        "INSERT INTO said (row, finding, value) VALUES (?, ?, ?)",
        ((start + i, key, int(value)) for i, e in enumerate(entries) for key, value in e.findings.items() if value >= 0),
    )


def _stored(entry: Entry, column: str) -> str | float | None:
    value = getattr(entry, column)
    return None if value in ("", None) or value != value else value  # noqa: PLR0124 - NaN is not itself


def remove(base: sqlite3.Connection, rows: Iterable[int]) -> None:
    """Take entries out; their rows are dead until compaction."""
    gone = [(row,) for row in rows]
    base.executemany("DELETE FROM entries WHERE row = ?", gone)
    base.executemany("DELETE FROM said WHERE row = ?", gone)
    base.executemany("INSERT INTO dead (row) VALUES (?)", gone)


def rows_where(base: sqlite3.Connection, column: str, values: Sequence[str]) -> dict[str, list[int]]:
    """Of each value of a column that occurs, the rows."""
    out: dict[str, list[int]] = {}
    for i in range(0, len(values), AT_ONCE):
        part = values[i : i + AT_ONCE]
        marks = ", ".join("?" * len(part))
        for value, row in base.execute(
            f"SELECT {column}, row FROM entries WHERE {column} IN ({marks}) ORDER BY row",  # noqa: S608 - a constant column
            part,
        ):
            out.setdefault(value, []).append(row)
    return out


def entries_at(base: sqlite3.Connection, rows: Sequence[int]) -> dict[int, Entry]:
    """The entries at some rows, by row."""
    out = {}
    for i in range(0, len(rows), AT_ONCE):
        part = [int(row) for row in rows[i : i + AT_ONCE]]
        marks = ", ".join("?" * len(part))
        said: dict[int, dict[str, int]] = {row: {} for row in part}
        for row, finding, value in base.execute(
            f"SELECT row, finding, value FROM said WHERE row IN ({marks}) ORDER BY finding",  # noqa: S608
            part,
        ):
            said[row][finding] = value
        names = ", ".join(COLUMNS)
        for row, *values, extra in base.execute(
            f"SELECT row, {names}, extra FROM entries WHERE row IN ({marks})",  # noqa: S608
            part,
        ):
            known = {name: value for name, value in zip(COLUMNS, values, strict=True) if value is not None}
            out[row] = Entry(**known, findings=said[row], extra=json.loads(extra))
    return out


def renumber(base: sqlite3.Connection, old: Sequence[int]) -> None:
    """Give row i to the entry that was at row old[i], for all entries; none is dead then."""
    base.execute("CREATE TEMP TABLE moved (old INTEGER PRIMARY KEY, new INTEGER)")
    base.executemany("INSERT INTO moved VALUES (?, ?)", ((row, i) for i, row in enumerate(old)))
    for table in ("entries", "said"):
        base.execute(f"UPDATE {table} SET row = -1 - (SELECT new FROM moved WHERE old = row)")  # noqa: S608
        base.execute(f"UPDATE {table} SET row = -1 - row")  # noqa: S608
    base.execute("DROP TABLE moved")
    base.execute("DELETE FROM dead")
