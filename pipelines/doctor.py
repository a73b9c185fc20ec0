"""`medvl doctor`: is this machine ready, and if not, what to do about it?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from .built_in import bundle_folder
from .console import emit_json, err, out, say

if TYPE_CHECKING:
    from medvl.doctor.check import Check

SCHEMA = "medvl.doctor/1"
EXIT_PROBLEM = 3
MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("PROBLEM", "bold red")}


def run(
    *,
    bundle: str | None = None,
    folder: Path | None = None,
    pacs: str | None = None,
    listen: int | None = None,
    as_json: bool = False,
) -> int:
    """Exit code 0 when there is no problem, 3 when there is one.

    Args:
        bundle: name or folder of the bundle that will be used.
        folder: where results will go.
        pacs: address to greet; nothing leaves the machine without one.
        listen: port that `medvl listen` will take.
        as_json: print one JSON object instead of a table.

    Raises:
        BundleError: no bundle of that name and no such folder.
    """
    chosen = bundle_folder(bundle) if bundle is not None else None
    with err().status("looking at this machine"):
        from medvl.doctor.check import worst
        from medvl.doctor.examine import examine

        checks = examine(bundle=chosen, out=folder, pacs=pacs, listen=listen)
    if as_json:
        emit_json({"schema": SCHEMA, "status": worst(checks), "checks": [check.as_dict() for check in checks]})
    else:
        _show(checks)
    return EXIT_PROBLEM if worst(checks) == "problem" else 0


def _show(checks: Sequence[Check]) -> None:
    """A table by area, then how many of each status."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column("", no_wrap=True)
    grid.add_column("what", no_wrap=True)
    grid.add_column("found, and what to do", overflow="fold")
    for area, group in groupby(checks, key=lambda check: check.area):
        grid.add_row("", Text(area, style="bold"), "")
        for check in group:
            word, style = MARKS[check.status]
            told = Text(check.found)
            if check.fix:
                told.append(f"\n{check.fix}", style="bold")
            grid.add_row(Text(word, style=style), Text(f"  {check.name}"), told)
    out().print(grid)
    n = {status: sum(check.status == status for check in checks) for status in MARKS}
    say(f"{n['ok']} ok, {n['warning']} warnings, {n['problem']} problems")
