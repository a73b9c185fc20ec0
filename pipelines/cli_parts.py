"""Verbs in groups: indexes, findings lists, reviews."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_app import (
    BundleOption,
    IndexArgument,
    JsonOption,
    Labels,
    OutOption,
    examples,
    existing,
    findings_app,
    index_app,
    review_app,
)

ReviewedArgument = Annotated[Path, typer.Argument(metavar="RESULTS", help="Results folder that was reviewed in `medvl view`.")]
KeyFileOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Key of the reviews, where it does not lie in the folder.")
]


@index_app.command("build", epilog=examples("medvl index build embedded/train embedded/test --out cases"))
def index_build(
    folders: Annotated[list[Path], typer.Argument(metavar="EMBEDDED", help="Folders that `medvl embed` wrote.")],
    out: OutOption,
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Cases that are in the index already are replaced.")] = False,
) -> None:
    """Add embedded cohorts to an index, which is made when missing; a stop leaves whole batches only."""
    existing(*folders)
    from . import index as verb

    raise typer.Exit(verb.build(folders, out, replace=replace))


@index_app.command("info", epilog=examples("medvl index info cases"))
def index_info(index: IndexArgument, *, as_json: JsonOption = False) -> None:
    """Print how many cases an index holds, and of which model."""
    existing(index)
    from . import index as verb

    raise typer.Exit(verb.info(index, as_json=as_json))


@index_app.command("verify", epilog=examples("medvl index verify cases"))
def index_verify(index: IndexArgument) -> None:
    """Check every vector against the hash it was added with."""
    existing(index)
    from . import index as verb

    raise typer.Exit(verb.verify(index))


@index_app.command("delete", epilog=examples("medvl index delete cases --patient P0012"))
def index_delete(
    index: IndexArgument,
    *,
    patients: Annotated[list[str] | None, typer.Option("--patient", metavar="ID", help="May be repeated.")] = None,
    cases: Annotated[list[str] | None, typer.Option("--case", metavar="PATIENT/REGION", help="May be repeated.")] = None,
) -> None:
    """Take patients or single cases out of an index, their vectors and texts included."""
    existing(index)
    from . import index as verb

    raise typer.Exit(verb.delete(index, patients=patients or (), cases=cases or ()))


@index_app.command("compact", epilog=examples("medvl index compact cases"))
def index_compact(index: IndexArgument) -> None:
    """Write an index anew without the vectors of deleted and replaced cases."""
    existing(index)
    from . import index as verb

    raise typer.Exit(verb.compact(index))


@findings_app.command("check", epilog=examples("medvl findings check mine.yaml --bundle phantom-demo"))
def findings_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A findings list in YAML.")],
    bundle: BundleOption,
) -> None:
    """Say what is wrong with a findings list, and which of its findings the bundle has a calibration for."""
    existing(file)
    from . import findings as verb

    raise typer.Exit(verb.check(file, bundle))


@findings_app.command(
    "calibrate",
    epilog=examples(
        "medvl embed phantom-demo --split validation --out embedded",
        "medvl findings calibrate mine.yaml --bundle phantom-demo --embedded embedded --out bundles/mine",
    ),
)
def findings_calibrate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A findings list in YAML.")],
    bundle: BundleOption,
    embedded: Annotated[
        Path, typer.Option(metavar="DIR", help="What `medvl embed` made of validation patients with this bundle.")
    ],
    out: OutOption,
    against: Annotated[str, typer.Option(metavar="said|truth", help="What reports state, or what is known otherwise.")] = "said",
    method: Annotated[
        str, typer.Option(metavar="platt|temperature|isotonic", help="How margins become probabilities.")
    ] = "platt",
) -> None:
    """Fit probabilities and thresholds of a findings list on validation patients, and seal a new bundle with them."""
    existing(file, embedded)
    from . import findings as verb

    raise typer.Exit(verb.calibrate(file, bundle, embedded, out, against=against, method=method))


@review_app.command(
    "export",
    epilog=examples("medvl review export results --out labels.csv", "medvl review export results -o l.parquet --format parquet"),
)
def review_export(
    results: ReviewedArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write; replaced when it is there.")],
    *,
    form: Annotated[Labels, typer.Option("--format", metavar="csv|parquet|json", help="Of the file.")] = Labels.csv,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Also decisions of studies that are not signed.")] = False,
    key_file: KeyFileOption = None,
) -> None:
    """Write what humans decided as labels for training, one row a finding and region; no names, no free text."""
    existing(results)
    from . import review as verb

    raise typer.Exit(verb.export(results, out, form=form.value, unsigned=unsigned, key_file=key_file))


@review_app.command(
    "audit",
    epilog=examples("medvl review audit results --verify", "medvl review audit results --out log.jsonl")
    + "\n\nFurther exit code: 5 the log was tampered with.",
)
def review_audit(
    results: ReviewedArgument,
    *,
    verify: Annotated[bool, typer.Option("--verify", help="Check every event against the chain of hashes.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="END", help="End of the log as an earlier check told it; finds old copies put back.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write all events as JSON lines.")] = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who saw and did what with a results folder, or check that nobody altered that record."""
    existing(results)
    from . import review as verb

    raise typer.Exit(verb.audit(results, verify=verify, since=since, out=out, key_file=key_file, as_json=as_json))
