"""`medvl retrain`: from a bundle and a dataset to a candidate bundle, judged against its parent and kept in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.errors import BundleError

from .built_in import bundle_folder, plan_file, recipe_called, recipe_file
from .console import say, table, warn
from .progress import Shown, Told
from .signals import Stopped, first, stoppable
from .train import DIVERGED, machine_of

if TYPE_CHECKING:
    from medvl.models.bundle import Bundle
    from medvl.recipe import Recipe
    from medvl.retraining.presets import Preset
    from medvl.retraining.run import Candidate, Order


@dataclass(frozen=True)
class Wanted:
    """What the command was asked for.

    Args:
        parent: name or folder of the bundle to begin from; data: dataset folder; out: folder of the run; name: of the new bundle.
        preset, plan, recipe: names or files; overrides: key=value on the resolved recipe.
        policy: of the gate; store: folder or None; keep, promote: what becomes of the candidate.
        allow_leaks: use a dataset with patients or images in two splits.
    """

    parent: str
    data: Path
    out: Path
    name: str | None = None
    preset: str = "auto"
    plan: str = "continue"
    recipe: str | None = None
    overrides: Sequence[str] = ()
    policy: str = "default"
    store: Path | None = None
    keep: bool = True
    promote: bool = False
    allow_leaks: bool = False


def run(
    wanted: Wanted,
    *,
    device: str = "auto",
    parallel: str = "ddp",
    threads: int | None = None,
    checkpoint_minutes: float = 2.0,
    tensorboard: bool | None = None,
    mlflow: str | None = None,
    dry_run: bool = False,
) -> int:
    """Exit code 0 with a candidate that passed the gate, 6 with one that did not; 4 a stage diverged; 130 or 143 stopped.

    Raises:
        ConfigError: bundle, dataset, plan or folder do not fit. BundleError: the bundle is not whole.
    """
    from medvl.training.loop import Diverged, Interrupted
    from medvl.training.machine import FirstFailed

    with stoppable():
        try:
            machine = machine_of(device, parallel, threads, checkpoint_minutes, tensorboard, mlflow)
            with Shown(first()) as progress:
                order = _order(wanted, machine, device, progress)
                if dry_run:
                    return _plan(order)
                candidate = _candidate(order)
        except Interrupted as error:
            warn(f"stopped after a checkpoint: {error}")
            return error.exit_code
        except Diverged as error:
            warn(f"medvl: {error}")
            return DIVERGED
        except FirstFailed:
            return 1
        except Stopped as stopped:
            if first():
                warn(f"stopped; the same command goes on from what is finished in {wanted.out}")
            return 128 + stopped.number
        return _judged(wanted, order, candidate) if machine.world.leads else 0


def _order(wanted: Wanted, machine: Any, device: str, progress: Told) -> Order:
    from medvl.dataset.opened import open_dataset
    from medvl.models.bundle import open_bundle
    from medvl.recipe import changed
    from medvl.retraining.plan import load_plan
    from medvl.retraining.presets import choose
    from medvl.retraining.run import Order

    from .locate import Locator

    parent = open_bundle(bundle_folder(wanted.parent, wanted.store))
    data = open_dataset(wanted.data)
    recipe = _recipe(wanted, parent)
    return Order(
        parent=parent,
        recipe=recipe,
        fresh=wanted.recipe is not None,
        table=data.table(allow_leaks=wanted.allow_leaks),
        data_sha256=data.sha256,
        data={"counts": data.facts.get("counts")},
        out=wanted.out,
        name=wanted.name or f"{parent.name}-{data.sha256[:8]}",
        plan=load_plan(plan_file(wanted.plan)),
        preset=choose(wanted.preset, device),
        machine=machine,
        locate=Locator(parent.folder, recipe.input_contract.names),
        changes=lambda made: changed(made, wanted.overrides),
        progress=progress,
    )


def _recipe(wanted: Wanted, parent: Bundle) -> Recipe:
    from medvl.recipe import load_recipe
    from medvl.retraining.plan import recipe_of

    if wanted.recipe is not None:
        return load_recipe(recipe_file(wanted.recipe))
    return recipe_of(parent, recipe_called(parent.name))


def _candidate(order: Order) -> Candidate:
    from medvl.retraining.run import retrain
    from medvl.training.tracking import track_bundle

    leads, known = order.machine.world.leads, _sha256_in(order.out / "bundle")
    if leads:
        _chosen(order.preset)
    found = retrain(order, told=_stages)
    if leads and order.machine.mlflow is not None and found.bundle.sha256 != known:
        track_bundle(order.machine.mlflow, found.bundle)
    return found


def _sha256_in(folder: Path) -> str | None:
    """Of the bundle that an earlier call wrote; None where there is none that is whole."""
    from medvl.models.bundle import open_bundle

    try:
        return open_bundle(folder).sha256
    except BundleError:
        return None


def _chosen(preset: Preset) -> None:
    memory = "" if preset.memory_bytes is None else f", at most {preset.memory_bytes / 2**30:.0f} GiB of device memory"
    say(f"Preset {preset.name}: batches x {preset.factor}, {preset.precision}, {preset.workers} loading processes{memory}")


def _stages(settings: Mapping[str, Any]) -> None:
    """Print what will be trained, and what the probe measured."""
    rows, probed = [], settings["probed"]
    for stage in settings["recipe"]["stages"]:
        found = probed.get(stage["name"])
        pace = "-" if found is None else f"{found['seconds']:.2f} s"
        left = "-" if found is None else f"{found['seconds'] * stage['steps'] / 60:.1f} min"
        memory = "-" if found is None else f"{found['memory_bytes'] / 2**30:.1f} GiB"
        pieces = 1 if found is None else found["pieces"]
        rows.append((stage["name"], stage["steps"], stage["batch"], pieces, stage["precision"], pace, left, memory))
    table(("stage", "steps", "batch", "pieces", "precision", "a step", "in all", "memory"), rows)
    grids = {tuple(region["grid_dhw"]) for region in settings["recipe"]["contract"]["regions"]}
    told = ", ".join("x".join(map(str, grid)) for grid in grids)
    why = "the recipe's, by preset" if settings["fresh"] else "the parent's, which its weights were trained on"
    counts = ", ".join(f"{n} {split}" for split, n in settings["n_regions"].items())
    say(f"Grid {told} ({why}); regions: {counts}")


def _plan(order: Order) -> int:
    """What would be trained, with the number of regions guessed from the number of cases."""
    from medvl.retraining.run import settle_recipe

    _chosen(order.preset)
    counts = {split: len(order.table.of(split)) * len(order.parent.contract.names) for split in ("train", "validation", "test")}
    recipe = settle_recipe(order, counts["train"])
    _stages({"recipe": recipe.model_dump(mode="json"), "probed": {}, "n_regions": counts, "fresh": order.fresh})
    say(f"Regions are at most that many. Nothing was trained or written; without --dry-run this goes to {order.out}")
    return 0


def _judged(wanted: Wanted, order: Order, candidate: Candidate) -> int:
    """The gate, the store, and what is said at the end."""
    from medvl.models.store import BundleStore

    from .gate import EXIT_FAILED, judge

    folders = order.parent.folder, candidate.bundle.folder, candidate.before, candidate.after
    result = judge(*folders, wanted.policy, wanted.out / "gate", candidate.learned)
    blend = candidate.blend
    if blend is not None:
        told = ", ".join(f"{share} {value:.3f}" for share, value in blend.tried.items())
        say(f"Weights: {blend.share:g} of the way from the parent's (mean validation AUROC by share: {told})")
    say(f"Candidate: {candidate.bundle.folder}  ({candidate.bundle.sha256[:12]})")
    say(f"Gate {'passed' if result.passed else 'NOT passed'}: {wanted.out / 'gate' / 'gate.html'}")
    for ground in result.grounds:
        say(f"  {'FAILS' if ground.fails else 'note'} {ground.code}: {ground.sentence}")
    if not wanted.keep:
        return 0 if result.passed else EXIT_FAILED
    provenance = candidate.bundle.values("provenance.json")
    entry = BundleStore(wanted.store).add(
        candidate.bundle.folder,
        parent=order.parent.folder,
        data_sha256=order.data_sha256,
        recipe=candidate.settings["recipe"],
        code_version=provenance["software"],
        gate=result.record,
    )
    say(f"Kept in the store as {entry.key}")
    if result.passed and wanted.promote:
        BundleStore(wanted.store).promote(entry.key)  # refused, with its reason, where another bundle is in use than the parent
        say("Promoted: `--bundle promoted` means it from now on; undo with medvl bundles rollback")
    elif result.passed:
        say(f"Put it in use: medvl bundles promote {entry.key}")
    return 0 if result.passed else EXIT_FAILED
