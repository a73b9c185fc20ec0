"""What `medvl train` says at the end, and the note by which a finished run is known again."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from medvl import __version__
from medvl.errors import BundleError

from .console import say, table

if TYPE_CHECKING:
    from medvl.models.bundle import Bundle
    from medvl.models.localiser import Localiser
    from medvl.training.run import Workspace

COLUMNS = ("stage", "steps", "wall s", "samples/s", "waits", "MFU", "memory MB", "last loss")


def tell(work: Workspace, localiser: Localiser | None, bundle: Bundle | None) -> None:
    """Print what each stage cost and where the result lies."""
    from medvl.training.samples import half_known

    rows = [_row(name, receipt) for name, receipt in _receipts(work).items()]
    if rows:
        table(COLUMNS, rows)
    if left := half_known(next(iter(work.train.values())).cohort.cases):
        say(f"Left out of survival: {left} training patients of whom only the follow-up or only the event is known")
    if bundle is None:
        say(f"Trained: {work.stages}. No bundle: the recipe names no localiser. Held-out table: python benchmarks/recipes.py")
        return
    say(f"Bundle: {bundle.folder}  ({bundle.sha256[:12]})")
    if "survival.json" not in bundle.manifest["files"]:
        say("The bundle estimates no survival: fewer than 10 events are known in the training studies")
    say(f"Held-out table: medvl evaluate {bundle.folder}")


def _receipts(work: Workspace) -> dict[str, dict[str, Any]]:
    from medvl.training.localise import localiser_folder
    from medvl.training.run import stage_folder

    folders = {stage.name: stage_folder(work, index) for index, stage in enumerate(work.recipe.stages)}
    folders["localiser"] = localiser_folder(work.recipe, work.out / "stages")
    paths = {name: folder / "receipt.json" for name, folder in folders.items()}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def _row(name: str, receipt: dict[str, Any]) -> tuple[str, ...]:
    """One stage as text."""
    mfu = "-" if receipt["mfu"] is None else f"{receipt['mfu']:.0%}"
    steps = f"{receipt['steps']} (ended early)" if receipt["stopped_early"] else str(receipt["steps"])
    speed, memory = f"{receipt['samples_per_s']:.1f}", f"{receipt['peak_memory_bytes'] / 1e6:.0f}"
    return name, steps, f"{receipt['wall_s']:.1f}", speed, f"{receipt['wait_share']:.0%}", mfu, memory, f"{receipt['loss']:.3f}"


def finished(work: Workspace, findings_text: str) -> Bundle | None:
    """The bundle that an earlier call of the same run wrote, whole; None when there is none or anything has changed."""
    from medvl.models.bundle import open_bundle

    try:
        note = json.loads((work.out / "finished.json").read_text(encoding="utf-8"))
        bundle = open_bundle(work.out / "bundle")
    except (OSError, ValueError, BundleError):
        return None
    return bundle if note == _note(work, findings_text, bundle) else None


def note_finished(work: Workspace, findings_text: str, bundle: Bundle) -> None:
    """Note what the bundle was made from."""
    from medvl.files import replace_text

    replace_text(work.out / "finished.json", json.dumps(_note(work, findings_text, bundle)))


def _note(work: Workspace, findings_text: str, bundle: Bundle) -> dict[str, str]:
    from medvl.recipe import as_plain
    from medvl.training.run import stage_folder

    stages = [stage_folder(work, index).name for index in range(len(work.recipe.stages))]
    source = _localiser_source(work)
    text = json.dumps([as_plain(work.recipe), work.data_key, stages, findings_text, source, __version__], sort_keys=True)
    return {"made_from": hashlib.sha256(text.encode()).hexdigest(), "bundle": bundle.sha256}


def _localiser_source(work: Workspace) -> str | None:
    """The bundle whose localiser is taken, by its hash."""
    from medvl.models.bundle import open_bundle

    from .built_in import bundle_folder

    name = work.recipe.localiser_from
    return open_bundle(bundle_folder(name)).sha256 if name and work.recipe.localise is None else None
