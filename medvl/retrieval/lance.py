"""The same search on LanceDB, for indexes that outgrow one machine's memory: the extra `scale`.

Without an index of its own LanceDB scans every vector, so the answer is exact up to float32 rounding. `accelerate` builds an
approximate one (IVF-PQ, with full-precision refinement): then cases can be missed, and how many has to be measured on one's data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.retrieval.entry import FIELDS, NUMBERS, TEXTS, Entry, Found, Hit, Space, unit_rows
from medvl.retrieval.filters import ORDERS, STATES, Condition, parse_filter

TABLE = "cases"


class LanceIndex:
    """Cases in a LanceDB folder; `add`, `delete`, `search` as the embedded index has them.

    Args:
        folder: of the database, made when missing; space: what made the vectors; fields: of every case.

    Raises:
        ConfigError: LanceDB is not installed, or the folder holds vectors of another space.
    """

    def __init__(self, folder: Path, space: Space, *, fields: Sequence[str] = FIELDS) -> None:
        try:
            import lancedb
            import pyarrow as pa
        except ImportError as error:
            raise ConfigError("LanceDB is not installed; pip install 'medvl[scale]'") from error
        self.space, self.fields = space, tuple(fields)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        columns = [pa.field(name, pa.string()) for name in (*TEXTS, "findings", "extra")]
        columns += [pa.field(name, pa.float64()) for name in NUMBERS]
        columns += [pa.field(_vector(name), pa.list_(pa.float32(), space.width)) for name in self.fields]
        about = {name: str(getattr(space, name)) for name in ("model", "model_sha256", "contract_hash", "width")}
        schema = pa.schema(columns, metadata=about)
        base = lancedb.connect(str(folder))
        there = (folder / f"{TABLE}.lance").is_dir()
        self._table: Any = base.open_table(TABLE) if there else base.create_table(TABLE, schema=schema)
        held = {key.decode(): value.decode() for key, value in (self._table.schema.metadata or {}).items()}
        Space(held["model"], held["model_sha256"], held["contract_hash"], int(held["width"])).must_be(space, "these vectors have")

    def __len__(self) -> int:
        return int(self._table.count_rows())

    def add(
        self, entries: Sequence[Entry], vectors: dict[str, NDArray[np.floating]], space: Space, *, replace: bool = False
    ) -> int:
        """Add cases, all or none; arguments and errors as `Index.add`."""
        self.space.must_be(space, "these vectors have")
        made = {name: unit_rows(vectors[name], self.space.width, name) for name in self.fields}
        ids = [entry.id for entry in entries]
        if len(set(ids)) < len(ids):
            raise ConfigError("ids of cases to add are given twice; an index finds a case by its id")
        rows = [
            {c: getattr(entry, c) for c in (*TEXTS, *NUMBERS)}
            | {"findings": _marks(entry), "extra": json.dumps(dict(entry.extra))}
            | {_vector(name): made[name][i] if made[name][i].any() else None for name in self.fields}
            for i, entry in enumerate(entries)
        ]
        if not replace and (there := self._table.count_rows(_among("id", ids))):
            raise ConfigError(f"{there} of {len(ids)} cases are in the index already; replace them?")
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(rows)
        return len(rows)

    def delete(self, *, ids: Sequence[str] = (), patients: Sequence[str] = ()) -> int:
        """Take out cases, or all cases of patients; how many there were. `compact` takes them from the disk."""
        before = len(self)
        for column, values in (("id", ids), ("patient", patients)):
            if values:
                self._table.delete(_among(column, values))
        return before - len(self)

    def compact(self) -> None:
        """Drop what was deleted and every older version from the disk; nobody else may use the folder meanwhile."""
        import warnings
        from datetime import timedelta

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # says what the line above says
            self._table.optimize(cleanup_older_than=timedelta(0))

    def search(
        self,
        query: ArrayLike,
        k: int = 10,
        *,
        field: str = "image",
        where: str | Sequence[Condition] = "",
        exclude_patient: str = "",
    ) -> Found:
        """The k cases with the highest cosine that meet the conditions, which are applied before the vectors are compared."""
        if field not in self.fields:
            raise ConfigError(f"the index holds no {field} vectors, only {', '.join(self.fields)}")
        conditions = parse_filter(where) if isinstance(where, str) else where
        asked = [_sql(c) for c in conditions]
        for condition in conditions:
            self._must_occur(condition)
        asked += [f"{_vector(field)} IS NOT NULL"]
        if exclude_patient:
            asked.append(f"patient != {_quoted(exclude_patient)}")
        clause = " AND ".join(f"({part})" for part in asked)
        vector = unit_rows(np.asarray(query)[None], self.space.width, "query")[0]
        ask = self._table.search(vector, vector_column_name=_vector(field)).distance_type("cosine")
        rows = ask.where(clause, prefilter=True).limit(k).to_list()
        hits = [Hit(1 - float(row["_distance"]), _entry(row)) for row in rows]
        hits.sort(key=lambda hit: (-hit.score, hit.entry.id))
        n_cases = int(self._table.count_rows(f"{_vector(field)} IS NOT NULL"))
        return Found(tuple(hits), n_cases, int(self._table.count_rows(clause)), 0)

    def _must_occur(self, condition: Condition) -> None:
        """As the embedded index: a text value that a person typed must occur."""
        name = condition.name
        if not condition.typed or name not in TEXTS:
            return
        if all(self._table.count_rows(_among(name, [value])) for value in condition.values):
            return
        column = self._table.search().select([name]).limit(len(self)).to_arrow()[name]
        condition.must_occur([value for value in column.unique().to_pylist() if value])

    def accelerate(self, field: str = "image", **options: Any) -> None:
        """Build LanceDB's approximate index of a field; searches are not exact any more.

        Args:
            field: of the vectors.
            options: `num_partitions`, `num_sub_vectors`, ... of LanceDB's `create_index`.
        """
        self._table.create_index(metric="cosine", vector_column_name=_vector(field), **options)


def _vector(field: str) -> str:
    return f"{field}_vector"


def _marks(entry: Entry) -> str:
    return " " + " ".join(f"{key}={value}" for key, value in sorted(entry.findings.items()) if value >= 0) + " "


def _entry(row: dict[str, Any]) -> Entry:
    said = dict(mark.split("=") for mark in row["findings"].split())
    known = {name: row[name] for name in (*TEXTS, *NUMBERS)}
    return Entry(**known, findings={key: int(value) for key, value in said.items()}, extra=json.loads(row["extra"]))


def _sql(condition: Condition) -> str:
    """A condition in LanceDB's SQL; a column that is not known passes none, as in the embedded index."""
    name, op, values = condition.name, condition.op, condition.values
    if op in STATES:
        state = STATES[op]
        mark = f"contains(findings, {_quoted(f' {name}={state} ')})"
        return mark if state >= 0 else f"NOT contains(findings, {_quoted(f' {name}=')})"
    if name not in (*TEXTS, *NUMBERS):
        raise ConfigError(f"LanceDB filters by {', '.join((*TEXTS, *NUMBERS))} and findings, not by {name}")
    if name in NUMBERS:
        try:
            numbers = [repr(float(value)) for value in values]
        except ValueError as error:
            raise ConfigError(f"{name}{op}{','.join(values)}: {name} is a number") from error
        if op in ORDERS:
            return f"{name} {op} {numbers[0]}"
        return f"{name} IS NOT NULL AND {name} {'' if op == '=' else 'NOT '}IN ({', '.join(numbers)})"
    if op in ORDERS:
        raise ConfigError(f"{name}{op}{values[0]}: {name} is text, which = and != compare")
    among = _among(name, values)
    return among if op == "=" else f"{name} != '' AND NOT ({among})"


def _among(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(_quoted(value) for value in values)})"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
