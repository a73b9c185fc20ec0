"""The verb that trains a bundle on with a hospital's own studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_app import (
    CheckpointOption,
    Device,
    DeviceOption,
    MlflowOption,
    OutOption,
    Parallel,
    ParallelOption,
    TensorboardOption,
    ThreadsOption,
    app,
    examples,
    existing,
)
from .cli_bundles import StoreOption


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
    device: DeviceOption = Device.auto,
    parallel: ParallelOption = Parallel.ddp,
    threads: ThreadsOption = None,
    checkpoint_minutes: CheckpointOption = 2.0,
    tensorboard: TensorboardOption = None,
    mlflow: MlflowOption = None,
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
            mlflow=mlflow,
            dry_run=dry_run,
        )
    )
