"""Verbs for bundles: the gate, and the store with what is in use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvl.errors import ConfigError

from .cli_app import JsonOption, app, bundles_app, examples, existing

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


@bundles_app.command(
    "narrow",
    epilog=examples("medvl bundles narrow phantom-demo --kind kidney --out kidneys"),
)
def bundles_narrow(
    bundle: AnyArgument,
    *,
    kind: Annotated[list[str], typer.Option(metavar="NAME", help="A kind of region to keep; may be repeated.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Write the bundle here; its name becomes that of DIR.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the part of a bundle that answers for some kinds of region, for a place whose scans or reports hold no others."""
    from . import bundles_narrow as verb

    raise typer.Exit(verb.run(bundle, kind, out, store, as_json=as_json))


@bundles_app.command("diff", epilog=examples("medvl bundles diff phantom-demo promoted"))
def bundles_diff(before: AnyArgument, after: AnyArgument, *, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Tell what differs: input contract, questions, thresholds, provenance, and how far each part of the weights moved."""
    from . import bundles_diff as verb

    raise typer.Exit(verb.run(before, after, store, as_json=as_json))
