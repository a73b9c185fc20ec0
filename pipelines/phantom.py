"""`medvl phantom`: write a cohort of synthetic CT studies with reports, outcomes and the truth beside them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medvl.errors import ConfigError
from medvl.imaging.phantom.export import write_export
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.site import DEMO, Site, load_site
from medvl.imaging.phantom.write import FORMATS, is_written, open_cohort, write_manifest, write_patient

from .console import err, warn


@dataclass(frozen=True)
class _Job:
    """What is the same for every patient of a run."""

    out: Path
    seed: int
    site: Site
    formats: tuple[str, ...]
    masks: bool

    def __call__(self, number: int) -> bool:
        """Write one patient; False where an earlier run has."""
        patient = sample_patient(self.seed, number, self.site)
        if is_written(self.out, patient.patient_id, self.formats, self.masks):
            return False
        write_patient(patient, self.out, self.formats, masks=self.masks)
        return True


def run(
    out: Path,
    *,
    n: int,
    seed: int,
    formats: tuple[str, ...] = ("dicom",),
    start: int = 0,
    masks: bool = False,
    site: str = DEMO.name,
    workers: int = 1,
) -> int:
    """Write patients `start` to `start + n - 1` of the cohort `seed`; finished patients of an earlier run are left alone.

    Args:
        out: the cohort folder, made when missing.
        n: number of patients.
        seed: the cohort's seed; one folder holds one.
        formats: ``dicom``, ``nifti`` or both.
        start: number of the first patient.
        masks: also write a NIfTI mask for each finding.
        site: the hospital, by name or as a YAML file; any but the demo site also exports `export.csv`, in its own words.
        workers: processes.

    Returns:
        Exit code 0.

    Raises:
        ConfigError: a format or the site is unknown, or the folder holds a cohort of another seed or site.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise ConfigError(f"unknown formats {unknown}; choose from {', '.join(FORMATS)}")
    hospital = load_site(site)
    open_cohort(out, seed, hospital)
    job = _Job(out, seed, hospital, formats, masks)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    written = 0
    try:
        with Progress(*columns, console=err()) as progress, _each(job, range(start, start + n), workers) as done:
            for new in progress.track(done, total=n, description="phantom patients"):
                written += new
    finally:
        if (out / "truth").exists():
            write_manifest(out)
    warn(f"{written} patients written, {n - written} were there already; manifest: {out / 'manifest.csv'}")
    if hospital.name != DEMO.name:
        warn(f"the hospital's own export: {write_export(out)}")
    return 0


@contextmanager
def _each(job: _Job, numbers: range, workers: int) -> Iterator[Iterator[bool]]:
    """What `job` says of each number, in any order; on an error, patients not yet begun are left out."""
    if workers <= 1:
        yield map(job, numbers)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield _as_done(pool, job, numbers, 4 * workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _as_done(pool: ProcessPoolExecutor, job: _Job, numbers: range, ahead: int) -> Iterator[bool]:
    waiting: set[Future[bool]] = set()
    for number in numbers:
        waiting.add(pool.submit(job, number))
        if len(waiting) >= ahead:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    yield from (future.result() for future in wait(waiting).done)
