"""A made-up embedded cohort with a model whose scores, risks and reports are as good as asked, for tests of protocols."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medvl.evaluation.calibration import Calibration
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.tasks import Model
from medvl.survival.model import SurvivalModel
from medvl.text.prompts import load_findings

REGIONS = ("kidney_left", "kidney_right")
FINDINGS = ("mass", "cyst")
ENDPOINT = "overall survival"
WIDTH = 6
PLACES = ("upper", "middle", "lower", "hilar", "anterior", "posterior", "lateral", "medial")


def questions() -> Any:
    """A list of two findings."""
    one = {"region": "kidney", "present": ["a {side} one"], "absent": ["no {side} one"]}
    return load_findings({"name": "pretend", "findings": [{"key": k, "label": k.title(), "truth": k, **one} for k in FINDINGS]})


def model(name: str = "pretend", *, survival: bool = True) -> Model:
    """Thresholds at one half, undecided between 0.45 and 0.55; the risk is the first value of the left kidney's embedding."""
    calibration = Calibration(1.0, 0.0, 0.5, 0.45, 0.55, 40, 60)
    n = 2 * (WIDTH + 1) + 1
    weights = np.zeros(n)
    weights[0] = 3.0
    head = SurvivalModel(
        ENDPOINT, REGIONS, WIDTH, np.zeros(n), np.ones(n), weights, np.linspace(-1, 1, 61), np.array([0.05, 0.2, 0.5])
    )
    return Model(name, f"sha of {name}", questions(), dict.fromkeys(FINDINGS, calibration), head if survival else None)


def cohort(n: int = 80, *, seed: int = 0, skill: float = 1.5, offset: int = 0, **source: str) -> Embedded:
    """`n` patients with two kidneys each; one kidney in ten is unusable, one label in eight unknown."""
    rng = np.random.default_rng(seed)
    who = [f"P{offset + i:04d}" for i in range(n) for _ in REGIONS]
    size = len(who)
    truth = (rng.random((size, 2)) < (0.3, 0.45)).astype(np.int8)
    vectors = rng.normal(size=(size, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    told = vectors + 0.6 * rng.normal(size=vectors.shape) / np.sqrt(WIDTH)
    told /= np.linalg.norm(told, axis=1, keepdims=True)
    margins = skill * (2 * truth - 1) + rng.logistic(size=(size, 2)) * 1.2
    lost = rng.random(size) < 0.1
    words = [" ".join(rng.choice(PLACES, 14)) + f" {rng.random():.3f}" for _ in range(size)]
    risk = 3.0 * vectors[::2, 0]
    time = rng.exponential(1500 * np.exp(-risk))
    censor = rng.uniform(200, 3000, n)
    rows = pd.DataFrame(
        {
            "patient_id": who,
            "region": list(REGIONS) * n,
            "kind": "kidney",
            "report": words,
            "reason": np.where(lost, rng.choice(["region_incomplete", "out_of_distribution"], size), ""),
        }
    )
    patients = pd.DataFrame(
        {
            "sex": rng.choice(["F", "M"], n),
            "age_years": rng.uniform(40, 85, n).round(1),
            "time_days": np.minimum(time, censor).round(1),
            "event": time <= censor,
            "slice_thickness_mm": rng.choice([1.0, 5.0], n),
        },
        index=pd.Index(dict.fromkeys(who), name="patient_id"),
    )
    said = np.where(rng.random(truth.shape) < 0.125, -1, truth).astype(np.int8)
    truth = np.where(rng.random(truth.shape) < 0.125, -1, truth).astype(np.int8)
    arrays = [vectors, rng.normal(size=(size, 12)), told, margins]
    for array in (arrays[0], arrays[1], arrays[3]):
        array[lost] = np.nan
    vectors, pooled, told, margins = (a.astype(np.float32) for a in arrays)
    evidence = pd.DataFrame(
        {
            "patient_id": who[::2],
            "region": "kidney_left",
            "finding": "mass",
            "hit": rng.random(n) < 0.6,
            "near": rng.random(n) < 0.8,
            "share": 0.04,
            "before": 0.9,
            "after": 0.9 - rng.normal(0.3, 0.1, n),
            "control": np.where(np.arange(n) % 10 == 3, np.nan, 0.9 - rng.normal(0.05, 0.1, n)),
        }
    )
    about = {"model": "pretend", "model_sha256": "sha of pretend", "cohort": "made up", "split": "test", "way": "scans"} | source
    return Embedded(rows, patients, vectors, pooled, told, FINDINGS, margins, said, truth, about, evidence)


PROTOCOL: dict[str, Any] = {
    "name": "pretend",
    "summary": "All tasks on a made-up cohort",
    "draws": 200,
    "tasks": [
        {"type": "zero_shot", "labels": "truth"},
        {"type": "retrieval", "gallery": 30},
        {"type": "survival", "endpoint": ENDPOINT, "beside": ["age_years"]},
        {"type": "grounding"},
    ],
    "subgroups": [
        {"column": "sex"},
        {"column": "age_years", "label": "Age", "bins": [50, 70]},
        {"column": "scanner"},
    ],
}
