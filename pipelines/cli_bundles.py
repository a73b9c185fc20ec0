"""Verbs for bundles: the gate, and the store with what is in use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvl.errors import ConfigError

from .cli_app import Device, JsonOption, OutOption, Parallel, app, bundles_app, examples, existing

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", metavar="DIR", help="Folder of the store; default: MEDVL_STORE, else in the user's data folder."),
]
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name, NAME-SHA12 or beginning of the SHA-256 of a bundle in the store.")
]
AnyArgument = Annotated[
    str, typer.Argument(metavar="NAME|DIR", help="A built-in bundle, a folder, one of the store, or `promoted`.")
]


@app.command(
    epilog=examples(
        "medvl gate phantom-demo runs/ours/bundle --embedded-before old/test --embedded-after new/test --out gate",
        "medvl gate promoted runs/ours/bundle --embedded-before old/test --embedded-after new/test --policy ours.yaml --out gate",
        "medvl gate --policy list",
    )
    + "\n\nFurther exit code: 6 the new bundle did not pass; the reasons are written all the same."
)
def gate(
    before: Annotated[
        str | None, typer.Argument(metavar="BEFORE", help="The bundle in use: built in, a folder, of the store, or `promoted`.")
    ] = None,
    after: Annotated[str | None, typer.Argument(metavar="AFTER", help="The new bundle.")] = None,
    *,
    embedded_before: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Held-out patients, embedded with BEFORE by `medvl embed`.")
    ] = None,
    embedded_after: Annotated[Path | None, typer.Option(metavar="DIR", help="The same patients, embedded with AFTER.")] = None,
    policy: Annotated[
        str, typer.Option(metavar="NAME|FILE|list", help="Margins and rules; list names the built-in policies.")
    ] = "default",
    training: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Embedded patients that AFTER learned from, to look for leaks in; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write gate.html, gate.md and gate.json here.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Copy AFTER into the store, with this gate beside it.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge whether a new bundle may take the place of the one in use, on the same held-out patients."""
    from . import gate as verb

    if policy == "list":
        raise typer.Exit(verb.list_policies())
    if before is None or after is None or embedded_before is None or embedded_after is None or out is None:
        raise ConfigError("name BEFORE and AFTER, and give --embedded-before, --embedded-after and --out")
    existing(embedded_before, embedded_after, *(training or []))
    raise typer.Exit(
        verb.run(
            before,
            after,
            embedded_before=embedded_before,
            embedded_after=embedded_after,
            out=out,
            policy=policy,
            training=training or (),
            keep=keep,
            store=store,
            as_json=as_json,
        )
    )


@bundles_app.command("list", epilog=examples("medvl bundles list", "medvl bundles list --json"))
def bundles_list(*, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Name every bundle, built in and of the store, with its gate, its parent, and which one is in use."""
    from . import bundles as verb

    raise typer.Exit(verb.list_all(store, as_json=as_json))


@bundles_app.command("show", epilog=examples("medvl bundles show ours", "medvl bundles show promoted"))
def bundles_show(name: NameArgument, *, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Tell where a bundle of the store came from, back to a built-in one, and what its gates said."""
    from . import bundles as verb

    raise typer.Exit(verb.show(name, store, as_json=as_json))


@bundles_app.command("verify", epilog=examples("medvl bundles verify phantom-demo", "medvl bundles verify promoted"))
def bundles_verify(name: AnyArgument, *, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Check every file of a bundle against its SHA-256 and its contract against its hash."""
    from . import bundles as verb

    raise typer.Exit(verb.verify(name, store, as_json=as_json))


@bundles_app.command(
    "add",
    epilog=examples("medvl bundles add runs/ours/bundle --parent phantom-demo", "medvl bundles add ours --gate gate/gate.json"),
)
def bundles_add(
    bundle: AnyArgument,
    *,
    parent: Annotated[str | None, typer.Option(metavar="NAME|DIR", help="What it was made from; comes along.")] = None,
    gate: Annotated[Path | None, typer.Option(metavar="FILE", help="gate.json of the gate that judged it.")] = None,
    data_sha256: Annotated[str | None, typer.Option(metavar="SHA", help="Hash of the data it learned from.")] = None,
    recipe: Annotated[str | None, typer.Option(metavar="TEXT", help="How it was trained.")] = None,
    code_version: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Software that made it; default: what the bundle says.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a bundle into the store under its hash, or tell the store more of one that it has."""
    from . import bundles as verb

    raise typer.Exit(
        verb.add(
            bundle,
            store,
            parent=parent,
            gate=gate,
            data_sha256=data_sha256,
            recipe=recipe,
            code_version=code_version,
            as_json=as_json,
        )
    )


@bundles_app.command(
    "promote",
    epilog=examples("medvl bundles promote ours", "medvl bundles promote ours --force --reason 'first bundle of this site'"),
)
def bundles_promote(
    name: NameArgument,
    *,
    force: Annotated[bool, typer.Option("--force", help="Although its gate failed or it has none; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Kept in the history; name no patients.")] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a bundle in use that passed its gate: from now on `--bundle promoted` means this one."""
    from . import bundles as verb

    raise typer.Exit(verb.promote(name, store, force=force, reason=reason, as_json=as_json))


@bundles_app.command("rollback", epilog=examples("medvl bundles rollback --reason 'too many false alarms'"))
def bundles_rollback(
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Kept in the history; name no patients.")] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the bundle in use again that was in use before, at once."""
    from . import bundles as verb

    raise typer.Exit(verb.rollback(store, reason=reason, as_json=as_json))


@bundles_app.command("history", epilog=examples("medvl bundles history"))
def bundles_history(*, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List every promotion and rollback with its gate and reason."""
    from . import bundles as verb

    raise typer.Exit(verb.history(store, as_json=as_json))


@bundles_app.command("diff", epilog=examples("medvl bundles diff phantom-demo promoted"))
def bundles_diff(before: AnyArgument, after: AnyArgument, *, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Tell what differs: input contract, questions, thresholds, provenance, and how far each part of the weights moved."""
    from . import bundles_diff as verb

    raise typer.Exit(verb.run(before, after, store, as_json=as_json))


@app.command(
    epilog=examples(
        "medvl retrain --from phantom-demo --data dataset --out runs/ours --dry-run",
        "medvl retrain --from phantom-demo --data dataset --out runs/ours",
        "medvl retrain --from promoted --data dataset --out runs/ours --preset 24gb --promote",
        "torchrun --nproc-per-node 4 --no-python medvl retrain --from promoted --data dataset --out runs/ours",
    )
    + "\n\nFurther exit codes: 4 a stage diverged; 6 the gate was not passed; 130 Ctrl-C and 143 SIGTERM, after which the same "
    "command goes on."
)
def retrain(
    parent: Annotated[str, typer.Option("--from", metavar="NAME|DIR", help="The bundle to begin from, and to be compared with.")],
    data: Annotated[Path, typer.Option(metavar="DATASET", help="What medvl ingest wrote.")],
    out: OutOption,
    *,
    preset: Annotated[
        str, typer.Option(metavar="auto|cpu|8gb|24gb|80gb", help="Batches, precision and loading for a size of device.")
    ] = "auto",
    plan: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="How the parent's stages are shortened and slowed.")
    ] = "continue",
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Train this recipe from the beginning instead of the parent's weights."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the new bundle; default: the parent's and the data's.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the resolved recipe; may be repeated."),
    ] = None,
    policy: Annotated[str, typer.Option(metavar="NAME|FILE", help="Margins and rules of the gate.")] = "default",
    store: StoreOption = None,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Copy the candidate into the store, with its gate.")] = True,
    promote: Annotated[bool, typer.Option("--promote", help="Put the candidate in use if it passes.")] = False,
    allow_leaks: Annotated[bool, typer.Option("--allow-leaks", help="Use a dataset with the same case in two splits.")] = False,
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show preset and stages; train and write nothing.")] = False,
) -> None:
    """Train a bundle on with your own studies, and judge it against the bundle it came from; run again, it goes on."""
    existing(data)
    from . import retrain as verb

    wanted = verb.Wanted(
        parent=parent,
        data=data,
        out=out,
        name=name,
        preset=preset,
        plan=plan,
        recipe=recipe,
        overrides=overrides or (),
        policy=policy,
        store=store,
        keep=keep,
        promote=promote,
        allow_leaks=allow_leaks,
    )
    raise typer.Exit(
        verb.run(
            wanted,
            device=device.value,
            parallel=parallel.value,
            threads=threads,
            checkpoint_minutes=checkpoint_minutes,
            tensorboard=tensorboard,
            dry_run=dry_run,
        )
    )
