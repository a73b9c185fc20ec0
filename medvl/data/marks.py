"""Where the findings of training phantoms lie, on the model's token grid: one bit a finding, for learning where to look.

These marks stand for the lesion masks that a group may have of some of its own cases. They are used in training only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvl.data.cohort import PhantomCohort, crop_geometry
from medvl.files import whole
from medvl.geometry import Geometry
from medvl.imaging.phantom.render import lesion_masks
from medvl.imaging.phantom.truth import Patient
from medvl.imaging.preprocess import Contract, RegionSpec

MARKS_VERSION = 1
CELL = 4
_FINE = 2


def build_marks(
    folder: Path, cohort: PhantomCohort, contract: Contract, names: Mapping[str, Sequence[str]], workers: int, cell: int = CELL
) -> NDArray[np.uint8]:
    """(N, R, d, h, w) uint8 on a grid of `cell` voxels a side; bit k is set where finding k of the region lies.

    Args:
        folder: the cohort's own folder; the result is kept there, under a name that changes with `names` and this code.
        cohort: which patients.
        contract: the regions' grids.
        names: findings by region name, at most eight each, in the order of their bits.
        workers: processes.
        cell: voxels a side; the default is a token of the region encoder.
    """
    path = folder / marks_name(names, cell)
    if path.exists():
        return np.asarray(np.load(path))
    jobs = [(cohort, row, contract, dict(names), cell) for row in range(cohort.n)]
    if workers <= 1:
        rows = [_of_patient(job) for job in jobs]
    else:
        with ProcessPoolExecutor(workers) as pool:
            rows = list(pool.map(_of_patient, jobs, chunksize=32))
    marks = np.stack(rows)
    with whole(path) as part, part.open("wb") as file:
        np.save(file, marks, allow_pickle=False)
    return marks


def marks_name(names: Mapping[str, Sequence[str]], cell: int = CELL) -> str:
    """File name of the marks of these findings, in their order, by this version of the code."""
    text = json.dumps([MARKS_VERSION, cell, {region: list(names[region]) for region in sorted(names)}])
    return f"marks-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"


def _of_patient(job: tuple[PhantomCohort, int, Contract, dict[str, Sequence[str]], int]) -> NDArray[np.uint8]:
    cohort, row, contract, names, cell = job
    patient = cohort.patient(row)
    grids = [crop_geometry(patient, spec, cohort.jitter_mm) for spec in contract.regions]
    return np.stack([_of_region(g, patient, s, names[s.name], cell) for g, s in zip(grids, contract.regions, strict=True)])


def _of_region(grid: Geometry, patient: Patient, spec: RegionSpec, names: Sequence[str], cell: int) -> NDArray[np.uint8]:
    step = cell / _FINE
    d, h, w = (int(n / step) for n in spec.grid_dhw)
    a, b, c = (s * step for s in spec.spacing_mm)
    fine = Geometry.centered(grid.center_lps, (d, h, w), (a, b, c))
    masks = lesion_masks(patient, fine)
    out = np.zeros((d // _FINE, h // _FINE, w // _FINE), np.uint8)
    for bit, name in enumerate(names):
        mask = masks.get(f"{name}@{spec.name}")
        if mask is not None:
            cells = mask.reshape(d // _FINE, _FINE, h // _FINE, _FINE, w // _FINE, _FINE).any(axis=(1, 3, 5))
            out |= cells.astype(np.uint8) << np.uint8(bit)
    return out
