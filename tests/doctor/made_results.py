"""Results folders made of numbers, for tests of the drift report."""

import json
from pathlib import Path

import numpy as np

from medvl.doctor.drift_read import Reference

N_REFERENCE = 200
SHA = "ab" * 32
FINDINGS = {"kidney_left": ("cyst", "mass"), "chest": ("effusion",)}
REFERENCE = Reference(
    "made",
    SHA,
    dict.fromkeys(FINDINGS, N_REFERENCE),
    frozenset(),
    {"cyst": (60, 140), "mass": (50, 150), "effusion": (30, 170)},
    dict.fromkeys(FINDINGS, 1),
)


def record(rng: np.random.Generator, k: int, *, facts=None, made_at="2026-11-16T20:00:00+00:00", score=0.0, far=0.0) -> dict:
    """findings.json of one study: scores are standard normal plus `score`, distances a chi-like 1 plus `far`."""
    reference = np.sort(np.random.default_rng(99).normal(size=N_REFERENCE))
    regions, findings = [], []
    for region, asked in FINDINGS.items():
        distance = float(1 + 0.1 * abs(rng.normal()) + far)
        reasons = [{"code": "out_of_distribution", "message": "unlike"}] if distance > 1.5 else []
        measured = {"distance": round(distance, 4), "limit": 1.5, "out": distance > 1.5}
        regions.append({"name": region, "found": True, "reasons": reasons, "ood": measured})
        for finding in asked:
            margin = float(rng.normal() + score)
            percentile = round(100 * float((reference < margin).mean()), 1)
            verdict = "undecided" if abs(margin - 0.8) < 0.1 else "present" if margin > 0.8 else "absent"
            told = {"finding": finding, "label": finding.title(), "region": region, "margin": round(margin, 4)}
            findings.append({**told, "percentile": percentile, "verdict": verdict, "reasons": reasons})
    spacing = float(rng.choice([1.0, 2.0, 5.0]))
    return {
        "case_id": f"{k:012x}",
        "status": "done",
        "made_at": made_at,
        "bundle": {"name": "made", "sha256": SHA, "contract": "cd"},
        "reasons": [],
        "series": {"shape_dhw": [int(300 / spacing), 64, 64], "spacing_mm": [spacing, 0.8, 0.8], "facts": facts or {}},
        "regions": regions,
        "findings": findings,
    }


def write(folder: Path, records: list[dict]) -> Path:
    """A results folder with these studies."""
    for values in records:
        place = folder / "studies" / values["case_id"]
        place.mkdir(parents=True)
        (place / "findings.json").write_text(json.dumps(values))
    return folder
