"""A cohort of painted CT: label maps and clinical rows of KiTS23 with invented HU, as crops with reports like any other cohort.

Real: shape, size, place and side of kidneys, tumours and cysts, clinical facts, pathology, outcome. Painted: every HU. The folder
of KiTS23 (`kits23.json`, `native_crop/`, `grid3mm/`) is read where it lies; nothing of it is kept but in the cache of crops.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.cache import Row, fill_rows
from medvl.data.cohort import Cohort, common_grid, open_cohort, write_cohort
from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.nifti import read_labels
from medvl.imaging.painted.masks import KidneyFacts, read_kidneys
from medvl.imaging.painted.report import write_report
from medvl.imaging.painted.scene import PAINT_VERSION, Body, Tumour, body_around, paint, tumour_of
from medvl.imaging.phantom.sample import PHASES, sample_patient
from medvl.imaging.phantom.truth import Phase, Scanner, Side
from medvl.imaging.preprocess import Contract, RegionSpec, to_hu_grid
from medvl.text.labels import extract
from medvl.text.report import parse_report

SPLITS = {"train": 0.60, "validation": 0.15, "test": 0.25}
EDGE_MM = 9.0  # painted around a crop, for the resampling
_MANY = 16  # paintings a patient can have
_STREAM = {"scanner": 21, "tumour": 22, "noise": 23, "place": 24, "report": 25, "split": 26}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PaintedCohort:
    """Which painted patients, and how.

    Args:
        data: folder of KiTS23.
        split: train, validation or test of the seeded division by patient.
        seed: of the division, the paint and the words.
        phases: one painting of each, from a scanner of its own; the first is the main one.
        link: histology and necrosis decide how tumours look; without, all are painted alike.
        jitter_mm: spread of the crop centres, uniform.

    Raises:
        ConfigError: the folder is not there, the split is unknown, or phases are unknown or repeated.
    """

    data: Path
    split: str
    seed: int = 0
    phases: tuple[Phase, ...] = ("arterial",)
    link: bool = True
    jitter_mm: float = 0.0

    def __post_init__(self) -> None:
        if not (self.data / "kits23.json").is_file() or not (self.data / "native_crop").is_dir():
            raise ConfigError(f"no KiTS23 label maps in {self.data}; it must hold kits23.json, native_crop/ and grid3mm/")
        if self.split not in SPLITS:
            raise ConfigError(f"no split {self.split!r}; choose from {', '.join(SPLITS)}")
        if not self.phases or len(set(self.phases)) < len(self.phases) or not set(self.phases) <= set(PHASES):
            raise ConfigError(f"phases must be different ones of {', '.join(PHASES)}; found {list(self.phases)}")

    def key(self, contract: Contract) -> str:
        """Folder name that changes with patients, paint and crops."""
        ids = [row["case_id"] for row in self.rows()]
        facts = [ids, self.seed, self.phases, self.link, self.jitter_mm, contract.hash, PAINT_VERSION]
        return "painted-" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def rows(self) -> list[dict[str, Any]]:
        """Clinical rows of the split's patients, in the order of their names."""
        every = json.loads((self.data / "kits23.json").read_text(encoding="utf-8"))
        return [row for row in sorted(every, key=lambda row: str(row["case_id"])) if row["case_id"] in self._ids(every)]

    def _ids(self, rows: list[dict[str, Any]]) -> set[str]:
        return split_patients([str(row["case_id"]) for row in rows], self.seed)[self.split]


def split_patients(names: list[str], seed: int) -> dict[str, set[str]]:
    """Split to patients: 60, 15 and 25 % of a seeded order."""
    order = np.random.default_rng([seed, _STREAM["split"]]).permutation(sorted(names)).tolist()
    edges = np.rint(np.cumsum([0.0, *SPLITS.values()]) * len(order)).astype(int)
    return {name: set(order[edges[k] : edges[k + 1]]) for k, name in enumerate(SPLITS)}


@dataclass(frozen=True, eq=False)
class Case:
    """One patient's label map: (D, H, W) on `geometry`, where the body's middle is, its kidneys, and the clinical row."""

    number: int
    labels: NDArray[Any]
    geometry: Geometry
    midline_x_mm: float
    kidneys: Mapping[Side, KidneyFacts]
    row: Mapping[str, Any]

    @cached_property
    def body(self) -> Body:
        """The outline around this patient's kidneys."""
        return body_around(self.geometry, self.labels, self.midline_x_mm, self.row.get("bmi"))


def read_case(data: Path, row: Mapping[str, Any]) -> Case:
    """The label map of a clinical row, at its own resolution; the body's middle is that of the whole field of view."""
    name = row["case_id"]
    labels, geometry = read_labels(data / "native_crop" / f"{name}.nii.gz")
    midline = float(read_labels(data / "grid3mm" / f"{name}.nii.gz")[1].center_lps[0])
    return Case(int(name.rpartition("_")[2]), labels, geometry, midline, read_kidneys(labels, geometry, midline), row)


def scanner_of(cohort: PaintedCohort, number: int, phase: Phase) -> Scanner:
    """The scanner of one painting: voxel size, kernel and noise as phantoms' scanners vary."""
    drawn = sample_patient(cohort.seed + 1000 * _STREAM["scanner"], number * _MANY + PHASES.index(phase)).scanner
    return replace(drawn, phase=phase)


def tumour_paint(cohort: PaintedCohort, case: Case) -> Tumour:
    """How the tumours of a patient look, the same in every painting."""
    rng = np.random.default_rng([cohort.seed, case.number, _STREAM["tumour"]])
    return tumour_of(case.row.get("tumor_histologic_subtype"), case.row.get("tumor_necrosis"), rng, link=cohort.link)


def painted_crop(cohort: PaintedCohort, case: Case, side: Side, spec: RegionSpec, phase: Phase) -> NDArray[np.int16]:
    """(D, H, W) int16 HU of one kidney: painted on the scanner's voxels, then cut as any scan is."""
    which = [cohort.seed, case.number, int(side == "right")]
    shift = np.random.default_rng([*which, _STREAM["place"]]).uniform(-cohort.jitter_mm, cohort.jitter_mm, 3)
    target = spec.geometry(np.array(case.kidneys[side].center_lps) + shift)
    scanner = scanner_of(cohort, case.number, phase)
    size = [int((e + 2 * EDGE_MM) / s) + 1 for e, s in zip(target.extent_mm, scanner.spacing_dhw_mm, strict=True)]
    native = Geometry.centered(target.center_lps, (size[0], size[1], size[2]), scanner.spacing_dhw_mm)
    noise = np.random.default_rng([*which, PHASES.index(phase), _STREAM["noise"]])
    return to_hu_grid(paint(case.labels, case.geometry, native, scanner, tumour_paint(cohort, case), case.body, noise), target)


def build_painted(
    folder: Path, cohort: PaintedCohort, contract: Contract, *, workers: int = 1, progress: Progress | None = None
) -> Cohort:
    """Build the cohort under `folder` (or go on with a broken-off build) and open it.

    A patient without a kidney on one side has `covered` 0 there. Cases hold what the mask says under ``truth.kidneys``, the
    clinical row under ``truth.clinical``, and ``painted`` says which link the paint has.

    Args:
        folder: parent of the cohort's own folder.
        cohort: which patients, and how they are painted.
        contract: regions kidney_left and kidney_right, on the same grid.
        workers: processes.
        progress: called with (done, total).

    Raises:
        ConfigError: the contract has other regions, or grids differ.
    """
    unknown = set(contract.names) - {"kidney_left", "kidney_right"}
    if unknown:
        raise ConfigError(f"only kidneys are painted; the contract asks for {', '.join(sorted(unknown))}")
    place, rows = folder / cohort.key(contract), cohort.rows()
    lead = (*((len(cohort.phases),) if len(cohort.phases) > 1 else ()), len(contract.regions))
    make = partial(_row, cohort, contract, rows, lead)
    fill_rows(place, (len(rows), *lead, *common_grid(contract)), make, workers=workers, progress=progress)
    if not (place / "cohort.json").is_file():
        facts = {**asdict(cohort), "data": "KiTS23", "regions": contract.names, "contract": contract.hash}
        write_cohort(place, (describe(cohort, row) for row in rows), facts)
    return open_cohort(place)


def _row(cohort: PaintedCohort, contract: Contract, rows: list[dict[str, Any]], lead: tuple[int, ...], number: int) -> Row:
    case, grid = read_case(cohort.data, rows[number]), common_grid(contract)
    hu = np.full((len(cohort.phases), len(contract.regions), *grid), contract.fill_hu, np.int16)
    covered = np.zeros(hu.shape[:2], np.float32)
    for k, spec in enumerate(contract.regions):
        side: Side = "left" if spec.name == "kidney_left" else "right"
        if side in case.kidneys:
            hu[:, k] = [painted_crop(cohort, case, side, spec, phase) for phase in cohort.phases]
            covered[:, k] = 1.0
    return Row(hu.reshape(*lead, *grid), covered.reshape(lead))


def describe(cohort: PaintedCohort, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the cohort says of a patient: facts of the mask and of the clinic, the report, its region texts and labels."""
    case = read_case(cohort.data, row)
    text = write_report(case.kidneys, np.random.default_rng([cohort.seed, case.number, _STREAM["report"]]))
    report = parse_report(text)
    truth = {
        "age_years": row.get("age_at_nephrectomy"),
        "time_days": row.get("vital_days_after_surgery"),
        "event": row.get("vital_status") == "dead",
        "kidneys": {side: facts.as_dict() for side, facts in case.kidneys.items()},
        "clinical": dict(row),
    }
    return {
        "patient_id": str(row["case_id"]),
        "truth": truth,
        "painted": {"link": cohort.link, "tumour": asdict(tumour_paint(cohort, case))},
        "report": text,
        "region_texts": report.regions,
        "labels": extract(report),
        "phases": list(cohort.phases),
    }
