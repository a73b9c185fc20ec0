"""A cohort of model regions on disk: HU crops around each region's centre, with the truth and the report of every patient.

Layout of a cohort folder: the files of `medvl.data.cache` (crops, coverage, flags), `cases.jsonl` (one JSON object a patient)
and `cohort.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.cache import Row, fill_rows, open_rows
from medvl.errors import ConfigError
from medvl.files import whole
from medvl.geometry import Geometry
from medvl.imaging.phantom.render import COVERAGE_Z_MM, RENDER_VERSION, region_centers, render
from medvl.imaging.phantom.sample import PHASES, sample_patient
from medvl.imaging.phantom.site import DEMO, Site, load_site
from medvl.imaging.phantom.truth import Patient, Phase
from medvl.imaging.phantom.write import report_of
from medvl.imaging.preprocess import MIN_COVERED, Contract, RegionSpec
from medvl.imaging.resample import resample
from medvl.text.labels import extract
from medvl.text.report import parse_report

JITTER_MM = 9.0
MARGIN_MM = 9.0


@dataclass(frozen=True)
class PhantomCohort:
    """Which phantom patients.

    Args:
        seed, start, n: numbers `start` to `start + n` of `seed`.
        jitter_mm: spread of the crop centres, uniform.
        phases: scans a patient has, of the same anatomy: how many (the patient's own phase and others drawn at random), or which.
        site: the hospital, by name or as a YAML file.

    Raises:
        ConfigError: there is no such site; a phase is unknown or repeated; there are fewer than one or more than there are.
    """

    seed: int
    start: int
    n: int
    jitter_mm: float = JITTER_MM
    phases: int | tuple[Phase, ...] = 1
    site: str = DEMO.name

    def __post_init__(self) -> None:
        load_site(self.site)
        given = PHASES[: self.phases] if isinstance(self.phases, int) else self.phases
        wrong = len(given) != self.phases if isinstance(self.phases, int) else not set(given) <= set(PHASES)
        if wrong or not given or len(set(given)) < len(given):
            raise ConfigError(f"phases must be 1 to {len(PHASES)}, or different ones of {', '.join(PHASES)}; found {self.phases}")

    @property
    def n_phases(self) -> int:
        """Scans a patient has."""
        return self.phases if isinstance(self.phases, int) else len(self.phases)

    def key(self, contract: Contract) -> str:
        """Folder name that changes with the patients, the crops' placement, the input contract and the renderer."""
        parts = [self.seed, self.start, self.n, self.jitter_mm, self.phases, contract.hash, RENDER_VERSION]
        text = json.dumps(parts if self.site == DEMO.name else [*parts, load_site(self.site).digest])
        return "phantom-" + hashlib.sha256(text.encode()).hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """What is written of it; the site only if it is not the demo site."""
        return {name: value for name, value in vars(self).items() if name != "site" or value != DEMO.name}

    def patient(self, row: int) -> Patient:
        """The patient of a row."""
        return sample_patient(self.seed, self.start + row, load_site(self.site))

    def phases_of(self, patient: Patient) -> tuple[Phase, ...]:
        """The phases of a patient's scans, the one that the report was made from first where it is among them."""
        own = patient.scanner.phase
        if not isinstance(self.phases, int):
            return tuple(sorted(self.phases, key=lambda phase: (phase != own, self.phases.index(phase))))  # type: ignore[union-attr]
        others = [phase for phase in PHASES if phase != own]
        rng = np.random.default_rng([patient.seed, int(patient.patient_id[2:]), 5])
        return (own, *(others[int(i)] for i in rng.permutation(len(others))[: self.phases - 1]))


@dataclass(frozen=True, eq=False)
class Cohort:
    """A built cohort.

    Args:
        hu: (N, R, D, H, W) memory-mapped; with several phases, the first of each patient.
        covered: (N, R) share of each crop inside that scan, 0 if not taken.
        cases: one mapping a patient.
        regions: names of the R columns.
        phase_hu: (N, P, R, D, H, W) memory-mapped where patients have several scans; `case["phases"]` names each patient's.
        phase_covered: (N, P, R); all 0 for a scan that a patient does not have.
        phases: every phase that occurs.
    """

    hu: NDArray[np.int16]
    covered: NDArray[np.float32]
    cases: list[dict[str, Any]]
    regions: tuple[str, ...]
    phase_hu: NDArray[np.int16] | None = None
    phase_covered: NDArray[np.float32] | None = None
    phases: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cases)


def common_grid(contract: Contract) -> tuple[int, int, int]:
    """The (D, H, W) that all regions share.

    Raises:
        ConfigError: they differ.
    """
    grids = {spec.name: spec.grid_dhw for spec in contract.regions}
    if len(set(grids.values())) > 1:
        told = ", ".join(f"{name} {list(grid)}" for name, grid in grids.items())
        raise ConfigError(f"all regions of a cohort need the same grid_dhw, found {told}; choose one grid and vary spacing_mm")
    return contract.regions[0].grid_dhw


def phantom_crop(
    seed: int, number: int, spec: RegionSpec, jitter_mm: float, phase: Phase | None = None, site: Site = DEMO
) -> tuple[NDArray[np.int16], float]:
    """(D, H, W) int16 HU of one region of one phantom as its scanner saw it, in `phase` or the patient's own, and its cover."""
    patient = sample_patient(seed, number, site)
    if phase is not None:
        patient = replace(patient, scanner=replace(patient.scanner, phase=phase))
    target = crop_geometry(patient, spec, jitter_mm)
    native = _native_part(target, patient.scanner.spacing_dhw_mm, COVERAGE_Z_MM[patient.scanner.coverage])
    if native is None:
        return np.full(spec.grid_dhw, -1024, np.int16), 0.0
    d = spec.grid_dhw[0]
    z = target.to_lps(np.stack([np.arange(d), np.zeros(d), np.zeros(d)], axis=1))[:, 2]
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


def describe(seed: int, number: int, site: Site = DEMO) -> dict[str, Any]:
    """Truth, report, region texts and report-derived labels of one phantom, as JSON."""
    patient = sample_patient(seed, number, site)
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

    Raises:
        ConfigError: the regions' grids differ.
    """
    grid, phases = common_grid(contract), cohort.n_phases
    place = folder / cohort.key(contract)
    shape = (cohort.n, *((phases,) if phases > 1 else ()), len(contract.regions), *grid)
    fill_rows(place, shape, partial(_phantom_row, cohort, contract), workers=workers, progress=progress)
    site = load_site(cohort.site)
    cases = (describe(cohort.seed, number, site) for number in range(cohort.start, cohort.start + cohort.n))
    if phases > 1:
        cases = ({**case, "phases": list(cohort.phases_of(cohort.patient(i)))} for i, case in enumerate(cases))
    write_cohort(place, cases, {"regions": contract.names, **cohort.facts()})
    return open_cohort(place)


def _phantom_row(cohort: PhantomCohort, contract: Contract, row: int) -> Row:
    phases = cohort.phases_of(cohort.patient(row))
    crops = [
        phantom_crop(cohort.seed, cohort.start + row, spec, cohort.jitter_mm, phase, load_site(cohort.site))
        for phase in phases
        for spec in contract.regions
    ]
    grid = contract.regions[0].grid_dhw
    lead = (len(phases), len(contract.regions)) if len(phases) > 1 else (len(contract.regions),)
    covered = np.array([cover for _, cover in crops], np.float32)
    return Row(np.stack([hu for hu, _ in crops]).reshape(*lead, *grid), covered.reshape(lead))


def write_cohort(place: Path, cases: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write `cases.jsonl` and `cohort.json` beside the crops, each whole or not at all."""
    write_lines(place / "cases.jsonl", cases)
    write_lines(place / "cohort.json", [facts])


def write_lines(path: Path, lines: Iterable[Any]) -> None:
    """One JSON value a line; the file appears whole or not at all, and other writers do no harm."""
    with whole(path) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def open_cohort(place: Path) -> Cohort:
    """The finished cohort in `place`, memory-mapped read-only.

    Raises:
        ConfigError: it is incomplete.
    """
    rows = open_rows(place)
    cases = [json.loads(line) for line in (place / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
    names = tuple(json.loads((place / "cohort.json").read_text(encoding="utf-8"))["regions"])
    if rows.covered.ndim == 2:
        return Cohort(rows.hu, rows.covered, cases, names)
    found = {phase for case in cases for phase in case["phases"] if phase}
    return Cohort(rows.hu[:, 0], rows.covered[:, 0], cases, names, rows.hu, rows.covered, tuple(sorted(found)))
