"""The `medvl` command. Each verb imports its module when it runs, so that help answers at once and loads no torch."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from medvl import __version__
from medvl.errors import InputError, MedvlError

# isort: off
from . import (
    cli_studies,
    cli_upkeep,
    cli_models,
    cli_bundles,
    cli_retrain,
    cli_parts,
)  # in the order in which help names the verbs
from .cli_app import app
# isort: on

__all__ = ["app", "cli_bundles", "cli_models", "cli_parts", "cli_retrain", "cli_studies", "cli_upkeep", "main"]

EXIT_CRASH, EXIT_USAGE, EXIT_SKIPPED = 1, 2, 3


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"medvl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def _crash(error: Exception) -> None:
    """Say where it broke. The message may hold a path or a name from the data, so it is shown only on request."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "typer" not in Path(frame.filename).parts]
    frames = "".join(traceback.format_list(ours))
    shown = str(error) if os.environ.get("MEDVL_DEBUG") else "(set MEDVL_DEBUG=1 to see the message; it may hold patient data)"
    typer.echo(f"medvl broke; this is our fault, not yours.\n{frames}{type(error).__name__}: {shown}", err=True)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command with `argv` (default: the process's own) and leave with its exit code."""
    try:
        app(args=None if argv is None else list(argv), prog_name="medvl")
    except MedvlError as error:
        typer.echo(f"medvl: {error}", err=True)
        sys.exit(EXIT_SKIPPED if isinstance(error, InputError) else EXIT_USAGE)
    except Exception as error:
        _crash(error)
        sys.exit(EXIT_CRASH)
    sys.exit(0)
