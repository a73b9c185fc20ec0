"""`medvl inspect`: what is in a folder, file or archive, which series would be used, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medvl.dicom.source import shown
from medvl.errors import InputError
from medvl.imaging.load import Entry, Loaded, load

from .console import emit_json, err, out


def run(source: Path, *, as_json: bool) -> int:
    """Show the series of `source`; exit code 0, 2 for a path that does not exist, 3 when nothing in it is usable."""
    if not source.exists():
        err().print(f"[red]no such file or folder:[/] {escape(str(source))}")
        return 2
    try:
        loaded = load(source)
    except InputError as error:
        if as_json:
            report = {
                "chosen": None,
                "series": [],
                "rejected": [{"path": shown(source.name), "code": error.code, "message": error.message}],
            }
            emit_json(report)
        else:
            err().print(f"[red]{error.code}[/]: {escape(error.message)}")
        return 3
    if as_json:
        emit_json(_report(loaded))
    else:
        _show(loaded, out())
    return 0 if loaded.chosen is not None else 3


def _report(loaded: Loaded) -> dict[str, Any]:
    """The JSON object of the command."""
    chosen = loaded.chosen
    return {
        "chosen": None if chosen is None else chosen.key,
        "series": [{"study": study.key, **_entry(entry)} for study in loaded for entry in study.entries],
        "rejected": [
            {"path": shown(one.path), "code": one.reason.code, "message": one.reason.message} for one in loaded.rejected
        ],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    geometry = entry.geometry
    return {
        "key": entry.key,
        "modality": entry.modality,
        "n_files": entry.n_files,
        "verdict": entry.verdict,
        "reasons": [{"code": reason.code, "message": reason.message} for reason in entry.reasons],
        "shape_dhw": None if entry.shape_dhw is None else list(entry.shape_dhw),
        "spacing_mm": None if geometry is None else [round(step, 6) for step in geometry.spacing_mm],
        "affine_lps": None if geometry is None else geometry.affine_lps.tolist(),
        "axes": None if geometry is None else geometry.axes,
        "facts": dict(entry.facts),
        "why": entry.why,
    }


def _show(loaded: Loaded, console: Console) -> None:
    """The same for a person: a table of what is there, then the reasons in words, then the choice."""
    entries = [(study, entry) for study in loaded for entry in study.entries]
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption="> marks the series to use of its study",
        caption_justify="left",
    )
    for name in ("", "study", "series", "kind"):
        table.add_column(name, no_wrap=True)
    for name in ("files", "voxels", "mm"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("verdict", no_wrap=True)
    for study, entry in entries:
        mark = "[green]>[/]" if entry.key == study.chosen else ""
        shape = "" if entry.shape_dhw is None else "x".join(map(str, entry.shape_dhw))
        steps = "" if entry.geometry is None else "x".join(f"{step:.2g}" for step in entry.geometry.spacing_mm)
        table.add_row(mark, study.key[:6], entry.key, entry.modality, str(entry.n_files), shape, steps, _verdict(entry))
    console.print(table)
    for _, entry in entries:
        for reason in entry.reasons:
            console.print(f"{entry.key} [bold]{reason.code}[/]: {escape(reason.message)}", soft_wrap=True)
    _show_rejected(loaded, console)
    if loaded.chosen is None:
        console.print("[red]nothing here can be used as a CT volume[/]")
    else:
        console.print(f"[green]would use {loaded.chosen.key}[/]: {escape(loaded.chosen.why)}", soft_wrap=True)


def _verdict(entry: Entry) -> str:
    if entry.verdict == "volume" and entry.geometry is not None:
        return f"[green]volume[/] {entry.geometry.axes}"
    return "[red]refused[/]"


def _show_rejected(loaded: Loaded, console: Console, *, limit: int = 20) -> None:
    if loaded.rejected:
        console.print(f"{len(loaded.rejected)} file{'s' * (len(loaded.rejected) > 1)} left out:")
    for one in loaded.rejected[:limit]:
        console.print(f"  {escape(shown(one.path))} [bold]{one.reason.code}[/]: {escape(one.reason.message)}", soft_wrap=True)
    if len(loaded.rejected) > limit:
        console.print(f"  ... and {len(loaded.rejected) - limit} more (all in --json)")
