"""`medvl convert`: one NIfTI in Hounsfield units for every series that is a volume, and a reason for every other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.markup import escape

from medvl.dicom.source import shown
from medvl.errors import InputError
from medvl.imaging.load import Entry, load
from medvl.imaging.nifti import write_nifti

from .console import err


def run(source: Path, out: Path) -> int:
    """Write `out/KEY.nii.gz` per volume; exit code 0, 2 for a path that does not exist, 3 when nothing was written."""
    console = err()
    if not source.exists():
        console.print(f"[red]no such file or folder:[/] {escape(str(source))}")
        return 2
    try:
        loaded = load(source)
    except InputError as error:
        console.print(f"[red]{error.code}[/]: {escape(error.message)}", soft_wrap=True)
        return 3
    out.mkdir(parents=True, exist_ok=True)
    keys = Counter(entry.key for study in loaded for entry in study.entries)
    written = [
        _write(entry, out / f"{study.key + '-' if keys[entry.key] > 1 else ''}{entry.key}.nii.gz")
        for study in loaded
        for entry in study.entries
    ]
    for one in loaded.rejected:
        console.print(f"left out {escape(shown(one.path))}: {one.reason.code}", soft_wrap=True)
    return 0 if any(written) else 3


def _write(entry: Entry, path: Path) -> bool:
    """Write one entry when it is a volume; say what happened."""
    console = err()
    try:
        volume = entry.read()
    except InputError as error:
        console.print(f"[red]refused[/] {entry.key} ({entry.modality}): {error.code}, {escape(error.message)}", soft_wrap=True)
        return False
    write_nifti(volume, None, path)
    steps = " x ".join(f"{step:.3g}" for step in volume.geometry.spacing_mm)
    shape = " x ".join(map(str, volume.geometry.shape_dhw))
    notes = "".join(f"; {reason.code}" for reason in volume.reasons)
    console.print(f"[green]wrote[/] {escape(path.name)}: {shape} voxels of {steps} mm{notes}", soft_wrap=True)
    return True
