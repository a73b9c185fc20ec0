"""One committed state of an index on disk: what a search reads while others write."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.retrieval.columns import Columns
from medvl.retrieval.entry import Entry
from medvl.retrieval.schema import entries_at, rows_where
from medvl.retrieval.vectors import Matrix


@dataclass(frozen=True, eq=False)
class View:
    """One committed state of an index; use it inside `Index.reading`.

    Args:
        version: grows with every commit; n_rows: dead ones included; dead: their rows.
        matrices: by field; columns: metadata.
    """

    version: int
    n_rows: int
    dead: NDArray[np.int64]
    matrices: dict[str, Matrix]
    columns: Columns
    base: sqlite3.Connection

    def entries(self, rows: Sequence[int]) -> dict[int, Entry]:
        """Entries by row."""
        return entries_at(self.base, rows)

    def row_of(self, case: str) -> int:
        """The row of an id.

        Raises:
            ConfigError: no such case.
        """
        found = rows_where(self.base, "id", [case])
        if case not in found:
            near = [i for (i,) in self.base.execute("SELECT id FROM entries ORDER BY id LIMIT 3")]
            raise ConfigError(f"no case {case} in the index; ids look like {', '.join(near)}")
        return found[case][0]

    def rows_where(self, column: str, value: str) -> NDArray[np.int64]:
        """Rows with a value in `patient`, `source_sha256` or `id`, which are indexed."""
        return np.array(rows_where(self.base, column, [value]).get(value, []), dtype=np.int64)
