"""The `medvl` command. Each verb imports its module when it runs, so that help answers at once and loads no torch."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from medvl import __version__
from medvl.errors import ConfigError, InputError, MedvlError

EXIT_CRASH, EXIT_USAGE, EXIT_SKIPPED = 1, 2, 3

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
bundle_app = typer.Typer(no_args_is_help=True, help="List and verify model bundles: weights with all that is needed to use them.")
app.add_typer(bundle_app, name="bundle")
index_app = typer.Typer(no_args_is_help=True, help="Build and keep indexes of cases, which `medvl search` searches.")
app.add_typer(index_app, name="index")
findings_app = typer.Typer(no_args_is_help=True, help="Your own findings lists: check one against a bundle, calibrate one.")
app.add_typer(findings_app, name="findings")


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


class Format(StrEnum):
    """File format of phantom volumes."""

    dicom = "dicom"
    nifti = "nifti"


BundleOption = Annotated[str, typer.Option("--bundle", "-b", metavar="NAME|DIR", help="A built-in bundle, or a bundle folder.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write to; made when missing.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout instead of text.")]


IndexArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder that `medvl index build` wrote.")]


def _examples(*lines: str) -> str:
    """Markdown that shows each command on a line of its own."""
    return "Examples:  \n" + "  \n".join(f"`{line}`" for line in lines)


def _existing(*paths: Path) -> None:
    """Stop before any work when an input is not there."""
    for path in paths:
        if not path.exists():
            raise ConfigError(f"no such file or folder: {path}; check the spelling and whether the disk is mounted")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"medvl {__version__}")
        raise typer.Exit


def _list_recipes(value: bool) -> None:
    if value:
        from .built_in import recipes

        for name, summary in recipes().items():
            typer.echo(f"{name}: {summary}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command(epilog=_examples("medvl inspect study/", "medvl inspect export.zip --json"))
def inspect(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="DICOM folder or file, zip, or NIfTI.")],
    as_json: JsonOption = False,
) -> None:
    """Show what is in SOURCE: every series, its verdict with reason codes, and which one a model would use and why."""
    _existing(source)
    from . import inspect as verb

    raise typer.Exit(verb.run(source, as_json=as_json))


@app.command(epilog=_examples("medvl convert study/ --out nifti/"))
def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="DICOM folder or file, zip, or NIfTI.")],
    out: OutOption,
) -> None:
    """Write one NIfTI in Hounsfield units for every series that is a volume; refused series give no file."""
    _existing(source)
    from . import convert as verb

    raise typer.Exit(verb.run(source, out))


@app.command(epilog=_examples("medvl phantom --out cohort --n 20", "medvl phantom --out cohort --n 5 --format nifti --seed 11"))
def phantom(
    out: OutOption,
    *,
    n: Annotated[int, typer.Option("--n", metavar="N", min=1, help="Number of patients.")] = 20,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same cohort.")] = 7,
    formats: Annotated[
        list[Format] | None, typer.Option("--format", metavar="dicom|nifti", help="May be repeated; dicom when not given.")
    ] = None,
    start: Annotated[int, typer.Option(metavar="N", min=0, help="Number of the first patient.")] = 0,
    masks: Annotated[bool, typer.Option("--masks", help="Also write a NIfTI mask for each finding.")] = False,
) -> None:
    """Write a cohort of synthetic contrast CT studies with reports, outcomes and the truth beside them."""
    from . import phantom as verb

    chosen = tuple(dict.fromkeys(fmt.value for fmt in formats or [Format.dicom]))
    verb.run(out, n=n, seed=seed, formats=chosen, start=start, masks=masks)


@app.command(
    epilog=_examples(
        "medvl infer study/ --bundle phantom-demo --out results",
        "medvl infer day1/ day2.zip ct.nii.gz -b phantom-demo -o results",
        "medvl infer study/ -b phantom-demo -o results --findings mine.yaml",
    )
)
def infer(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="DICOM folders, zips or NIfTI files.")],
    bundle: BundleOption,
    out: OutOption,
    device: Annotated[
        Device, typer.Option(metavar="auto|cpu|cuda", help="auto takes a CUDA device where there is one.")
    ] = Device.auto,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Masks of the regions of one study, as TotalSegmentator names them; they replace the localiser."
        ),
    ] = None,
    findings: Annotated[
        Path | None,
        typer.Option(metavar="YAML", help="Ask these findings; those the bundle has no calibration for get no verdict."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a model over studies: findings and heat maps for each, one table for all. A rerun resumes."""
    _existing(*inputs, *([masks] if masks else []), *([findings] if findings else []))
    from . import infer as verb

    raise typer.Exit(
        verb.run(inputs, bundle=bundle, out=out, device=device.value, masks=masks, findings=findings, as_json=as_json)
    )


@app.command(epilog=_examples("medvl view --results results", "medvl view --results results --port 8600 --no-browser"))
def view(
    results: Annotated[Path, typer.Option("--results", "-r", metavar="DIR", help="What `medvl infer` wrote.")],
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="Port on this machine.")] = 8501,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Open the viewer page on the results of `medvl infer`; it serves this machine only."""
    _existing(results)
    from . import view as verb

    raise typer.Exit(verb.run(results, port=port, open_browser=browser))


@app.command(
    epilog=_examples(
        "medvl train --list",
        "medvl train renalclip-small --out runs/first --dry-run",
        "medvl train renalclip-small --out runs/first",
        "medvl train cardiac-clip-small --out runs/longer --set stages.masked.steps=6000",
        "medvl train medslip-small --out runs/ours --table studies.csv",
        "torchrun --nproc-per-node 2 --no-python medvl train renalclip-small --out runs/two",
    )
    + "\n\nFurther exit codes: 4 a stage diverged; 130 Ctrl-C and 143 SIGTERM, after which the same command goes on."
)
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A recipe file, or the name of a built-in recipe (--list).")],
    out: OutOption,
    *,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key; may be repeated.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Studies and reports to learn from, instead of the recipe's phantoms.")
    ] = None,
    places: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="Bundle whose localiser finds regions in the table's scans.")
    ] = None,
    device: Annotated[
        Device, typer.Option(metavar="auto|cpu|cuda", help="auto takes a CUDA device where there is one.")
    ] = Device.auto,
    parallel: Annotated[
        Parallel, typer.Option(metavar="ddp|fsdp", help="Under torchrun: weights copied to each process, or sharded.")
    ] = Parallel.ddp,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads of each process; default: torch decides.")
    ] = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(metavar="MINUTES", min=0, help="Time between checkpoints; 0 writes one after every step.")
    ] = 2.0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write the curves for TensorBoard, in each stage's folder.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show stages, sizes and cohorts; train and write nothing.")] = False,
    listed: Annotated[
        bool, typer.Option("--list", callback=_list_recipes, is_eager=True, help="Name the built-in recipes.")
    ] = False,
) -> None:
    """Train as a recipe says, stage by stage; run again, it goes on where it stopped."""
    _well_formed(overrides or [])
    if table is not None:
        _existing(table)
    from . import train as verb

    raise typer.Exit(
        verb.run(
            config,
            out,
            overrides or [],
            table,
            places,
            device=device.value,
            parallel=parallel.value,
            threads=threads,
            checkpoint_minutes=checkpoint_minutes,
            tensorboard=tensorboard,
            dry_run=dry_run,
        )
    )


@app.command(
    epilog=_examples(
        "medvl embed phantom-demo --out runs/embedded/test",
        "medvl embed phantom-demo --split train --crops runs/cohorts --out runs/embedded/train",
        "medvl embed runs/ours/bundle --table studies.csv --out embedded",
    )
)
def embed(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A built-in bundle, or a bundle folder.")],
    out: OutOption,
    *,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which phantoms: train, validation or test.")] = "test",
    table: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Your studies and reports instead; every split gets a folder in DIR.")
    ] = None,
    crops: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Crops around the true centres, built or found here, instead of scans.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N patients.")] = None,
) -> None:
    """Write what a bundle makes of a cohort (embeddings, scores, reports, truth): the input of evaluate, index and heads."""
    if table is not None:
        _existing(table)
    from . import embed as verb

    raise typer.Exit(verb.run(bundle, out, split=split, table=table, crops=crops, limit=limit))


@app.command(
    epilog=_examples(
        "medvl evaluate phantom-demo --out runs/evaluation",
        "medvl evaluate --protocol list",
        "medvl evaluate runs/ours/bundle --protocol reports-held-out --embedded embedded/test --training embedded/train",
        "medvl evaluate runs/b/bundle --embedded b/test --against runs/a/bundle=a/test",
    )
    + "\n\nFurther exit code: 5 a case of the cohort is in a training split too; results are written all the same."
)
def evaluate(
    bundle: Annotated[str | None, typer.Argument(metavar="BUNDLE", help="A built-in bundle, or a bundle folder.")] = None,
    *,
    protocol: Annotated[
        str, typer.Option(metavar="NAME|FILE|list", help="What is measured; list names the built-in protocols.")
    ] = "phantom-held-out",
    embedded: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What medvl embed wrote; default: the bundle's own phantoms, embedded now.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="BUNDLE[=DIR]", help="A second model on the same patients, with its embedded folder.")
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Embedded patients of other splits, to look for leaks; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write report.html, report.md and results.json here.")
    ] = None,
    draws: Annotated[int | None, typer.Option(metavar="N", min=100, help="Bootstrap draws, instead of the protocol's.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=2, help="Only the first N phantoms.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a bundle as a protocol says: findings, retrieval, survival, subgroups, leaks, all with intervals over patients."""
    from . import evaluate as verb

    if protocol == "list":
        raise typer.Exit(verb.list_protocols())
    if bundle is None:
        raise ConfigError("name the bundle to evaluate, such as medvl evaluate phantom-demo")
    _existing(*([embedded] if embedded else []), *(training or []))
    raise typer.Exit(
        verb.run(
            bundle,
            protocol=protocol,
            embedded=embedded,
            against=against,
            training=training or (),
            out=out,
            draws=draws,
            limit=limit,
            as_json=as_json,
        )
    )


@app.command(
    epilog=_examples(
        "medvl draft study/ --bundle phantom-demo --reports embedded/train",
        "medvl draft results/studies/0a1b2c3d4e5f --bundle phantom-demo --out draft",
    )
)
def draft(
    source: Annotated[
        Path, typer.Argument(metavar="STUDY|RESULT", help="One study, or a study's folder of what `medvl infer` wrote.")
    ],
    bundle: BundleOption,
    reports: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Reports to take sentences from: what `medvl embed` wrote of a cohort.")
    ] = None,
    captioner: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A trained captioner; default: the bundle's, where it has one.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write draft.txt and draft.json here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Draft a report of one study: each sentence with the finding and evidence it rests on. Never a report by itself."""
    _existing(source, *(path for path in (reports, captioner) if path))
    from . import draft as verb

    raise typer.Exit(verb.run(source, bundle=bundle, reports=reports, captioner=captioner, out=out, as_json=as_json))


@app.command(epilog=_examples("medvl demo", "medvl demo --n 2 --no-view"))
def demo(
    out: OutOption = Path("demo"),
    n: Annotated[int, typer.Option("--n", metavar="N", min=1, help="Number of phantom patients.")] = 6,
    view: Annotated[bool, typer.Option("--view/--no-view", help="Open the viewer page at the end.")] = True,
) -> None:
    """From nothing to findings: write phantom studies as DICOM, run the bundled model, print the table, open the viewer."""
    from . import demo as verb

    raise typer.Exit(verb.run(out, n=n, view_page=view))


@app.command(
    epilog=_examples(
        "medvl search cases --like P0012/kidney_left --filter 'phase=venous age>=60'",
        "medvl search cases --text 'Solid mass in the upper pole of the left kidney.' --bundle phantom-demo",
        "medvl search cases --like P0012/kidney_left --among report --k 3 --show-text",
    )
)
def search(
    index: IndexArgument,
    *,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="Search by words; needs --bundle.")] = None,
    bundle: Annotated[
        str | None, typer.Option("--bundle", "-b", metavar="NAME|DIR", help="The bundle that made the index.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="PATIENT/REGION", help="Search by a case of the index; its patient and duplicates are left out."),
    ] = None,
    asks: Annotated[Vectors, typer.Option(metavar="image|report", help="Which vector of that case asks.")] = Vectors.image,
    among: Annotated[Vectors, typer.Option(metavar="image|report", help="Which vectors are searched.")] = Vectors.image,
    where: Annotated[
        str,
        typer.Option(
            "--filter", metavar="CONDITIONS", help="All must hold, such as 'region=kidney_left age>=60 finding:renal_mass'."
        ),
    ] = "",
    k: Annotated[int, typer.Option("--k", "-k", metavar="N", min=1, help="How many cases.")] = 10,
    everything: Annotated[
        bool, typer.Option("--everything", help="Do not leave out the patient's other cases, nor duplicates.")
    ] = False,
    literal: Annotated[
        bool, typer.Option("--literal", help="Compare with the text alone, not with the text less its negation.")
    ] = False,
    show_text: Annotated[
        bool, typer.Option("--show-text", help="Also print reports, which may hold what identifies a patient.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find cases in an index by free text, or like one of its cases: every case that passes the filter is compared."""
    _existing(index)
    from . import search as verb

    raise typer.Exit(
        verb.run(
            index,
            text=text,
            bundle=bundle,
            like=like,
            asks=asks.value,
            among=among.value,
            where=where,
            k=k,
            everything=everything,
            literal=literal,
            show_text=show_text,
            as_json=as_json,
        )
    )


@index_app.command("build", epilog=_examples("medvl index build embedded/train embedded/test --out cases"))
def index_build(
    folders: Annotated[list[Path], typer.Argument(metavar="EMBEDDED", help="Folders that `medvl embed` wrote.")],
    out: OutOption,
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Cases that are in the index already are replaced.")] = False,
) -> None:
    """Add embedded cohorts to an index, which is made when missing; a stop leaves whole batches only."""
    _existing(*folders)
    from . import index as verb

    raise typer.Exit(verb.build(folders, out, replace=replace))


@index_app.command("info", epilog=_examples("medvl index info cases"))
def index_info(index: IndexArgument, *, as_json: JsonOption = False) -> None:
    """Print how many cases an index holds, and of which model."""
    _existing(index)
    from . import index as verb

    raise typer.Exit(verb.info(index, as_json=as_json))


@index_app.command("verify", epilog=_examples("medvl index verify cases"))
def index_verify(index: IndexArgument) -> None:
    """Check every vector against the hash it was added with."""
    _existing(index)
    from . import index as verb

    raise typer.Exit(verb.verify(index))


@index_app.command("delete", epilog=_examples("medvl index delete cases --patient P0012"))
def index_delete(
    index: IndexArgument,
    *,
    patients: Annotated[list[str] | None, typer.Option("--patient", metavar="ID", help="May be repeated.")] = None,
    cases: Annotated[list[str] | None, typer.Option("--case", metavar="PATIENT/REGION", help="May be repeated.")] = None,
) -> None:
    """Take patients or single cases out of an index, their vectors and texts included."""
    _existing(index)
    from . import index as verb

    raise typer.Exit(verb.delete(index, patients=patients or (), cases=cases or ()))


@index_app.command("compact", epilog=_examples("medvl index compact cases"))
def index_compact(index: IndexArgument) -> None:
    """Write an index anew without the vectors of deleted and replaced cases."""
    _existing(index)
    from . import index as verb

    raise typer.Exit(verb.compact(index))


@bundle_app.command("list")
def bundle_list() -> None:
    """Name the built-in bundles."""
    from . import bundle as verb

    raise typer.Exit(verb.list_built_in())


@bundle_app.command("verify", epilog=_examples("medvl bundle verify phantom-demo"))
def bundle_verify(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A built-in bundle, or a bundle folder.")],
) -> None:
    """Check every file of a bundle against its SHA-256 and its contract against its hash."""
    from . import bundle as verb

    raise typer.Exit(verb.verify(name))


@findings_app.command("check", epilog=_examples("medvl findings check mine.yaml --bundle phantom-demo"))
def findings_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A findings list in YAML.")],
    bundle: BundleOption,
) -> None:
    """Say what is wrong with a findings list, and which of its findings the bundle has a calibration for."""
    _existing(file)
    from . import findings as verb

    raise typer.Exit(verb.check(file, bundle))


@findings_app.command(
    "calibrate",
    epilog=_examples(
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
    _existing(file, embedded)
    from . import findings as verb

    raise typer.Exit(verb.calibrate(file, bundle, embedded, out, against=against, method=method))


def _well_formed(overrides: Sequence[str]) -> None:
    """Each override must read KEY=VALUE."""
    for override in overrides:
        key, sign, _ = override.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set takes KEY=VALUE, such as --set attributes.steps=6000; got {override!r}")


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
