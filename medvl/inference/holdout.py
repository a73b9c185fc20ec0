"""Held-out phantoms through the whole path: scan, localiser, crops, towers; then the table with its intervals.

Everything is measured on scans of test patients as they come from the scanner, not on crops around true centres. Labels of the
findings are the phantom's truth, not the reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvl.evaluation.intervals import bootstrap
from medvl.evaluation.metrics import auroc
from medvl.evaluation.phantom_truth import truth_of
from medvl.evaluation.ranking import hits_at, median_rank
from medvl.evaluation.reliability import expected_calibration_error
from medvl.imaging.phantom.render import COVERAGE_Z_MM, lesion_masks, region_centers
from medvl.imaging.phantom.sample import log_hazard
from medvl.imaging.phantom.truth import Patient
from medvl.inference.predictor import CaseResult, Predictor, RegionResult
from medvl.records import Volume
from medvl.survival.measures import harrell
from medvl.text.prompts import Finding

GALLERY = 200


@dataclass(frozen=True, eq=False)
class Held:
    """One test patient: truth, report texts by region, what the model said, and peaks of the evidence for what is present."""

    patient: Patient
    texts: Mapping[str, str]
    result: CaseResult
    center_error_mm: dict[str, float]
    pointing: list[tuple[str, bool, bool, float]] = field(default_factory=list)


def run_patient(predictor: Predictor, patient: Patient, volume: Volume, texts: Mapping[str, str]) -> Held:
    """Predict from the scan of one phantom, and compare evidence with the true lesions.

    `pointing` holds (finding, hit, near hit within 5 mm, share of the region that the lesion fills) for every present finding
    that was asked in a usable region.
    """
    result = predictor.predict(volume, age_years=patient.age_years, explain=False)
    centers = region_centers(patient)
    errors = {
        n: float(np.linalg.norm(r.place.center_lps - centers[n]))
        for n, r in result.regions.items()
        if r.place and _in_view(patient, centers[n])
    }
    held = Held(patient, texts, result, errors)
    for answer in result.findings:
        region = result.regions[answer.region]
        if region.embedding is not None and region.geometry is not None and truth_of(answer.finding, answer.region, patient) == 1:
            _point(held, predictor, answer.finding, region)
    return held


def _in_view(patient: Patient, center: NDArray[np.float64]) -> bool:
    low, high = COVERAGE_Z_MM[patient.scanner.coverage]
    return bool(low + 40 <= center[2] <= high - 40)


def _point(held: Held, predictor: Predictor, finding: Finding, region: RegionResult) -> None:
    assert region.hu is not None and region.geometry is not None  # noqa: S101 - callers checked
    key = "renal_mass" if finding.region == "kidney" and finding.given else finding.key
    mask = lesion_masks(held.patient, region.geometry).get(f"{key}@{region.name}")
    if mask is None or not mask.any():
        return
    heat = predictor.heat(finding, region.name, region.hu)
    peak = np.array(np.unravel_index(int(heat.argmax()), heat.shape))
    away = np.linalg.norm((np.argwhere(mask) - peak) * np.array(region.geometry.spacing_mm), axis=1).min()
    held.pointing.append((finding.key, bool(mask[tuple(peak)]), bool(away <= 5.0), float(mask.mean())))


def table(
    held: Sequence[Held], predictor: Predictor, embed: Callable[[list[str]], Tensor], *, draws: int = 1000
) -> dict[str, Any]:
    """Every measured number with its 95 % interval, resampling patients."""
    return {
        "patients": len(held),
        "localiser": _localiser(held),
        "findings": {f.key: row for f in predictor.findings.findings if (row := _finding(f, held, predictor, draws)) is not None},
        "retrieval": _retrieval(held, embed, draws),
        "survival": _survival(held, draws),
        "pointing": _pointing(held, draws),
    }


def _localiser(held: Sequence[Held]) -> dict[str, Any]:
    errors: dict[str, list[float]] = {}
    for h in held:
        for name, value in h.center_error_mm.items():
            errors.setdefault(name, []).append(value if h.result.regions[name].geometry is not None else np.inf)
    return {
        name: {
            "n": len(v),
            "median_mm": round(float(np.median(v)), 2),
            "within_15_mm": round(float(np.mean(np.array(v) <= 15)), 4),
        }
        for name, v in errors.items()
    }


def _finding(finding: Finding, held: Sequence[Held], predictor: Predictor, draws: int) -> dict[str, Any] | None:
    labels, scores, patients, verdicts = [], [], [], []
    for h in held:
        for answer in _scored(h, finding, predictor):
            truth = truth_of(finding, answer[0], h.patient)
            if truth is not None:
                labels.append(truth)
                scores.append(answer[1])
                verdicts.append(answer[2])
                patients.append(h.patient.patient_id)
    y, s = np.array(labels), np.array(scores)
    if len(set(labels)) < 2:
        return None
    decided = np.array([v != "undecided" for v in verdicts])
    said = np.array([v == "present" for v in verdicts])
    positives = decided & (y == 1)
    negatives = decided & (y == 0)
    return {
        "n": len(y),
        "present": int(y.sum()),
        "auroc": round(auroc(y, s), 4),
        "ci": [round(v, 4) for v in bootstrap(lambda rows: auroc(y[rows], s[rows]), patients, n=draws)],
        "sensitivity": round(float(said[positives].mean()), 4) if positives.any() else None,
        "specificity": round(float((~said[negatives]).mean()), 4) if negatives.any() else None,
        "undecided": round(float(1 - decided.mean()), 4),
        "ece": round(expected_calibration_error(y, s), 4),
    }


def _scored(h: Held, finding: Finding, predictor: Predictor) -> list[tuple[str, float, str]]:
    """(region, score, verdict) of a finding in every usable region, also where `infer` would not ask it for want of a mass."""
    calibration = predictor.calibration.get(finding.key)
    out: list[tuple[str, float, str]] = []
    for name in predictor.kinds[finding.region]:
        region = h.result.regions[name]
        if calibration is not None and region.answers is not None:
            score = float(calibration.probability(predictor.margin(finding, name, region.answers)))
            out.append((name, score, "undecided" if region.reasons else calibration.verdict(score)))
    return out


def _retrieval(held: Sequence[Held], embed: Callable[[list[str]], Tensor], draws: int) -> dict[str, Any]:
    """Report and scan matched over shared regions: mean cosine over regions, by patient, in galleries of `GALLERY`."""
    usable = [h for h in held if any(r.embedding is not None for r in h.result.regions.values())]
    names = list(usable[0].result.regions)
    images = torch.stack([_stacked(h, names) for h in usable])
    texts = _text_rows(usable, names, embed)
    lengths = [x.flatten(1).norm(dim=1).clamp_min(1e-6) for x in (images, texts)]
    similarity = (images.flatten(1) @ texts.flatten(1).T / lengths[0][:, None] / lengths[1][None]).double().numpy()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(usable))
    size = min(GALLERY, len(usable))
    galleries = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
    out: dict[str, Any] = {"gallery": size, "galleries": len(galleries), "chance_at_1": round(1 / size, 4)}
    for way, matrix in (("image_to_report", similarity), ("report_to_image", similarity.T)):
        blocks = [matrix[np.ix_(g, g)] for g in galleries]
        for k in (1, 5, 10):
            hits = np.concatenate([hits_at(block, k) for block in blocks])
            low, high = bootstrap(lambda rows, h=hits: float(h[rows].mean()), np.arange(len(hits)), n=draws)  # type: ignore[misc]
            out[f"{way}_recall_at_{k}"] = {"value": round(float(hits.mean()), 4), "ci": [round(low, 4), round(high, 4)]}
        out[f"{way}_median_rank"] = float(np.mean([median_rank(block) for block in blocks]))
    return out


def _stacked(h: Held, names: Sequence[str]) -> Tensor:
    some = next(r.embedding for r in h.result.regions.values() if r.embedding is not None)
    rows = [h.result.regions[n].embedding for n in names]
    return torch.stack([torch.zeros_like(some) if r is None else r for r in rows])


def _text_rows(usable: Sequence[Held], names: Sequence[str], embed: Callable[[list[str]], Tensor]) -> Tensor:
    flat = [(i, j, h.texts[n]) for i, h in enumerate(usable) for j, n in enumerate(names) if h.texts.get(n)]
    vectors = embed([text for _, _, text in flat])
    rows = torch.zeros(len(usable), len(names), vectors.shape[1])
    for (i, j, _), vector in zip(flat, vectors, strict=True):
        rows[i, j] = vector
    return rows


def _survival(held: Sequence[Held], draws: int) -> dict[str, Any]:
    usable = [h for h in held if h.result.risk and h.result.risk["value"] is not None]
    time = np.array([h.patient.time_days for h in usable])
    event = np.array([h.patient.event for h in usable])
    oracle = [log_hazard(h.patient.age_years, (h.patient.kidney_left, h.patient.kidney_right), h.patient.chest) for h in usable]
    scores = {
        "model": np.array([h.result.risk["value"] for h in usable if h.result.risk]),
        "oracle": np.array(oracle),
        "age_only": np.array([h.patient.age_years for h in usable]),
    }
    out: dict[str, Any] = {"n": len(usable), "events": int(event.sum())}
    for name, risk in scores.items():

        def c(rows: NDArray[np.int64], risk: NDArray[np.float64] = risk) -> float:
            return harrell(time[rows], event[rows], risk[rows])

        low, high = bootstrap(c, np.arange(len(usable)), n=min(draws, 400))
        out[name] = {"c_index": round(c(np.arange(len(usable))), 4), "ci": [round(low, 4), round(high, 4)]}
    return out


def _pointing(held: Sequence[Held], draws: int) -> dict[str, Any]:
    rows = [(h.patient.patient_id, *p) for h in held for p in h.pointing]
    out = {}
    for name in ("all", *sorted({r[1] for r in rows})):
        chosen = [r for r in rows if name in ("all", r[1])]
        hits = np.array([r[2] for r in chosen], dtype=float)
        low, high = bootstrap(lambda i, h=hits: float(h[i].mean()), [r[0] for r in chosen], n=draws)  # type: ignore[misc]
        out[name] = {
            "n": len(chosen),
            "rate": round(float(hits.mean()), 4),
            "ci": [round(low, 4), round(high, 4)],
            "within_5_mm": round(float(np.mean([r[3] for r in chosen])), 4),
            "chance": round(float(np.mean([r[4] for r in chosen])), 4),
        }
    return out
