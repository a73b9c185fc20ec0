"""Verbs for those who keep the machine: is it ready, do studies drift, take identity out, carry medvl over an air gap."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .cli_app import Dates, JsonOption, OutOption, app, examples, existing


class BurnedIn(StrEnum):
    """What becomes of images that may show text."""

    refuse = "refuse"
    quarantine = "quarantine"
    keep = "keep"


class Layout(StrEnum):
    """Software that a bundle is written for."""

    huggingface = "huggingface"
    monai = "monai"
    onnx = "onnx"
    torch_export = "torch-export"


class System(StrEnum):
    """Projects whose released checkpoints are known."""

    renalclip = "renalclip"
    cardiac_clip = "cardiac-clip"
    medslip = "medslip"


@app.command(
    epilog=examples("medvl doctor", "medvl doctor --bundle phantom-demo --out results --pacs dicomweb+https://pacs/dicom-web")
    + "\n\nFurther exit code: 3 there is a problem."
)
def doctor(
    *,
    bundle: Annotated[
        str | None, typer.Option("--bundle", "-b", metavar="NAME|DIR", help="Also check this bundle, file by file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder that results will go to; tested and left as it was."),
    ] = None,
    pacs: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Greet this PACS: dicom://AE@host:port or dicomweb+https://host/path."),
    ] = None,
    listen: Annotated[int | None, typer.Option(metavar="PORT", help="See whether medvl listen can take this port.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: packages, GPU, decoders, disks, bundle, PACS; each problem with its fix."""
    from . import doctor as verb

    raise typer.Exit(verb.run(bundle=bundle, folder=out, pacs=pacs, listen=listen, as_json=as_json))


@app.command(
    epilog=examples("medvl drift results", "medvl drift results --by scanner,week --out drift")
    + "\n\nFurther exit code: 5 something stands out."
)
def drift(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="What `medvl infer` or `medvl listen` wrote.")],
    *,
    against: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR", help="The bundle that did the studies; built-in ones are found by their hash."),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="COLUMNS", help="Groups to compare: scanner, kernel, thickness, week, kvp, contrast.")
    ] = "scanner,kernel,thickness,week",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write drift.json, report.md, report.html and figures here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Do the studies of a results folder look like the bundle's own, and like one another?"""
    existing(results)
    from . import drift as verb

    raise typer.Exit(verb.run(results, against=against, by=by, out=out, as_json=as_json))


@app.command(
    epilog=examples(
        "medvl deidentify study/ --out clean", "medvl deidentify export.zip --out clean --dates shift --retain-device"
    )
    + "\n\nFurther exit code: 3 some files were refused or set aside."
)
def deidentify(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="DICOM folder, file or zip.")],
    out: OutOption,
    *,
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key of ids, UIDs and shifts; made at first use, mode 0600; default: beside --out."),
    ] = None,
    dates: Annotated[
        Dates,
        typer.Option(metavar="remove|shift|keep", help="Dates of study and series; shift moves a patient's by the same days."),
    ] = Dates.remove,
    retain_uids: Annotated[bool, typer.Option("--retain-uids", help="Keep UIDs, for a cohort that is linked by them.")] = False,
    retain_device: Annotated[bool, typer.Option("--retain-device", help="Keep what tells the scanner.")] = False,
    retain_patient_characteristics: Annotated[
        bool, typer.Option("--retain-patient-characteristics", help="Keep age, sex, size and weight.")
    ] = False,
    clean_descriptors: Annotated[
        bool,
        typer.Option("--clean-descriptors", help="Keep descriptions, less the patient's own words."),
    ] = False,
    burned_in: Annotated[
        BurnedIn, typer.Option(metavar="refuse|quarantine|keep", help="Images that may show text.")
    ] = BurnedIn.refuse,
    as_json: JsonOption = False,
) -> None:
    """Write a copy of DICOM files without identity, after the basic profile of PS3.15."""
    existing(source)
    from . import deidentify as verb

    raise typer.Exit(
        verb.run(
            source,
            out=out,
            key_file=key_file,
            retain_uids=retain_uids,
            dates=dates.value,
            retain_device=retain_device,
            retain_patient_characteristics=retain_patient_characteristics,
            clean_descriptors=clean_descriptors,
            burned_in=burned_in.value,
            as_json=as_json,
        )
    )


@app.command(epilog=examples("medvl pack --out medvl-offline.tar", "medvl pack --out medvl.tar --bundle runs/ours/bundle"))
def pack(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The archive to write; replaced when it is there.")],
    *,
    bundles: Annotated[
        list[str] | None, typer.Option("--bundle", "-b", metavar="NAME|DIR", help="Carry this bundle along; may be repeated.")
    ] = None,
    configs: Annotated[
        list[Path] | None, typer.Option("--config", metavar="FILE", help="Carry this file along; may be repeated.")
    ] = None,
    python: Annotated[str | None, typer.Option(metavar="X.Y", help="Python of the destination; default: this one's.")] = None,
    extras: Annotated[str, typer.Option(metavar="A,B", help="Extras of medvl to include, such as server.")] = "",
) -> None:
    """Write one archive with which medvl is installed on a machine without network."""
    existing(*(configs or []))
    from . import pack as verb

    wanted = [name.strip() for name in extras.split(",") if name.strip()]
    raise typer.Exit(verb.run(out, bundles=bundles or (), configs=configs or (), python=python, extras=wanted))


@app.command(
    epilog=examples(
        "medvl export phantom-demo --to huggingface --out exported",
        "medvl export runs/ours/bundle --to monai --out exported --license cc-by-nc-4.0",
        "medvl export runs/ours/bundle --to onnx --out exported --check study/",
    )
)
def export(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A built-in bundle, a bundle folder, one of the store, or `promoted`.")
    ],
    to: Annotated[Layout, typer.Option("--to", metavar="huggingface|monai|onnx|torch-export", help="Whose layout.")],
    out: OutOption,
    *,
    license_id: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="Licence of the weights, such as apache-2.0, for the card.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="SCAN", help="Scan to check graphs with; phantoms when not given.")
    ] = None,
) -> None:
    """Write a bundle for other software; graphs are checked against the model before they are kept. No file is a pickle."""
    if check is not None:
        existing(check)
    from . import export as verb

    raise typer.Exit(verb.run(bundle, to.value, out, license_id=license_id, check=check))


@app.command("import-bundle", epilog=examples("medvl import-bundle exported --out bundle"))
def import_bundle(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `medvl export` wrote for Hugging Face or MONAI.")],
    out: OutOption,
) -> None:
    """Turn an exported folder back into the bundle it was, with the same hash; altered weights are refused."""
    existing(folder)
    from . import export as verb

    raise typer.Exit(verb.import_bundle(folder, out))


@app.command(
    "import-release",
    epilog=examples(
        "medvl import-release renalclip RenalCLIP-image-encoder-model-best-acc.pt --out start",
        "medvl import-release medslip checkpoint.pth --out start --windows 1",
    )
    + "\n\nFurther exit code: 5 a weight is missing or unexplained; nothing is written.",
)
def import_release(
    system: Annotated[System, typer.Argument(metavar="renalclip|cardiac-clip|medslip", help="Whose release it is.")],
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Its file; read as tensors, no code in it runs.")],
    out: OutOption,
    *,
    windows: Annotated[int, typer.Option(metavar="N", min=1, help="HU windows of the input, for medslip: 3 or 1.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Bring a released checkpoint under medvl's names, with a report of every weight, as a start for `medvl train --start`."""
    existing(checkpoint)
    from . import import_release as verb

    raise typer.Exit(verb.run(system.value, checkpoint, out, windows=windows, as_json=as_json))
