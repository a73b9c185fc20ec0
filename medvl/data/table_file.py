"""A CSV or Parquet table as rows of text, and whether its columns are those that are wanted."""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medvl.errors import ConfigError

_CENTER = re.compile(r"(\w+)_([xyz])_mm")


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint on what `name` may have been meant to be: ``; did you mean 'x'?``, or nothing."""
    close = difflib.get_close_matches(name.lower(), known, 1, 0.75)
    return f"; did you mean {close[0]!r}?" if close else ""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows as text by column name, without outer blanks; empty text for what is missing.

    Raises:
        ConfigError: it is not there, not a table, or its header or rows are malformed.
    """
    if not path.is_file():
        raise ConfigError("the table is not there; give the path of a CSV or Parquet file")
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    if path.suffix.lower() != ".csv":
        raise ConfigError(f"the table ends in {path.suffix!r}; give a .csv or .parquet file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"the table cannot be read as CSV in UTF-8 ({type(error).__name__}); save it as such") from error
    while lines and not any(cell.strip() for cell in lines[-1]):
        lines.pop()
    header = [name.strip() for name in lines[0]] if lines else []
    if len(header) == 1 and ";" in header[0]:
        raise ConfigError("the table's columns are separated by semicolons; save it with commas")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        raise ConfigError(f"the table's header has {f'columns twice: {twice}' if twice else 'a column without a name'}")
    odd = [number for number, line in enumerate(lines[1:], start=2) if len(line) != len(header)]
    if odd:
        raise ConfigError(f"row {odd[0]} of the table has {len(lines[odd[0] - 1])} cells, the header {len(header)}; quote commas")
    return [dict(zip(header, (cell.strip() for cell in line), strict=True)) for line in lines[1:]]


def _read_parquet(path: Path) -> list[dict[str, str]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"the table cannot be read as Parquet ({type(error).__name__}); write it again") from error
    return [{str(name): _as_text(value) for name, value in row.items()} for row in rows]


def _as_text(value: Any) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()


def check_columns(
    columns: tuple[str, ...], required: tuple[str, ...], one_of: tuple[str, ...], optional: tuple[str, ...]
) -> tuple[str, ...]:
    """The regions that have centre columns (REGION_x_mm, _y_mm, _z_mm); columns of other names are left alone.

    Raises:
        ConfigError: a required column or all of `one_of` are missing, an unknown one looks like a known one, or a region lacks
            an axis.
    """
    known = (*required, *one_of, *optional)
    missing = [name for name in required if name not in columns]
    if not set(one_of) & set(columns):
        missing.append(one_of[0])
    for name in missing:
        close = difflib.get_close_matches(name, [c for c in columns if c not in known], 1, 0.6)
        raise ConfigError(f"the table has no column {name!r}" + (f"; is it {close[0]!r}? Rename it" if close else "; add it"))
    for name in columns:
        hint = "" if name in known or _CENTER.fullmatch(name) else nearest(name, [k for k in known if k not in columns])
        if hint:
            raise ConfigError(f"the table has a column {name!r} that is not known{hint}")
    found = [match.groups() for name in columns if (match := _CENTER.fullmatch(name))]
    regions = tuple(dict.fromkeys(region for region, _ in found))
    for region in regions:
        lacking = [f"{region}_{axis}_mm" for axis in "xyz" if (region, axis) not in found]
        if lacking:
            raise ConfigError(f"the table gives part of the centre of {region!r}; add the column {lacking[0]!r}")
    return regions
