"""`medvl phantom`: write a cohort of synthetic CT studies with reports, outcomes and the truth beside them."""

from __future__ import annotations

from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medvl.errors import ConfigError
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.write import FORMATS, is_written, open_cohort, write_manifest, write_patient

from .console import err, warn


def run(out: Path, *, n: int, seed: int, formats: tuple[str, ...] = ("dicom",), start: int = 0, masks: bool = False) -> int:
    """Write patients `start` to `start + n - 1` of the cohort `seed`; finished patients of an earlier run are left alone.

    Args:
        out: the cohort folder, made when missing.
        n: number of patients.
        seed: the cohort's seed; one folder holds one.
        formats: ``dicom``, ``nifti`` or both.
        start: number of the first patient.
        masks: also write a NIfTI mask for each finding.

    Returns:
        Exit code 0.

    Raises:
        ConfigError: a format is unknown, or the folder holds a cohort of another seed.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise ConfigError(f"unknown formats {unknown}; choose from {', '.join(FORMATS)}")
    open_cohort(out, seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    written = 0
    try:
        with Progress(*columns, console=err()) as progress:
            for number in progress.track(range(start, start + n), description="phantom patients"):
                patient = sample_patient(seed, number)
                if not is_written(out, patient.patient_id, formats, masks):
                    write_patient(patient, out, formats, masks=masks)
                    written += 1
    finally:
        if (out / "truth").exists():
            write_manifest(out)
    warn(f"{written} patients written, {n - written} were there already; manifest: {out / 'manifest.csv'}")
    return 0
