"""`medvl train`: run a recipe to a bundle; stages already on disk are kept, and an unfinished one goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import ConfigError

from .built_in import bundle_folder, findings_file, recipe_file
from .console import warn
from .progress import Shown, Told
from .signals import Stopped, first, stoppable

if TYPE_CHECKING:
    from medvl.data.cohort import Cohort
    from medvl.models.bundle import Bundle
    from medvl.models.localiser import Localiser
    from medvl.recipe import Recipe
    from medvl.text.prompts import FindingList
    from medvl.training.machine import Machine
    from medvl.training.run import Workspace

DIVERGED = 4


@dataclass(frozen=True)
class Job:
    """What a run is about.

    Args:
        recipe: resolved; out: folder of the run; machine: how the machine is used.
        findings: questions, and findings_text: the file they came from.
        table: studies and reports to learn from, or None for the recipe's phantoms.
        places: bundle whose localiser finds the regions of the table's scans, if another than the recipe's.
        start: weights that `medvl import-release` wrote, to begin with.
    """

    recipe: Recipe
    out: Path
    machine: Machine
    findings: FindingList
    findings_text: str
    table: Path | None
    places: str | None
    start: Path | None = None


def run(
    config: str,
    out: Path,
    overrides: Sequence[str] = (),
    table: Path | None = None,
    places: str | None = None,
    *,
    device: str = "auto",
    parallel: str = "ddp",
    threads: int | None = None,
    checkpoint_minutes: float = 2.0,
    tensorboard: bool | None = None,
    mlflow: str | None = None,
    start: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Exit code 0 with the stages in `OUT/stages` and the bundle in `OUT/bundle`.

    Args:
        config: recipe file or name.
        out: folder of the run.
        overrides: key=value.
        table: studies and reports to learn from; without it the recipe's phantoms.
        places: bundle whose localiser finds the regions of the table's scans.
        device: auto, cpu or cuda.
        parallel: ddp or fsdp, when torchrun started several processes.
        threads: of torch in each process.
        checkpoint_minutes: between checkpoints.
        tensorboard: also write events; None where it is installed.
        mlflow: folder or address of a tracking server that gets the curves and the bundle's hash.
        start: weights that `medvl import-release` wrote, to begin with.
        dry_run: only say what would be done.

    Returns:
        0; 130 or 143 when stopped by Ctrl-C or SIGTERM; 4 when a stage diverged.

    Raises:
        ConfigError: the recipe, the table or an option is wrong.
    """
    import yaml

    from medvl.recipe import load_recipe
    from medvl.text.prompts import load_findings

    with stoppable():
        try:
            recipe = load_recipe(recipe_file(config), overrides)
            if recipe.data_from and table is None:
                raise ConfigError(
                    f"{recipe.name} is not for phantoms; its data come with `{recipe.data_from}`, or give your own with --table"
                )
            listed = findings_file(recipe.findings)
            text = listed.read_text(encoding="utf-8")
            everything = load_findings(text)
            findings = everything.only(recipe.kinds)
            if findings is not everything:
                text = yaml.safe_dump(findings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            if dry_run:
                from .train_plan import show_plan

                return show_plan(recipe, out, table)
            machine = machine_of(device, parallel, threads, checkpoint_minutes, tensorboard, mlflow)
            return _run(Job(recipe, out, machine, findings, text, table, places, start))
        except Stopped as stopped:
            if first():
                warn(f"stopped; the same command goes on from what is finished in {out}")
            return 128 + stopped.number


def machine_of(
    device: str, parallel: str, threads: int | None, minutes: float, tensorboard: bool | None, mlflow: str | None = None
) -> Machine:
    """How the run uses the machine.

    Raises:
        ConfigError: an unknown way of holding weights.
    """
    import torch

    from medvl.training.machine import Machine

    if parallel not in ("ddp", "fsdp"):
        raise ConfigError(f"parallel is {parallel}; known: ddp, fsdp")
    if threads is not None:
        torch.set_num_threads(threads)
    events = find_spec("tensorboard") is not None if tensorboard is None else tensorboard
    return Machine(device, "ddp" if parallel == "ddp" else "fsdp", 60 * minutes, events, mlflow)


def _run(job: Job) -> int:
    """Train and write the bundle; the first of several processes alone prints."""
    from medvl.training.loop import Diverged, Interrupted
    from medvl.training.machine import FirstFailed

    from .train_report import tell

    leads = job.machine.world.leads
    try:
        work, localiser, bundle = _train(job)
    except Interrupted as error:
        if leads:
            warn(f"stopped after a checkpoint: {error}")
        return error.exit_code
    except Diverged as error:
        if leads:
            warn(f"medvl: {error}")
        return DIVERGED
    except FirstFailed:
        return 1
    if leads:
        tell(work, localiser, bundle)
    return 0


def _train(job: Job) -> tuple[Workspace, Localiser | None, Bundle | None]:
    """The finished run; a bundle that an earlier call made of the very same is kept."""
    from medvl.training.finish import export
    from medvl.training.run import open_workspace, run_stages
    from medvl.training.tracking import track_bundle

    from .train_report import finished, note_finished
    from .train_start import begun

    world = job.machine.world
    with Shown(world.leads) as progress:
        given = job.machine.once(lambda: _from_table(job, progress)) if job.table else None
        work = open_workspace(job.recipe, job.out, job.out / "cohorts", progress, job.findings, given=given, machine=job.machine)
        begin, kept = begun(job.start, work), finished(work, job.findings_text)
        if world.lead(lambda: kept is not None):
            return work, None, kept
        trained = run_stages(work, begin)
        localiser = _localiser(job, progress)
    bundle = None
    if world.leads and localiser is not None:
        warn("fitting calibration, limits and survival; writing the bundle")
        bundle = export(work, trained, localiser, job.findings, job.findings_text)
        note_finished(work, job.findings_text, bundle)
        if job.machine.mlflow is not None:
            track_bundle(job.machine.mlflow, bundle)
    world.agree()
    return work, localiser, bundle


def _localiser(job: Job, progress: Told) -> Localiser | None:
    """Trained by the recipe, or taken from the bundle it names."""
    from medvl.training.localise import from_bundle, localise_stage

    recipe, stages = job.recipe, job.out / "stages"
    if recipe.localise is not None:
        return localise_stage(recipe, stages, lambda done, total, told: progress("localiser", done, total, told), job.machine)
    return from_bundle(bundle_folder(recipe.localiser_from)) if recipe.localiser_from else None


def _from_table(job: Job, progress: Told) -> dict[str, Cohort]:
    """Training and validation cohorts of the studies in a table; `rejects.csv` beside them lists what could not be taken."""
    from medvl.data.table_cohort import build_table
    from medvl.dataset import open_studies
    from medvl.models.bundle import open_bundle

    from .locate import Locator

    recipe, table, folder = job.recipe, job.table or Path(), job.out / "cohorts"
    bundle = open_bundle(bundle_folder(job.places or recipe.localiser_from or "phantom-demo"))
    cohorts = build_table(
        folder,
        open_studies(table, split_seed=recipe.seed),
        recipe.input_contract,
        Locator(bundle.folder, recipe.input_contract.names),
        locate_key=bundle.sha256,
        min_confidence=float(bundle.values("model.json")["localiser"]["min_confidence"]),
        workers=recipe.workers,
        progress=lambda split, done, total: progress(f"{split} studies", done, total, {}),
    )
    missing = [name for name in ("train", "validation") if name not in cohorts or not (cohorts[name].covered > 0).any()]
    if missing:
        raise ConfigError(
            f"no usable {missing[0]} study in {table.name}; see rejects.csv in {folder}, or fill the column split of the table"
        )
    return cohorts
