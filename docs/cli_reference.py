"""Write docs/reference/cli.md from the command itself, so that the page cannot say anything else: `make docs`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from medvl_pipelines.cli import app

PAGE = Path(__file__).parent / "reference" / "cli.md"
INTRO = """# The `medvl` command

Made by `make docs` from the command itself. `medvl COMMAND --help` shows the same.

Results go to stdout, progress and warnings to stderr. `medvl --version` prints the version.

| exit code | meaning |
|---|---|
| 0 | all done |
| 1 | crash, with a traceback that holds no values; `MEDVL_DEBUG=1` adds the message, which may hold patient data |
| 2 | wrong arguments, recipe or bundle: nothing was done |
| 3 | an input was refused, or cases were skipped, each with a [reason code](reason-codes.md) |
| 4 | `medvl train`: a stage diverged; its last good checkpoint is kept |
| 6 | `medvl gate`: the new bundle did not pass |
| 130, 143 | stopped by Ctrl-C or SIGTERM; work so far is kept, and the same command goes on |
"""


def commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Every command under `group` with its full name, in the order of `--help`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`" + (", one or more" if parameter.nargs == -1 else "")
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return names if parameter.is_flag else f"{names} `{parameter.metavar}`"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default is None or parameter.default is False:
        return ""
    return f"`{parameter.opts[0]}`" if parameter.is_flag else f"`{getattr(parameter.default, 'value', parameter.default)}`"


def _section(name: str, command: Any) -> str:
    rows = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in (_spelling(p), _default(p), p.help or "")) + " |"
        for p in command.params
        if p.name != "help"
    ]
    table = "\n".join(["| argument or option | default | |", "|---|---|---|", *rows]) if rows else ""
    parts = [f"## `{name}`", command.help, table, command.epilog]
    return "\n\n".join(part.strip() for part in parts if part)


def page() -> str:
    """The whole page as Markdown."""
    sections = [_section(name, command) for name, command in commands(typer.main.get_command(app), "medvl")]
    return "\n\n".join([INTRO.strip(), *sections]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
