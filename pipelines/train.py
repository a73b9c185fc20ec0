"""`medvl train`: run a recipe to a bundle; stages already on disk are kept, and an unfinished one goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.errors import ConfigError

from .built_in import bundle_folder, findings_file, recipe_file
from .console import err, say, warn

if TYPE_CHECKING:
    from medvl.data.cohort import Cohort
    from medvl.models.localiser import Localiser
    from medvl.recipe import Recipe
    from medvl.training.recipe_stage import Trained
    from medvl.training.run import Workspace

INTERRUPTED = 143


def run(config: str, out: Path, overrides: list[str], table: Path | None = None, places: str | None = None) -> int:
    """Exit code 0 with the stages in `OUT/stages` and the bundle in `OUT/bundle`; 143 when stopped by a signal.

    Args:
        config: recipe file or name; out: folder of the run; overrides: key=value.
        table: studies and reports to learn from; without it the recipe's phantoms.
        places: bundle whose localiser finds the regions of the table's scans.

    Raises:
        ConfigError: the recipe or the table is wrong.
    """
    from medvl.recipe import load_recipe
    from medvl.text.prompts import load_findings

    recipe = load_recipe(recipe_file(config), overrides)
    listed = findings_file(recipe.findings)
    findings = load_findings(listed)
    from medvl.training.finish import export
    from medvl.training.loop import Interrupted
    from medvl.training.run import open_workspace, run_stages

    with _bars(out) as progress:
        given = _from_table(recipe, table, out, places, progress) if table else None
        try:
            work = open_workspace(recipe, out, out / "cohorts", progress, findings, given=given)
            trained = run_stages(work)
            localiser = _localiser(recipe, out, progress)
        except Interrupted:
            warn(f"stopped; the same command goes on from the last checkpoint in {out / 'stages'}")
            return INTERRUPTED
    _receipts(work, trained)
    if trained.system.streams is not None or localiser is None:
        why = "it answers by concept streams" if localiser is not None else "it names no localiser"
        say(f"Trained: {out / 'stages'}. No bundle: {why}. Held-out table: python benchmarks/recipes.py")
        return 0
    warn("fitting calibration, limits and survival; writing the bundle")
    bundle = export(work, trained, localiser, findings, listed.read_text(encoding="utf-8"))
    say(f"Bundle: {bundle.folder}  ({bundle.sha256[:12]})")
    say(f"Held-out table: medvl evaluate --bundle {bundle.folder}")
    return 0


def _localiser(recipe: Recipe, out: Path, progress: Callable[..., None]) -> Localiser | None:
    """Trained by the recipe, or taken from the bundle it names."""
    from medvl.training.localise import from_bundle, localise_stage

    if recipe.localise is not None:
        return localise_stage(recipe, out / "stages", lambda done, total, told: progress("localiser", done, total, told))
    return from_bundle(bundle_folder(recipe.localiser_from)) if recipe.localiser_from else None


def _from_table(recipe: Recipe, table: Path, out: Path, places: str | None, progress: Callable[..., None]) -> dict[str, Cohort]:
    """Training and validation cohorts of the studies in a table; what could not be taken is listed in `OUT/rejects.csv`."""
    from medvl.data.table import open_table
    from medvl.data.table_cohort import build_table
    from medvl.models.bundle import open_bundle

    from .locate import Locator

    bundle = open_bundle(bundle_folder(places or recipe.localiser_from or "phantom-demo"))
    cohorts = build_table(
        out / "cohorts",
        open_table(table, split_seed=recipe.seed),
        recipe.input_contract,
        Locator(bundle.folder, recipe.input_contract.names),
        locate_key=bundle.sha256,
        min_confidence=float(bundle.values("model.json")["localiser"]["min_confidence"]),
        workers=recipe.workers,
        progress=lambda split, done, total: progress(f"{split} studies", done, total, {}),
    )
    missing = [name for name in ("train", "validation") if name not in cohorts or not len(cohorts[name])]
    if missing:
        raise ConfigError(f"no usable {missing[0]} study in {table.name}; see rejects.csv in {out / 'cohorts'}")
    return cohorts


def _receipts(work: Workspace, trained: Trained) -> None:
    """Say what each stage cost."""
    from medvl.training.run import stage_folder

    for index, stage in enumerate(work.recipe.stages):
        path = stage_folder(work, index) / "receipt.json"
        if path.exists():
            r: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            mfu = f", {r['mfu']:.0%} of peak" if r.get("mfu") else ""
            say(f"{stage.name}: {r['steps']} steps, {r['wall_s']:.0f} s, {r['samples_per_s']:.1f} samples/s{mfu}")


class _bars:  # noqa: N801 - used as a function in a with statement
    """Progress bars on the error stream, one a stage."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def __enter__(self) -> Callable[[str, int, int, Mapping[str, float]], None]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, TextColumn("{task.fields[told]}"), console=err())
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, total: int, values: Mapping[str, float]) -> None:
            if name not in tasks:
                tasks[name] = self._bars.add_task(name, total=total, told="")
            shown = "  ".join(f"{k} {v:.3f}" for k, v in list(values.items())[:4])
            self._bars.update(tasks[name], completed=done, total=total, told=shown)

        self._bars.start()
        return progress

    def __exit__(self, *error: object) -> None:
        self._bars.stop()
