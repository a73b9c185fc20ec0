"""An index of cases on disk: SQLite in WAL mode names the rows, memory-mapped files hold their vectors.

Vectors are written and synced before the one transaction that counts them, so a stop at any moment leaves all of a batch or
nothing of it. Writers take turns at SQLite's write lock; readers never wait, and each search sees one committed state. Deleted
cases are not found from the moment of the commit and their texts are overwritten; their vectors go with `compact`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.retrieval.columns import Columns
from medvl.retrieval.entry import FIELDS, Entry, Space, unit_rows
from medvl.retrieval.schema import SCHEMA, TABLES, connect, insert, remove, renumber, rows_where
from medvl.retrieval.vectors import SEGMENT_ROWS, Layout, quantise
from medvl.retrieval.view import View

BATCH_ROWS = 16_384


class Index:
    """An opened index; may be shared by threads, and by processes that each open it."""

    def __init__(self, folder: Path, base: sqlite3.Connection, about: dict[str, str]) -> None:
        self.folder, self._base, self._lock = folder, base, threading.RLock()
        self.space = Space(**json.loads(about["space"]))
        self.fields: tuple[str, ...] = tuple(json.loads(about["fields"]))
        self._segment_rows = int(about["segment_rows"])
        self._view: View | None = None

    @classmethod
    def create(
        cls, folder: Path, space: Space, *, fields: Sequence[str] = FIELDS, segment_rows: int = SEGMENT_ROWS, software: str = ""
    ) -> Index:
        """An empty index in a folder, or the one that is there already if it is of the same space and fields.

        Raises:
            ConfigError: an index of another model, contract, width or other fields is there.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        base = connect(folder / "cases.sqlite")
        about = {"schema": SCHEMA, "space": json.dumps(asdict(space)), "fields": json.dumps(list(fields)), "software": software}
        about |= {"segment_rows": str(segment_rows), "rows": "0", "generation": "0", "version": "0"}
        with _writing(base):
            for table in TABLES:
                base.execute(table)
            base.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", about.items())
        base.close()
        index = cls.open(folder)
        index.space.must_be(space, "these vectors have")
        if index.fields != tuple(fields):
            index.close()
            raise ConfigError(f"the index holds {', '.join(index.fields)} vectors, not {', '.join(fields)}; build another one")
        return index

    @classmethod
    def open(cls, folder: Path) -> Index:
        """The index in a folder.

        Raises:
            ConfigError: there is none, or it is of another schema.
        """
        if not (folder / "cases.sqlite").is_file():
            raise ConfigError(f"no index in {folder}; build it with medvl index build")
        base = connect(folder / "cases.sqlite")
        try:
            about = dict(base.execute("SELECT key, value FROM about").fetchall())
        except sqlite3.Error as error:
            raise ConfigError(f"{folder} holds no finished index ({error}); build it with medvl index build") from error
        if about.get("schema") != SCHEMA:
            raise ConfigError(f"expected schema {SCHEMA}, found {about.get('schema')}; this medvl cannot read the index")
        return cls(folder, base, about)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            self._view = None
            self._base.close()

    def __len__(self) -> int:
        with self.reading() as view:
            return view.n_rows - len(view.dead)

    def about(self) -> dict[str, Any]:
        """What it holds: cases, dead rows, space, generation, bytes."""
        with self.reading() as view:
            known = self._about()
            size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
            return {
                "cases": view.n_rows - len(view.dead),
                "patients": self._base.execute("SELECT count(DISTINCT patient) FROM entries").fetchone()[0],
                "deleted_rows": len(view.dead),
                "vectors": {f: int((m.steps[:, 0] > 0).sum()) for f, m in view.matrices.items()},
                **asdict(self.space),
                "generation": int(known["generation"]),
                "software": known["software"],
                "bytes": size,
            }

    @contextmanager
    def reading(self) -> Iterator[View]:
        """A committed state, the newest there is; another thread's search waits for the end of the block."""
        with self._lock:
            self._base.execute("BEGIN")
            try:
                yield self._newest()
            finally:
                self._base.execute("ROLLBACK")

    def _newest(self) -> View:
        for _ in range(20):
            about = self._about()
            if self._view is not None and self._view.version == int(about["version"]):
                return self._view
            try:
                newest = self._view = self._open_view(about)
            except FileNotFoundError:  # compacted between the snapshot and the opening of its files
                self._base.execute("ROLLBACK")
                self._base.execute("BEGIN")
            else:
                return newest
        raise ConfigError(f"vector files of the index in {self.folder} are missing; copy it again, all files together")

    def _about(self) -> dict[str, str]:
        return dict(self._base.execute("SELECT key, value FROM about").fetchall())

    def _open_view(self, about: dict[str, str]) -> View:
        layout, n = self._layout(int(about["generation"])), int(about["rows"])
        dead = np.array([row for (row,) in self._base.execute("SELECT row FROM dead ORDER BY row")], dtype=np.int64)
        matrices = {name: layout.open(name, n) for name in self.fields}
        return View(int(about["version"]), n, dead, matrices, Columns(self._base, n), self._base)

    def _layout(self, generation: int) -> Layout:
        return Layout(self.folder / f"vectors-{generation:04d}", self.space.width, self._segment_rows)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, int]]:
        """The write lock; rows and generation, as numbers, are stored at the end. Leftovers of compactions are swept."""
        with self._lock, _writing(self._base):
            about = self._about()
            state = {name: int(about[name]) for name in ("rows", "generation")}
            for stray in self.folder.glob("vectors-*"):
                if stray != self._layout(state["generation"]).folder:
                    shutil.rmtree(stray, ignore_errors=True)
            yield state
            state["version"] = int(about["version"]) + 1
            self._base.executemany("UPDATE about SET value = ? WHERE key = ?", [(str(v), k) for k, v in state.items()])

    def add(
        self, entries: Sequence[Entry], vectors: dict[str, NDArray[np.floating]], space: Space, *, replace: bool = False
    ) -> int:
        """Add cases in one transaction; the number added.

        Args:
            entries: N, with ids unlike each other's.
            vectors: by field, (N, E) of any length; they are made unit. NaN rows where a case has none.
            space: what made them.
            replace: cases of an id that is there take its place; otherwise that is an error and nothing is added.

        Raises:
            ConfigError: another space, other fields, vectors that do not fit, an id given twice or there already.
        """
        self.space.must_be(space, "these vectors have")
        if set(vectors) != set(self.fields):
            raise ConfigError(f"the index takes vectors of {', '.join(self.fields)}; given: {', '.join(vectors)}")
        made = {name: unit_rows(vectors[name], self.space.width, name) for name in self.fields}
        ids = [entry.id for entry in entries]
        if len(set(ids)) < len(ids) or any(not i for i in ids):
            raise ConfigError("ids of cases to add are empty or given twice; an index finds a case by its id")
        if wrong := {name: len(rows) for name, rows in made.items() if len(rows) != len(ids)}:
            raise ConfigError(f"{len(ids)} cases with {wrong} vectors; give one row for each case")
        if not ids:
            return 0
        with self._changing() as state:
            there = rows_where(self._base, "id", ids)
            if there and not replace:
                raise ConfigError(f"{len(there)} of {len(ids)} cases are in the index already, {min(there)} first; replace them?")
            for name, rows in made.items():
                self._layout(state["generation"]).write(name, state["rows"], rows)
            remove(self._base, [row for rows in there.values() for row in rows])
            insert(self._base, state["rows"], entries)
            self._note(state["rows"], made)
            state["rows"] += len(ids)
        return len(ids)

    def _note(self, start: int, made: dict[str, NDArray[np.float32]]) -> None:
        n = len(next(iter(made.values())))
        digest = hashlib.sha256()
        for name in self.fields:
            digest.update(np.ascontiguousarray(made[name], dtype="<f4").data)
        self._base.execute("INSERT INTO batches VALUES (?, ?, ?)", (start, n, digest.hexdigest()))

    def delete(self, *, ids: Sequence[str] = (), patients: Sequence[str] = ()) -> int:
        """Take out cases, or all cases of patients, in one transaction; how many there were."""
        with self._changing():
            found = [*rows_where(self._base, "id", ids).values(), *rows_where(self._base, "patient", patients).values()]
            gone = sorted({row for rows in found for row in rows})
            remove(self._base, gone)
        return len(gone)

    def compact(self) -> int:
        """Write the vectors of living cases anew, in the same order, and drop the rest; rows dropped."""
        with self._changing() as state:
            living = np.array([r for (r,) in self._base.execute("SELECT row FROM entries ORDER BY row")], dtype=np.int64)
            dropped = state["rows"] - len(living)
            if dropped:
                old, new = self._layout(state["generation"]), self._layout(state["generation"] + 1)
                sources = {name: old.open(name, state["rows"]) for name in self.fields}
                self._base.execute("DELETE FROM batches")
                for start in range(0, len(living), BATCH_ROWS):
                    made = {name: m.rows(living[start : start + BATCH_ROWS]) for name, m in sources.items()}
                    for name, rows in made.items():
                        new.write(name, start, rows)
                    self._note(start, made)
                renumber(self._base, living.tolist())
                state |= {"rows": len(living), "generation": state["generation"] + 1}
        with self._changing():  # sweeps the old generation; a stop before it leaves that to the next writer
            pass
        return dropped

    def verify(self) -> list[str]:
        """What is wrong: rows that do not add up, vectors that are not those written, codes that do not fit them."""
        with self.reading() as view:
            wrong = [f"SQLite: {text}" for (text,) in self._base.execute("PRAGMA integrity_check") if text != "ok"]
            rows = [r for (r,) in self._base.execute("SELECT row FROM entries UNION ALL SELECT row FROM dead ORDER BY row")]
            if rows != list(range(view.n_rows)):
                wrong.append(f"{len(rows)} living and deleted rows, {view.n_rows} counted")
            for start, n, expected in self._base.execute("SELECT start, n, sha256 FROM batches ORDER BY start").fetchall():
                wrong += self._check(view, start, n, expected)
        return wrong

    def _check(self, view: View, start: int, n: int, expected: str) -> list[str]:
        digest, wrong = hashlib.sha256(), []
        for name, matrix in view.matrices.items():
            masters = matrix.rows(np.arange(start, start + n))
            digest.update(masters.data)
            codes, steps = quantise(masters)
            held = [matrix.codes[s].numpy()[o : o + b - a] for s, o, a, b in self._layout(0).parts(start, n)]
            if not np.array_equal(np.concatenate(held), codes) or not np.array_equal(matrix.steps[start : start + n], steps):
                wrong.append(f"{name} codes of rows {start} to {start + n - 1} do not fit their vectors")
        if digest.hexdigest() != expected:
            wrong.append(f"vectors of rows {start} to {start + n - 1} are not those that were added")
        return wrong


@contextmanager
def _writing(base: sqlite3.Connection) -> Iterator[None]:
    """One transaction with the write lock from its start; nothing of it stays if the block fails."""
    base.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        base.execute("ROLLBACK")
        raise
    base.execute("COMMIT")
