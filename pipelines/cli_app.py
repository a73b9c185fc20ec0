"""The command's skeleton: its groups, and the arguments that several verbs share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medvl.errors import ConfigError

app = typer.Typer(
    name="medvl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Findings with evidence from 3D CT.  \nResearch software: not a medical device, not for diagnosis or treatment.",
    epilog="Exit codes: 0 all done, 1 crash, 2 wrong arguments, config or bundle, 3 input refused or cases skipped.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
bundles_app = typer.Typer(no_args_is_help=True, help="Model bundles: which there are, where they came from, which one is in use.")
app.add_typer(bundles_app, name="bundles")
index_app = typer.Typer(no_args_is_help=True, help="Build and keep indexes of cases, which `medvl search` searches.")
app.add_typer(index_app, name="index")
findings_app = typer.Typer(no_args_is_help=True, help="Your own findings lists: check one against a bundle, calibrate one.")
app.add_typer(findings_app, name="findings")
review_app = typer.Typer(no_args_is_help=True, help="What humans decided in the viewer: labels for training, the audit log.")
app.add_typer(review_app, name="review")


class Device(StrEnum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Parallel(StrEnum):
    """How weights are held when several processes train."""

    ddp = "ddp"
    fsdp = "fsdp"


class Vectors(StrEnum):
    """Which vectors of a case."""

    image = "image"
    report = "report"


class Dates(StrEnum):
    """What becomes of dates."""

    remove = "remove"
    shift = "shift"
    keep = "keep"


class Labels(StrEnum):
    """File format of labels."""

    csv = "csv"
    parquet = "parquet"
    json = "json"


class Format(StrEnum):
    """File format of phantom volumes."""

    dicom = "dicom"
    nifti = "nifti"


BundleOption = Annotated[
    str,
    typer.Option("--bundle", "-b", metavar="NAME|DIR", help="A built-in bundle, a folder, one of the store, or `promoted`."),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write to; made when missing.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout instead of text.")]
DeviceOption = Annotated[Device, typer.Option(metavar="auto|cpu|cuda", help="auto takes a CUDA device where there is one.")]
ParallelOption = Annotated[
    Parallel, typer.Option(metavar="ddp|fsdp", help="Under torchrun: weights copied to each process, or sharded.")
]
ThreadsOption = Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads of each process; default: torch decides.")]
CheckpointOption = Annotated[
    float, typer.Option(metavar="MINUTES", min=0, help="Time between checkpoints; 0 writes one after every step.")
]
TensorboardOption = Annotated[
    bool | None,
    typer.Option(
        "--tensorboard/--no-tensorboard",
        help="Write the curves for TensorBoard, in each stage's folder; default: where it is installed, as by the extra train.",
    ),
]
MlflowOption = Annotated[
    str | None,
    typer.Option(metavar="DIR|URI", help="Also note stages and the bundle in MLflow: a folder here, or a server's address."),
]
PatientKeyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The site's key, by which the same patient is known again in results, datasets and indexes; made at first use, "
        "mode 0600; default: the file that MEDVL_PATIENT_KEY names, else no link is kept.",
    ),
]
IndexArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder that `medvl index build` wrote.")]


def examples(*lines: str) -> str:
    """Markdown that shows each command on a line of its own."""
    return "Examples:  \n" + "  \n".join(f"`{line}`" for line in lines)


def some_existing(inputs: Sequence[str], out: Path) -> None:
    """Stop before any work when no input is there and nothing was begun in `out`: then something is misspelt.

    A disk that is not mounted tonight must not keep a run from the other inputs, nor from what it began: it ends as `not_found`.
    """
    paths = [Path(given) for given in inputs if "://" not in given]
    if len(paths) == len(inputs) and not any(map(_there, paths)) and not _there(out / "studies"):
        existing(*paths)


def existing(*paths: Path) -> None:
    """Stop before any work when an input is not there."""
    for path in paths:
        if not _there(path):
            raise ConfigError(f"no such file or folder: {path}; check the spelling and whether the disk is mounted")


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False
