"""Where the commands print: results to stdout, progress and warnings to stderr. Rich is loaded on first use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


@cache
def out() -> Console:
    """The console of results, on stdout."""
    from rich.console import Console

    return Console(highlight=False)


@cache
def err() -> Console:
    """The console of progress, warnings and errors, on stderr, so that stdout can be piped."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """Print one result line to stdout; square brackets are text, not markup."""
    out().print(message, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print one line to stderr."""
    err().print(message, markup=False, soft_wrap=True)


def emit_json(value: Any) -> None:
    """Print one JSON document to stdout, uncoloured and unwrapped, with NaN refused because JSON has none."""
    print(json.dumps(value, indent=2, allow_nan=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Print `rows` under `columns` to stdout; a column whose cells are all numbers is set to the right."""
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    grid = Table(title=title or None, title_justify="left")
    for index, name in enumerate(columns):
        numeric = bool(cells) and all(isinstance(row[index], int | float) for row in cells)
        grid.add_column(name, justify="right" if numeric else "left")
    for row in cells:
        grid.add_row(*(Text(f"{cell:.3f}" if isinstance(cell, float) else str(cell)) for cell in row))
    out().print(grid)


def track(items: Iterable[T], description: str, *, n_total: int | None = None) -> Iterator[T]:
    """The same items, one by one, with a progress bar on stderr; nothing is drawn where stderr is no terminal."""
    from rich.progress import track as bar

    console = err()
    yield from bar(items, description=description, total=n_total, console=console, disable=not console.is_terminal)
