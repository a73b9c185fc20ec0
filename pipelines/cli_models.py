"""Verbs for models and cohorts: phantoms, training, embedding, evaluation, search, drafts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from medvl.errors import ConfigError

from .cli_app import (
    BundleOption,
    CheckpointOption,
    Device,
    DeviceOption,
    Format,
    IndexArgument,
    JsonOption,
    MlflowOption,
    OutOption,
    Parallel,
    ParallelOption,
    PatientKeyOption,
    TensorboardOption,
    ThreadsOption,
    Vectors,
    app,
    examples,
    existing,
)


def _list_recipes(value: bool) -> None:
    if value:
        from .built_in import recipes

        for name, summary in recipes().items():
            typer.echo(f"{name}: {summary}")
        raise typer.Exit


@app.command(
    epilog=examples(
        "medvl phantom --out cohort --n 20",
        "medvl phantom --out cohort --n 5 --format nifti --seed 11",
        "medvl phantom --out lakeside --n 300 --seed 5 --site lakeside --workers 2",
    )
)
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
    site: Annotated[
        str,
        typer.Option(
            metavar="NAME|YAML", help="The hospital: demo, lakeside, or a file. All but demo export a table of their own."
        ),
    ] = "demo",
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes.")] = 1,
) -> None:
    """Write a cohort of synthetic contrast CT studies with reports, outcomes and the truth beside them."""
    from . import phantom as verb

    chosen = tuple(dict.fromkeys(fmt.value for fmt in formats or [Format.dicom]))
    verb.run(out, n=n, seed=seed, formats=chosen, start=start, masks=masks, site=site, workers=workers)


@app.command(
    epilog=examples(
        "medvl ingest manifest.csv --out dataset --dry-run",
        "medvl ingest manifest.csv --out dataset --workers 8",
        'medvl ingest export.csv --out dataset --map report="Befund" --map label_renal_mass=Tumour --hold-out-site North',
        "medvl ingest manifest.csv --out dataset --dicomweb dicomweb+https://pacs/dicom-web --reviews results",
        "medvl train medslip-small --out runs/ours --table dataset",
    )
    + "\n\nFurther exit code: 3 rows or studies were left out; the dataset is made all the same."
)
def ingest(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="CSV or Parquet: one row a scan.")],
    out: OutOption,
    *,
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="WANTED=COLUMN", help="What a column is, where its name does not say; may be repeated."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What paths are relative to; default: the manifest's folder.")
    ] = None,
    clinical: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column that is a clinical covariate; may be repeated.")
    ] = None,
    identifiers: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column that identifies; its values are taken out of reports; may be repeated."),
    ] = None,
    dates: Annotated[str, typer.Option(metavar="dmy|mdy", help="Order in dates such as 03/04/2021; default: found out.")] = "",
    dicomweb: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="dicomweb+https://host/path: fetch studies that are given by UID.")
    ] = None,
    credentials: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Login for DICOMweb, mode 0600: user and password, or token.")
    ] = None,
    allow_plain: Annotated[bool, typer.Option("--allow-plain", help="Let DICOMweb run unencrypted to other machines.")] = False,
    reviews: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A results folder whose corrections become labels; may be repeated."),
    ] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Take corrections of studies that are not signed, too.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same splits, for patients who have none.")] = 0,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--hold-out-site", metavar="NAME", help="All patients of a site are for testing; may be repeated."),
    ] = None,
    join_leaks: Annotated[
        bool,
        typer.Option("--join-leaks", help="Move what may be one patient into one split, test before train."),
    ] = False,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Let what may be one patient stay in different splits, and train on it.")
    ] = False,
    patient_key: PatientKeyOption = None,
    deidentify: Annotated[
        bool, typer.Option("--deidentify-reports/--keep-reports", help="Take names, dates and numbers out of reports.")
    ] = True,
    workers: Annotated[int | None, typer.Option(metavar="N", min=1, help="Processes; default: one a core, at most 8.")] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="Longest time for one study.")] = 600.0,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at any fault of the manifest.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what each column is, check every row; write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a dataset of a spreadsheet: check it, convert every study once, split by patient, write a data card."""
    existing(manifest, *([root] if root else []), *(reviews or []))
    from . import ingest as verb

    raise typer.Exit(
        verb.run(
            manifest,
            out,
            maps=maps or (),
            root=root,
            clinical=clinical or (),
            identifiers=identifiers or (),
            dates=dates,
            dicomweb=dicomweb,
            credentials=credentials,
            allow_plain=allow_plain,
            reviews=reviews or (),
            unsigned=unsigned,
            seed=seed,
            held_out=held_out or (),
            allow_leaks=allow_leaks,
            join_leaks=join_leaks,
            patient_key=patient_key,
            deidentify=deidentify,
            workers=workers or verb.default_workers(),
            timeout_s=timeout,
            strict=strict,
            dry_run=dry_run,
            as_json=as_json,
        )
    )


@app.command(
    epilog=examples(
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
        Path | None, typer.Option(metavar="CSV|DATASET", help="Studies to learn from: a table, or what medvl ingest made.")
    ] = None,
    places: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="Bundle whose localiser finds regions in the table's scans.")
    ] = None,
    device: DeviceOption = Device.auto,
    parallel: ParallelOption = Parallel.ddp,
    threads: ThreadsOption = None,
    checkpoint_minutes: CheckpointOption = 2.0,
    tensorboard: TensorboardOption = None,
    mlflow: MlflowOption = None,
    start: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Begin with weights that `medvl import-release` wrote.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show stages, sizes and cohorts; train and write nothing.")] = False,
    listed: Annotated[
        bool, typer.Option("--list", callback=_list_recipes, is_eager=True, help="Name the built-in recipes.")
    ] = False,
) -> None:
    """Train as a recipe says, stage by stage; run again, it goes on where it stopped."""
    _well_formed(overrides or [])
    existing(*(path for path in (table, start) if path is not None))
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
            mlflow=mlflow,
            start=start,
            dry_run=dry_run,
        )
    )


@app.command(
    epilog=examples(
        "medvl embed phantom-demo --out runs/embedded/test",
        "medvl embed phantom-demo --split train --crops runs/cohorts --out runs/embedded/train",
        "medvl embed runs/ours/bundle --table studies.csv --out embedded",
    )
)
def embed(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A built-in bundle, a bundle folder, one of the store, or `promoted`.")
    ],
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
    patient_key: PatientKeyOption = None,
) -> None:
    """Write what a bundle makes of a cohort (embeddings, scores, reports, truth): the input of evaluate, index and heads."""
    if table is not None:
        existing(table)
    from . import embed as verb

    raise typer.Exit(verb.run(bundle, out, split=split, table=table, crops=crops, limit=limit, patient_key=patient_key))


@app.command(
    epilog=examples(
        "medvl evaluate phantom-demo --out runs/evaluation",
        "medvl evaluate --protocol list",
        "medvl evaluate runs/ours/bundle --protocol reports-held-out --embedded embedded/test --training embedded/train",
        "medvl evaluate runs/b/bundle --embedded b/test --against runs/a/bundle=a/test",
        "medvl evaluate runs/ours/bundle --protocol ten-tasks --embedded embedded/test --training embedded/train"
        " --training embedded/validation --labels lesions.csv",
    )
    + "\n\nFurther exit code: 5 a case of the cohort is in a training split too; results are written all the same."
)
def evaluate(
    bundle: Annotated[
        str | None, typer.Argument(metavar="BUNDLE", help="A built-in bundle, a bundle folder, one of the store, or `promoted`.")
    ] = None,
    *,
    protocol: Annotated[
        str, typer.Option(metavar="NAME|FILE|list", help="What is measured; list names the built-in protocols.")
    ] = "phantom-held-out",
    embedded: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="What medvl embed wrote; default: the bundle's own phantoms, embedded now. Heads also take several scans.",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="BUNDLE[=DIR]", help="A second model on the same patients, with its embedded folder.")
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Embedded patients of other splits, to look for leaks and fit heads; may be repeated."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Labels of lesions, for a protocol that fits heads; default: the phantoms' truth."),
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
    from . import evaluate_tasks as of_tasks

    if protocol == "list":
        raise typer.Exit(verb.list_protocols())
    if bundle is None:
        raise ConfigError("name the bundle to evaluate, such as medvl evaluate phantom-demo")
    scans = embedded or []
    existing(*scans, *(training or []), *([labels] if labels else []))
    if of_tasks.applies(protocol):
        given: Any = {"embedded": scans, "training": training or (), "labels": labels, "against": against, "out": out}
        raise typer.Exit(of_tasks.run(bundle, protocol=protocol, draws=draws, limit=limit, as_json=as_json, **given))
    if labels is not None or len(scans) > 1:
        raise ConfigError(
            f"protocol {protocol} takes one embedded folder and no labels; those that fit heads, such as ten-tasks, do"
        )
    raise typer.Exit(
        verb.run(
            bundle,
            protocol=protocol,
            embedded=scans[0] if scans else None,
            against=against,
            training=training or (),
            out=out,
            draws=draws,
            limit=limit,
            as_json=as_json,
        )
    )


@app.command(
    epilog=examples(
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
    existing(source, *(path for path in (reports, captioner) if path))
    from . import draft as verb

    raise typer.Exit(verb.run(source, bundle=bundle, reports=reports, captioner=captioner, out=out, as_json=as_json))


@app.command(epilog=examples("medvl demo", "medvl demo --n 2 --no-view"))
def demo(
    out: OutOption = Path("demo"),
    n: Annotated[int, typer.Option("--n", metavar="N", min=1, help="Number of phantom patients.")] = 6,
    view: Annotated[bool, typer.Option("--view/--no-view", help="Open the viewer page at the end.")] = True,
) -> None:
    """From nothing to findings: write phantom studies as DICOM, run the bundled model, print the table, open the viewer."""
    from . import demo as verb

    raise typer.Exit(verb.run(out, n=n, view_page=view))


@app.command(
    epilog=examples(
        "medvl search cases --like P0012/kidney_left --filter 'phase=portal_venous age>=60'",
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
    existing(index)
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


def _well_formed(overrides: Sequence[str]) -> None:
    """Each override must read KEY=VALUE."""
    for override in overrides:
        key, sign, _ = override.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set takes KEY=VALUE, such as --set attributes.steps=6000; got {override!r}")
