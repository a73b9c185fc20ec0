"""A spreadsheet as hospitals export it, read as text by column name, with notes on what had to be made out.

Encodings (UTF-8 with or without its mark, UTF-16, Windows-1252), separators (comma, semicolon, tab, bar, Excel's ``sep=`` line),
``="0012"`` that keeps Excel from eating zeros, blank columns and rows at the end, and the many words for "nothing".
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medvl.data.table_file import read_rows
from medvl.errors import ConfigError

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NOTHING = frozenset({"na", "n/a", "#n/a", "#na", "nan", "null", "none", "nil", "-", "--", "?", ".", "#value!", "#ref!", "nat"})
_FORMULA = re.compile(r'^="(.*)"$', re.DOTALL)
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2007": " ", "\ufeff": ""})
MAX_BYTES = 2 << 30


@dataclass(frozen=True)
class Sheet:
    """A table of text.

    Args:
        columns: names in order; rows: column to text without outer blanks, empty for nothing; notes: how it was read.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...] = field(repr=False)
    notes: tuple[str, ...] = ()


def read_sheet(path: Path) -> Sheet:
    """Read a CSV (also .tsv, .txt) or Parquet table. The first row of data is row 2.

    Raises:
        ConfigError: it is not there, a workbook, not a table, or its header is malformed.
    """
    if not path.is_file():
        raise ConfigError("the manifest is not there; give the path of a CSV or Parquet file")
    if path.suffix.lower() == ".parquet":
        rows = read_rows(path)
        return Sheet(tuple(rows[0]) if rows else (), tuple({k: _cell(v)[0] for k, v in row.items()} for row in rows))
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        more = "; in Excel: Save As, CSV UTF-8" if zipfile.is_zipfile(path) else ""
        raise ConfigError(f"the manifest ends in {path.suffix!r}; give a .csv, .tsv or .parquet file{more}")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"the manifest is larger than {MAX_BYTES >> 30} GiB; give reports as files")
    text, notes = _decoded(path.read_bytes())
    separator, text, said = _separator(text)
    lines = _lines(text, separator)
    header = _header(lines)
    rows, more_notes = _rows(header, lines[1:])
    return Sheet(tuple(header), tuple(rows), (*notes, *said, *more_notes))


def _decoded(data: bytes) -> tuple[str, tuple[str, ...]]:
    if data[:4] == b"PK\x03\x04":
        raise ConfigError("the manifest is a workbook or an archive in spite of its name; in Excel: Save As, CSV UTF-8")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace"), ("read as UTF-16",)
    try:
        return data.decode("utf-8-sig"), ()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace"), ("not UTF-8: read as Windows-1252 (Latin-1)",)


def _separator(text: str) -> tuple[str, str, tuple[str, ...]]:
    """Separator, text without a ``sep=`` line, and what to say of it."""
    first, _, rest = text.partition("\n")
    told = re.fullmatch(r'"?sep=(.)"?', first.strip("\r\ufeff ") if "\t" not in first else first.strip("\r\ufeff"))
    if told and told[1] in _SEPARATORS:
        return told[1], rest, (f"separated by {_SEPARATORS[told[1]]}",) if told[1] != "," else ()
    head = re.sub(r'"[^"]*"', "", first)
    best = max(_SEPARATORS, key=head.count)
    return best, text, (f"separated by {_SEPARATORS[best]}",) if best != "," and head.count(best) else ()


def _lines(text: str, separator: str) -> list[list[str]]:
    csv.field_size_limit(1 << 27)
    try:
        lines = list(csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=False))
    except csv.Error as error:
        raise ConfigError(f"the manifest cannot be read as a table ({type(error).__name__}); save it again as CSV") from error
    while lines and not any(cell.strip() for cell in lines[-1]):
        lines.pop()
    if not lines:
        raise ConfigError("the manifest is empty")
    return lines


def _header(lines: Sequence[Sequence[str]]) -> list[str]:
    header = [_cell(name)[0] for name in lines[0]]
    while header and not header[-1] and not any(line[len(header) - 1 : len(header)] not in ([], [""]) for line in lines[1:]):
        header.pop()
    twice = sorted({name for name in header if header.count(name) > 1 and name})
    if twice or "" in header:
        what = f"these columns twice: {', '.join(map(repr, twice))}" if twice else f"no name for column {header.index('') + 1}"
        raise ConfigError(f"the manifest's header has {what}; rename in row 1")
    return header


def _rows(header: Sequence[str], lines: Sequence[Sequence[str]]) -> tuple[list[dict[str, str]], list[str]]:
    rows, unwrapped, odd = [], 0, list[int]()
    for number, line in enumerate(lines, start=2):
        if any(cell.strip() for cell in line[len(header) :]):
            odd.append(number)
        cells = [_cell(cell) for cell in (*line[: len(header)], *[""] * (len(header) - len(line)))]
        unwrapped += sum(wrapped for _, wrapped in cells)
        rows.append(dict(zip(header, (cell for cell, _ in cells), strict=True)))
    if odd:
        more = f" and {len(odd) - 1} more rows" if len(odd) > 1 else ""
        raise ConfigError(f"row {odd[0]}{more} has more cells than the header; a separator inside a cell needs quotes around it")
    return rows, [f'{unwrapped} cells were written ="..." and are read as text'] if unwrapped else []


def _cell(text: str) -> tuple[str, bool]:
    """Without outer blanks and marks, empty for nothing; and whether it was wrapped as a formula."""
    plain = text.translate(_SPACES).strip()
    found = _FORMULA.match(plain)
    plain = found[1].replace('""', '"').strip() if found else plain
    return "" if plain.lower() in _NOTHING else plain, found is not None
