"""The spreadsheet that another hospital would hand over for its phantoms: its own column names, dates, words, gaps and mistakes.

Semicolons, a byte order mark and decimal commas, as European spreadsheets write them. What is wrong with it on purpose stands in
`truth/export-faults.json`. Labels are told for a part of the patients; what they are comes from the truth.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from medvl.files import whole, write_json
from medvl.imaging.phantom.truth import Patient, patient_from

COLUMNS = (
    "PatID",
    "Accession No.",
    "StudyPath",
    "Report text",
    "ExamDate",
    "Protocol",
    "Scanner",
    "Age",
    "Gender",
    "BMI (kg/m2)",
    "Stone L",
    "Stone R",
    "Renal tumour L",
    "Renal tumour R",
    "Coronary Ca",
    "LastSeen",
    "Died",
)
LABELLED, NO_BMI, NO_OUTCOME = 0.35, 0.12, 0.06
_FILE, _FAULTS = "export.csv", "export-faults.json"


def write_export(out: Path) -> Path:
    """Write `export.csv` from every finished patient of a cohort folder; the same folder gives the same file.

    Returns:
        Its path.
    """
    places = sorted((out / "truth").glob("[A-Z][A-Z]??????.json"))
    rows = [_row(out, patient_from(json.loads(place.read_text(encoding="utf-8")))) for place in places]
    faults = list(_spoil(rows))
    path = out / _FILE
    with whole(path) as part, part.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    write_json(out / "truth" / _FAULTS, faults)
    return path


def _row(out: Path, patient: Patient) -> dict[str, str]:
    rng = np.random.default_rng([patient.seed, patient.number, 6])
    exam = date.fromisoformat(patient.study_date)
    labelled, bmi, outcome = rng.random(3) >= (1 - LABELLED, NO_BMI, NO_OUTCOME)
    seen = exam + timedelta(days=int(patient.time_days))
    row = {
        "PatID": patient.patient_id,
        "Accession No.": patient.accession,
        "StudyPath": f"dicom/{patient.patient_id}",
        "Report text": (out / "reports" / f"{patient.patient_id}.txt").read_text(encoding="utf-8").strip(),
        "ExamDate": f"{exam:%d.%m.%Y}",
        "Protocol": patient.scanner.protocol,
        "Scanner": f"{patient.scanner.manufacturer} {patient.scanner.model}",
        "Age": str(int(patient.age_years)),
        "Gender": {"F": "female", "M": "male"}[patient.sex],
        "BMI (kg/m2)": f"{patient.bmi:.1f}".replace(".", ",") if bmi else "",
        "LastSeen": f"{seen:%d.%m.%Y}" if outcome else "",
        "Died": ("yes" if patient.event else "no") if outcome else "",
    }
    return {**row, **(_labels(patient) if labelled else {})}


def _labels(patient: Patient) -> dict[str, str]:
    """What a person noted on the images; only of organs that the scan reaches."""
    truth: dict[str, Any] = {}
    if patient.scanner.coverage != "chest":
        for letter, kidney in (("L", patient.kidney_left), ("R", patient.kidney_right)):
            truth |= {f"Stone {letter}": kidney.stones, f"Renal tumour {letter}": kidney.mass}
    if patient.scanner.coverage != "abdomen":
        truth["Coronary Ca"] = patient.chest.coronary_calcification != "none"
    return {name: "yes" if found else "no" for name, found in truth.items()}


def _spoil(rows: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Make a few rows wrong, in place, and say which; some of 1 in 50, at least one of each kind from eight patients on."""
    order = sorted(range(len(rows)), key=lambda k: hashlib.sha256(rows[k]["PatID"].encode()).digest())
    many = max(1, len(rows) // 150)
    if len(rows) < 8:
        return
    for k in order[:many]:
        rows[k]["Report text"] = ""
        yield {"PatID": rows[k]["PatID"], "fault": "the report is empty"}
    for k in order[many : 2 * many]:
        rows[k]["LastSeen"] = "01.01.1900"
        yield {"PatID": rows[k]["PatID"], "fault": "last seen before the examination"}
    for k in order[2 * many : 3 * many]:
        twin = dict(rows[k], PatID=f"{rows[k]['PatID'][:2]}9{rows[k]['PatID'][3:]}")
        rows.append(twin)
        yield {"PatID": twin["PatID"], "fault": f"the same study and report as {rows[k]['PatID']}"}
    for k in order[3 * many : 4 * many]:
        name = f"{rows[k]['PatID'][:2]}8{rows[k]['PatID'][3:]}"
        rows.append(dict(rows[k], PatID=name, **{"Accession No.": "", "StudyPath": f"dicom/{name}"}))
        yield {"PatID": name, "fault": "the study folder is missing"}
