"""From cohorts to the table that heads and protocols read: every region embedded, asked, and set beside what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from medvl.data.cohort import Cohort, PhantomCohort, describe
from medvl.errors import ConfigError
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.peaks import NEAR_MM, peak_distance_mm
from medvl.evaluation.phantom_truth import patient_of, truth_of
from medvl.evaluation.task_grounding import DELETION
from medvl.heads.answering import Read
from medvl.heads.zeroshot import label_of
from medvl.imaging.phantom.render import COVERAGE_Z_MM, lesion_masks, region_centers, render
from medvl.imaging.phantom.sample import KERNELS_MM, log_hazard
from medvl.imaging.phantom.site import load_site
from medvl.imaging.phantom.truth import Patient
from medvl.imaging.preprocess import MIN_COVERED
from medvl.inference.predictor import Predictor, RegionResult
from medvl.text.prompts import Finding, FindingList

BATCH = 32
GROUPS = ("sex", "site", "phase", "manufacturer", "kernel", "slice_thickness_mm")  # by which results are compared
Progress = Callable[[int, int], None]
Case = Mapping[str, Any]


@dataclass
class _Rows:
    """Rows being gathered: facts of each, and what was made of those that were usable."""

    predictor: Predictor
    facts: list[dict[str, Any]] = field(default_factory=list)
    found: dict[int, Read] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)

    def add(self, case: Case, region: str, reason: str, **facts: Any) -> int:
        told = str(case["region_texts"].get(region) or "")
        kind = self.predictor.kind_of(region)
        row = {"patient_id": case["patient_id"], "region": region, "kind": kind, "report": told, "reason": reason}
        named = {"study": case["dataset_case"]} if case.get("dataset_case") else {}
        self.facts.append({**row, **named, **facts})
        self.cases.append(case)
        return len(self.facts) - 1

    def finish(self, patients: pd.DataFrame, source: Mapping[str, str], evidence: pd.DataFrame | None = None) -> Embedded:
        rows = pd.DataFrame(self.facts)
        findings = self.predictor.findings.findings
        shape = (len(rows), len(findings))
        first = next(iter(self.found.values()), None)
        widths = [0, 0] if first is None else [first.pooled.shape[-1], first.embedding.shape[-1]]
        pooled, embedding = (np.full((len(rows), width), np.nan, np.float32) for width in widths)
        margins = np.full(shape, np.nan, np.float32)
        said, truth = np.full(shape, -1, np.int8), np.full(shape, -1, np.int8)
        columns = {finding.key: j for j, finding in enumerate(findings)}
        for i, read in self.found.items():
            region = rows.at[i, "region"]
            pooled[i], embedding[i] = read.pooled.numpy(), read.embedding.numpy()
            asked = [columns[f.key] for f in self.predictor.answering.asked(region)]
            margins[i, asked] = self.predictor.answering.margins(region, read.answers[None])[0].numpy()
        for i, case in enumerate(self.cases):
            region = rows.at[i, "region"]
            for finding in self.predictor.answering.asked(region):
                j = columns[finding.key]
                said[i, j] = _known(label_of(finding, case["labels"][region], self.predictor.findings))
                truth[i, j] = _known(_truth(finding, region, case, self.predictor.findings))
        bundle = self.predictor.bundle
        told = {"model": bundle.name, "model_sha256": bundle.sha256, "contract_hash": self.predictor.contract.hash, **source}
        reports = self._reports(rows, embedding.shape[1])
        keys = tuple(f.key for f in findings)
        return Embedded(rows, patients, embedding, pooled, reports, keys, margins, said, truth, told, evidence)

    def _reports(self, rows: pd.DataFrame, width: int) -> NDArray[np.float32]:
        out = np.full((len(rows), width), np.nan, np.float32)
        told = np.flatnonzero(rows["report"] != "")
        if len(told) and width:
            labels = [self.cases[i]["labels"][rows.at[i, "region"]] for i in told]
            out[told] = self.predictor.answering.embed_reports(rows["report"].iloc[told].tolist(), labels).numpy()
        return out


def embed_cohort(
    predictor: Predictor, cohort: Cohort, source: Mapping[str, str], progress: Progress | None = None, first: int | None = None
) -> Embedded:
    """Embed the crops of a built cohort, of each patient's main scan.

    Args:
        predictor: of a bundle whose regions are those of the cohort.
        cohort: crops on the bundle's grids; of phantoms, or built from a table.
        source: where it came from: `cohort`, `split`, `way`.
        progress: called with (patients done, of how many).
        first: only so many patients.

    Raises:
        ConfigError: the cohort has other regions or grids than the bundle takes.
    """
    if cohort.regions != predictor.contract.names or cohort.hu.shape[2:] != predictor.contract.regions[0].grid_dhw:
        raise ConfigError(
            f"the cohort holds {', '.join(cohort.regions)} of {list(cohort.hu.shape[2:])} voxels; the bundle takes "
            f"{', '.join(predictor.contract.names)} of {list(predictor.contract.regions[0].grid_dhw)}"
        )
    rows, n = _Rows(predictor), len(cohort) if first is None else min(first, len(cohort))
    for start in range(0, n, BATCH):
        places = range(start, min(start + BATCH, n))
        for names in predictor.kinds.values():
            used: list[tuple[int, int, str]] = []
            for i in places:
                for region in names:
                    column = cohort.regions.index(region)
                    covered = float(cohort.covered[i, column])
                    code = "" if covered >= MIN_COVERED else str(cohort.cases[i].get("rejected") or "region_incomplete")
                    row = rows.add(cohort.cases[i], region, code, covered=round(covered, 4))
                    if not code:
                        used.append((row, i, region))
            _read(rows, [np.asarray(cohort.hu[i, cohort.regions.index(r)]) for _, i, r in used], used)
        if progress:
            progress(places[-1] + 1, n)
    return rows.finish(_patients(cohort.cases[:n]), source)


def _read(rows: _Rows, crops: Sequence[NDArray[np.int16]], used: Sequence[tuple[int, int, str]]) -> None:
    if used:
        found = rows.predictor.read(crops, [region for _, _, region in used])
        rows.found |= {row: Read(*(part[k] for part in found)) for k, (row, _, _) in enumerate(used)}


def embed_phantoms(
    predictor: Predictor, which: PhantomCohort, source: Mapping[str, str], progress: Progress | None = None
) -> Embedded:
    """Scan phantoms and send each scan through the whole path: localiser, crops, towers.

    Maps are compared with lesions, and scores with what they are without the peak of the map (`Embedded.evidence`).
    Rows also hold `center_error_mm` of the localiser (NaN where the region's centre is not well inside the scan).
    """
    rows, cases, hits = _Rows(predictor), [], list[dict[str, Any]]()
    for done, number in enumerate(range(which.start, which.start + which.n), start=1):
        case = describe(which.seed, number, load_site(which.site))
        patient = patient_of(case["truth"])
        result = predictor.predict(render(patient), age_years=patient.age_years, explain=False)
        centers = region_centers(patient)
        for name, region in result.regions.items():
            error = _error(patient, region, centers[name])
            facts = {"covered": region.covered, "distance": region.distance, "center_error_mm": error}
            row = rows.add(case, name, region.reasons[0].code if region.reasons else "", **facts)
            if region.embedding is not None and region.answers is not None and region.pooled is not None and not region.reasons:
                rows.found[row] = Read(torch.from_numpy(region.pooled), region.embedding, region.answers)
                hits += _pointing(predictor, patient, region)
        cases.append(case)
        if progress:
            progress(done, which.n)
    evidence = pd.DataFrame(hits, columns=["patient_id", "region", "finding", "hit", "near", "share", *DELETION])
    return rows.finish(_patients(cases), source, evidence)


def _error(patient: Patient, region: RegionResult, center: NDArray[np.float64]) -> float:
    """Distance of the localiser's centre from the true one in mm; infinite where it was not found, NaN where it is cut off."""
    low, high = COVERAGE_Z_MM[patient.scanner.coverage]
    if not low + 40 <= center[2] <= high - 40:
        return float("nan")
    if region.place is None or region.geometry is None:
        return float("inf")
    return float(np.linalg.norm(region.place.center_lps - center))


def lesions_in(predictor: Predictor, patient: Patient, region: RegionResult) -> Iterator[tuple[Finding, NDArray[np.bool_]]]:
    """The findings that a phantom truly has in a region that was read, each with its mask (D, H, W) on the region's grid."""
    assert region.geometry is not None  # noqa: S101 - callers checked
    masks = lesion_masks(patient, region.geometry)
    for finding in predictor.findings.findings:
        if region.name not in predictor.kinds[finding.region] or truth_of(finding, region.name, patient) != 1:
            continue
        key = "renal_mass" if finding.region == "kidney" and finding.given else finding.key
        mask = masks.get(f"{key}@{region.name}")
        if mask is not None and mask.any():
            yield finding, mask


def _pointing(predictor: Predictor, patient: Patient, region: RegionResult) -> Iterator[dict[str, Any]]:
    assert region.hu is not None and region.geometry is not None  # noqa: S101 - callers checked
    for finding, mask in lesions_in(predictor, patient, region):
        if finding.key in predictor.calibration:
            heat, test = predictor.explain(finding, region)
            scores = {"before": test.before, "after": test.after, "control": np.nan if test.control is None else test.control}
        else:
            heat, scores = predictor.heat(finding, region), dict.fromkeys(DELETION, np.nan)
        near = peak_distance_mm(heat, mask, region.geometry) <= NEAR_MM
        told = {"patient_id": patient.patient_id, "region": region.name, "finding": finding.key}
        yield told | {"hit": bool(mask.flat[heat.argmax()]), "near": near, "share": float(mask.mean())} | scores


def _patients(cases: Sequence[Case]) -> pd.DataFrame:
    found = {str(case["patient_id"]): _facts(case) for case in cases}
    out = pd.DataFrame.from_dict(found, orient="index")
    out.index.name = "patient_id"
    return out


def _facts(case: Case) -> dict[str, Any]:
    """What is known of a patient: of phantoms from their truth, of others from the table."""
    truth = case.get("truth") or {}
    if "seed" not in truth:
        told = {name: truth[name] for name in GROUPS if truth.get(name) is not None}
        linked = {"person": case["person"]} if case.get("person") else {}
        return {name: truth.get(name) for name in ("age_years", "time_days", "event")} | told | linked
    who = patient_of(truth)
    kernels = {mm: name for name, mm in KERNELS_MM.items()}
    return {
        "sex": who.sex,
        "age_years": who.age_years,
        "bmi": who.bmi,
        "time_days": who.time_days,
        "event": who.event,
        "phase": who.scanner.phase,
        "manufacturer": who.scanner.manufacturer,
        "kernel": kernels.get(who.scanner.kernel_mm, "unknown"),
        "slice_thickness_mm": who.scanner.thickness_mm,
        "coverage": who.scanner.coverage,
        "oracle_risk": log_hazard(who.age_years, (who.kidney_left, who.kidney_right), who.chest),
    }


def _truth(finding: Finding, region: str, case: Case, findings: FindingList) -> int | None:
    """Of a phantom as it was made, of others as clinicians or the hospital's table labelled it; None where nobody did.

    A finding that makes sense only where another is present needs that one too: as labelled, else as the report says.
    """
    truth = case.get("truth") or {}
    if "seed" in truth:
        return truth_of(finding, region, patient_of(truth))
    sources = (case.get("label_sources") or {}).get(region) or {}
    return label_of(finding, case["labels"][region], findings) if finding.truth in sources else None


def _known(value: int | None) -> int:
    return -1 if value is None else value
