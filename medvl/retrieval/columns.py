"""Metadata of an index by column, in memory: read from the tables at first use, so that a filter costs milliseconds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvl.errors import ConfigError, did_you_mean
from medvl.retrieval.entry import NUMBERS, TEXTS
from medvl.retrieval.filters import Condition


class Columns:
    """Columns of the first `n_rows` rows of one snapshot; what was read once is kept.

    Args:
        base: inside a read transaction of that snapshot whenever a column is asked for.
        n_rows: N, dead rows included.
    """

    def __init__(self, base: sqlite3.Connection, n_rows: int) -> None:
        self._base, self.n_rows = base, n_rows
        self._texts: dict[str, tuple[NDArray[np.int32], list[str]]] = {}
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._findings: dict[str, NDArray[np.int8]] = {}
        self._extra: dict[str, dict[int, Any]] | None = None

    def where(self, conditions: Iterable[Condition]) -> NDArray[np.bool_] | None:
        """(N,) rows that meet every condition; None where there is no condition."""
        masks = [condition.rows(self) for condition in conditions]
        return np.logical_and.reduce(masks) if masks else None

    def kind_of(self, name: str) -> str:
        """`text` or `number`.

        Raises:
            ConfigError: no such column.
        """
        if name in TEXTS or name in NUMBERS:
            return "text" if name in TEXTS else "number"
        values = self._more().get(name)
        if values is None:
            raise ConfigError(f"the index has no column {name}; {did_you_mean(name, (*TEXTS, *NUMBERS, *self._more()))}")
        return "text" if any(isinstance(value, str) for value in values.values()) else "number"

    def text(self, name: str) -> tuple[NDArray[np.int32], list[str]]:
        """(N,) number of each row's value, -1 for none; and the values."""
        if name not in self._texts:
            rows, values = self._pairs(name)
            numbers, known = pd.factorize(np.array([str(v) for v in values], dtype=object))
            column = np.full(self.n_rows, -1, np.int32)
            column[rows] = numbers
            self._texts[name] = column, [str(v) for v in known]
        return self._texts[name]

    def number(self, name: str) -> NDArray[np.float64]:
        """(N,) NaN for none."""
        if name not in self._numbers:
            rows, values = self._pairs(name)
            column = np.full(self.n_rows, np.nan)
            column[rows] = values
            self._numbers[name] = column
        return self._numbers[name]

    def finding(self, key: str) -> NDArray[np.int8]:
        """(N,) 1, 0, or -1 where not stated.

        Raises:
            ConfigError: no entry states it.
        """
        if key not in self._findings:
            found = self._base.execute("SELECT row, value FROM said WHERE finding = ?", (key,)).fetchall()
            if not found:
                known = [name for (name,) in self._base.execute("SELECT DISTINCT finding FROM said")]
                raise ConfigError(f"no case in the index states {key}; {did_you_mean(key, known)}")
            pairs = np.array(found, dtype=np.int64)
            column = np.full(self.n_rows, -1, np.int8)
            column[pairs[:, 0]] = pairs[:, 1]
            self._findings[key] = column
        return self._findings[key]

    def _pairs(self, name: str) -> tuple[NDArray[np.int64], list[Any]]:
        """Rows and values where a column is known."""
        if name in TEXTS or name in NUMBERS:
            found = self._base.execute(f"SELECT row, {name} FROM entries WHERE {name} IS NOT NULL").fetchall()  # noqa: S608
        else:
            found = list(self._more()[name].items())
        return np.array([row for row, _ in found], dtype=np.int64), [value for _, value in found]

    def _more(self) -> dict[str, dict[int, Any]]:
        """Columns beyond the fixed ones: by name, value by row."""
        if self._extra is None:
            self._extra = {}
            for row, extra in self._base.execute("SELECT row, extra FROM entries WHERE extra != '{}'"):
                for name, value in json.loads(extra).items():
                    self._extra.setdefault(name, {})[row] = value
        return self._extra
