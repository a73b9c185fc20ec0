"""A cohort of model regions on disk: HU crops around each region's centre, with the truth and the report of every patient.

Layout of a cohort folder: `hu.npy` (N, R, D, H, W) int16 memory map, `cases.jsonl` (one JSON object a patient), `done.npy`
(N,) uint8 flags written after a patient's crops, so that a killed build goes on where it stopped, and `cohort.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.geometry import Geometry
from medvl.imaging.phantom.render import COVERAGE_Z_MM, region_centers, render
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.truth import Patient
from medvl.imaging.phantom.write import report_of
from medvl.imaging.preprocess import MIN_COVERED, Contract, RegionSpec
from medvl.imaging.resample import resample
from medvl.text.labels import extract
from medvl.text.report import parse_report

JITTER_MM = 9.0
MARGIN_MM = 9.0


@dataclass(frozen=True)
class PhantomCohort:
    """Which phantom patients: numbers `start` to `start + n` of `seed`; jitter_mm: spread of the crop centres, uniform."""

    seed: int
    start: int
    n: int
    jitter_mm: float = JITTER_MM

    def key(self, contract: Contract) -> str:
        """Folder name that changes with the patients, the crops' placement and the input contract."""
        text = json.dumps([self.seed, self.start, self.n, self.jitter_mm, contract.hash])
        return "phantom-" + hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Cohort:
    """A built cohort; `hu` is memory-mapped, `covered` (N, R) is the share of each crop inside the scan, 0 if not taken."""

    hu: NDArray[np.int16]
    covered: NDArray[np.float32]
    cases: list[dict[str, Any]]
    regions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.cases)


def phantom_crop(seed: int, number: int, spec: RegionSpec, jitter_mm: float) -> tuple[NDArray[np.int16], float]:
    """(D, H, W) int16 HU of one region of one phantom as its scanner saw it, and the share of it the scan covers."""
    patient = sample_patient(seed, number)
    target = crop_geometry(patient, spec, jitter_mm)
    native = _native_part(target, patient.scanner.spacing_dhw_mm, COVERAGE_Z_MM[patient.scanner.coverage])
    if native is None:
        return np.full(spec.grid_dhw, -1024, np.int16), 0.0
    z = target.to_lps(np.stack([np.arange(spec.grid_dhw[0]), np.zeros(spec.grid_dhw[0]), np.zeros(spec.grid_dhw[0])], axis=1))[
        :, 2
    ]
    low, high = COVERAGE_Z_MM[patient.scanner.coverage]
    covered = float(((z >= low) & (z <= high)).mean())
    if covered < MIN_COVERED:
        return np.full(spec.grid_dhw, -1024, np.int16), covered
    hu = resample(render(patient, native), target)
    return np.rint(hu).astype(np.int16), covered


def crop_geometry(patient: Patient, spec: RegionSpec, jitter_mm: float) -> Geometry:
    """The grid of one training crop: around the region's true centre, moved by up to `jitter_mm` along each axis."""
    rng = np.random.default_rng([patient.seed, int(patient.patient_id[2:]), 3, sum(map(ord, spec.name))])
    center = region_centers(patient)[spec.name] + rng.uniform(-jitter_mm, jitter_mm, 3)
    return Geometry.centered(center, spec.grid_dhw, spec.spacing_mm)


def _native_part(target: Geometry, spacing: tuple[float, float, float], z_mm: tuple[float, float]) -> Geometry | None:
    """The scanner's own voxels that `target` needs, cut at the ends of the scan; None when nothing is left."""
    half = np.array(target.extent_mm) / 2 + MARGIN_MM
    low, high = target.center_lps[::-1] - half, target.center_lps[::-1] + half
    low[0], high[0] = max(low[0], z_mm[0]), min(high[0], z_mm[1])
    shape = tuple(int((b - a) / s) for a, b, s in zip(low, high, spacing, strict=True))
    if min(shape) < 2:
        return None
    return Geometry.centered(((low + high) / 2)[::-1], (shape[0], shape[1], shape[2]), spacing)


def describe(seed: int, number: int) -> dict[str, Any]:
    """Truth, report, region texts and report-derived labels of one phantom, as JSON."""
    patient = sample_patient(seed, number)
    text = report_of(patient)
    report = parse_report(text)
    return {
        "patient_id": patient.patient_id,
        "truth": patient.as_dict(),
        "report": text,
        "region_texts": report.regions,
        "labels": extract(report),
    }


def build_phantom(
    folder: Path,
    cohort: PhantomCohort,
    contract: Contract,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Cohort:
    """Build the cohort under `folder` (or go on with a broken-off build) and open it.

    Args:
        folder: parent of the cohort's own folder.
        cohort: which patients.
        contract: the regions' grids.
        workers: processes.
        progress: called with (done, total).
    """
    place = folder / cohort.key(contract)
    place.mkdir(parents=True, exist_ok=True)
    shape = (cohort.n, len(contract.regions), *contract.regions[0].grid_dhw)
    arrays = _open(place, shape)
    todo = np.flatnonzero(arrays[2] == 0)
    chunks = [todo[i : i + 16].tolist() for i in range(0, len(todo), 16)]
    finished = cohort.n - len(todo)
    for chunk in _run(place, shape, cohort, contract, chunks, workers):
        finished += len(chunk)
        if progress:
            progress(finished, cohort.n)
    _write_cases(place / "cases.jsonl", cohort)
    return open_cohort(place)


def open_cohort(place: Path) -> Cohort:
    """The finished cohort in `place`, memory-mapped read-only."""
    cases = [json.loads(line) for line in (place / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
    names = tuple(json.loads((place / "cohort.json").read_text(encoding="utf-8"))["regions"])
    return Cohort(np.load(place / "hu.npy", mmap_mode="r"), np.load(place / "covered.npy"), cases, names)


def _write_cases(path: Path, cohort: PhantomCohort) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        for number in range(cohort.start, cohort.start + cohort.n):
            file.write(json.dumps(describe(cohort.seed, number)) + "\n")
    part.replace(path)


def _open(place: Path, shape: tuple[int, ...]) -> list[np.memmap[Any, Any]]:
    """The crops, coverage and done flags, created at first use and opened for writing."""
    out = []
    for name, size, dtype in (("hu", shape, np.int16), ("covered", shape[:2], np.float32), ("done", shape[:1], np.uint8)):
        path = place / f"{name}.npy"
        mode = "r+" if path.exists() else "w+"
        out.append(np.lib.format.open_memmap(path, mode=mode, dtype=dtype, shape=size if mode == "w+" else None))
    return out


def _run(
    place: Path, shape: tuple[int, ...], cohort: PhantomCohort, contract: Contract, chunks: list[list[int]], workers: int
) -> Iterator[list[int]]:
    (place / "cohort.json").write_text(
        json.dumps({"regions": [r.name for r in contract.regions], **vars(cohort)}), encoding="utf-8"
    )
    if workers <= 1:
        for chunk in chunks:
            yield _fill(place, shape, cohort, contract, chunk)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_fill, *zip(*((place, shape, cohort, contract, c) for c in chunks), strict=True)) if chunks else ()


def _fill(place: Path, shape: tuple[int, ...], cohort: PhantomCohort, contract: Contract, rows: list[int]) -> list[int]:
    hu, covered, done = _open(place, shape)
    for row in rows:
        for k, spec in enumerate(contract.regions):
            hu[row, k], covered[row, k] = phantom_crop(cohort.seed, cohort.start + row, spec, cohort.jitter_mm)
        done[row] = 1
    for array in (hu, covered, done):
        array.flush()
    return rows
