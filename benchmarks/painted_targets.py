"""What is asked of painted patients and what is known of them besides the image: shared by the painted benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np

from medvl.training.samples import KindData

QUESTIONS = {
    "renal_mass": lambda k: bool(k["tumours"]),
    "renal_cyst": lambda k: bool(k["cysts"]),
    "renal_mass_large": lambda k: k["tumours"][0]["size_mm"] >= 40 if k["tumours"] else None,
    "mass_exophytic": lambda k: k["tumours"][0]["outside"] >= 0.5 if k["tumours"] else None,
    "mass_upper_pole": lambda k: k["tumours"][0]["pole"] == "upper" if k["tumours"] else None,
}


PATHOLOGY = {
    "clear cell carcinoma": lambda c: (
        None if not c["tumor_histologic_subtype"] else c["tumor_histologic_subtype"] == "clear_cell_rcc"
    ),
    "high grade (ISUP 3, 4)": lambda c: c["tumor_isup_grade"] in "34" if c["tumor_isup_grade"] in ("1", "2", "3", "4") else None,
    "necrosis": lambda c: c["tumor_necrosis"],
    "malignant": lambda c: c["malignant"],
}


def main_rows(part: KindData) -> dict[int, int]:
    """Patient row to the sample of the kidney with the largest tumour."""
    best: dict[int, tuple[float, int]] = {}
    for i, (row, kidney) in enumerate(zip(part.texts.rows, kidneys_of(part), strict=True)):
        size = kidney["tumours"][0]["size_mm"] if kidney and kidney["tumours"] else -1
        best[int(row)] = max(best.get(int(row), (-2, -1)), (size, i))
    return {row: i for row, (size, i) in best.items() if size > 0}


def size_features(case: dict[str, Any]) -> list[float]:
    """Log of the largest axial diameter and of all tumour volume, number of tumours, and volume of kidney tissue."""
    kidneys = case["truth"]["kidneys"].values()
    tumours = [t for k in kidneys for t in k["tumours"]]
    volume = sum(t["volume_ml"] for t in tumours)
    largest = max(t["size_mm"] for t in tumours)
    return [np.log(largest), np.log(volume), len(tumours), sum(k["volume_ml"] for k in kidneys) / 100]


def clinical_features(case: dict[str, Any]) -> list[float]:
    """What is known before surgery, without size: age, sex, body-mass index, comorbidities, smoking."""
    row = case["truth"]["clinical"]
    smoking = [float(row["smoking_history"] == s) for s in ("previous_smoker", "current_smoker")]
    ill = sum(bool(v) for v in (row["comorbidities"] or {}).values())
    return [row["age_at_nephrectomy"], float(row["gender"] == "male"), row["bmi"] or 29.0, np.log1p(ill), *smoking]


def kidneys_of(part: KindData) -> list[dict[str, Any] | None]:
    """(N,) what the mask says of each row's kidney."""
    regions = [part.cohort.regions[int(c)] for c in part.texts.columns]
    cases = [part.cohort.cases[int(r)] for r in part.texts.rows]
    return [case["truth"]["kidneys"].get(name.rpartition("_")[2]) for case, name in zip(cases, regions, strict=True)]
