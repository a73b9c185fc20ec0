"""How well the report rules read the demo site's reports and those of another hospital, against the phantoms' truth.

Of each attribute: of what is read as present, absent or as a value, the share that is true; then, of the findings that are there
and that the scan reaches, the share read as present. A report may leave out sizes, grades and traits, so they have no such share.

    python benchmarks/other_wording.py --n 500
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.site import load_site
from medvl.imaging.phantom.truth import Kidney, Patient
from medvl.imaging.phantom.write import report_of
from medvl.text.labels import extract
from medvl.text.report import parse_report

VOICES = {"plain": "demo", "telegraphic": "lakeside", "dictated": "lakeside"}
FINDINGS = (
    "renal_mass",
    "renal_cyst",
    "renal_stone",
    "hydronephrosis",
    "coronary_calcification",
    "cardiomegaly",
    "pericardial_effusion",
    "aortic_aneurysm",
    "pleural_effusion_left",
    "pleural_effusion_right",
)


def main() -> None:
    """Read, compare, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--start", type=int, default=50_000)
    given = parser.parse_args()
    numbers = range(given.start, given.start + given.n)
    found = {voice: measure(voice, given.seed, numbers) for voice in VOICES}
    print(f"| attribute | {' | '.join(VOICES)} |")
    print(f"|---{'|---' * len(VOICES)}|")
    for key in found["plain"]:
        print(f"| `{key}` | {' | '.join(_cell(values[key]) for values in found.values())} |")


def measure(voice: str, seed: int, numbers: range) -> dict[str, Counter[str]]:
    """Counts by attribute: stated, right, there, read."""
    counts: dict[str, Counter[str]] = {}
    for number in numbers:
        patient = replace(sample_patient(seed, number, load_site(VOICES[voice])), voice=voice)
        labels = extract(parse_report(report_of(patient)))
        for region, reached, key, truth in truths(patient):
            value, count = labels[region][key], counts.setdefault(key, Counter())
            if value not in (None, -1):
                count["stated"] += 1
                count["right"] += reached and _agrees(value, truth)
            if reached and truth and key in FINDINGS:
                count["there"] += 1
                count["read"] += value == 1
    return counts


def _agrees(value: Any, truth: Any) -> bool:
    if truth is None:
        return False
    return abs(value - truth) <= 0.05 * truth + 1 if isinstance(truth, float) else bool(value == truth)


def _cell(count: Counter[str]) -> str:
    precision = f"{count['right'] / count['stated']:.3f} of {count['stated']}" if count["stated"] else "-"
    return f"{precision}, {count['read'] / count['there']:.3f} of {count['there']}" if count["there"] else precision


def truths(patient: Patient) -> Iterator[tuple[str, bool, str, Any]]:
    """(region, whether the scan reaches it, attribute, what is so)."""
    reached = patient.scanner.coverage != "chest"
    for kidney in (patient.kidney_left, patient.kidney_right):
        for key, truth in _kidney(kidney).items():
            yield f"kidney_{kidney.side}", reached, key, truth
    chest = patient.chest
    grade = chest.coronary_calcification
    values = {
        "coronary_calcification": int(grade != "none"),
        "coronary_grade": None if grade == "none" else grade,
        "cardiomegaly": int(chest.cardiomegaly),
        "pericardial_effusion": int(chest.pericardial_effusion_mm > 0),
        "aortic_aneurysm": int(chest.aneurysm),
        "aorta_mm": chest.ascending_aorta_mm,
        "pleural_effusion_left": int(chest.effusion_left_mm > 0),
        "pleural_effusion_right": int(chest.effusion_right_mm > 0),
    }
    for key, truth in values.items():
        yield "chest", patient.scanner.coverage != "abdomen", key, truth


def _kidney(kidney: Kidney) -> dict[str, Any]:
    mass = kidney.mass
    grade = kidney.hydronephrosis
    return {
        "renal_mass": int(mass is not None),
        "mass_size_mm": mass and mass.size_mm,
        "mass_pole": mass and mass.pole,
        "mass_cystic": mass and int(mass.composition == "cystic"),
        "mass_exophytic": mass and int(mass.exophytic),
        "mass_necrosis": mass and int(mass.necrosis),
        "mass_calcification": mass and int(mass.calcification),
        "mass_avid": mass and int(mass.enhancement == "avid"),
        "renal_cyst": int(bool(kidney.cysts)),
        "cyst_size_mm": max((c.size_mm for c in kidney.cysts), default=None),
        "renal_stone": int(bool(kidney.stones)),
        "stone_size_mm": max((s.size_mm for s in kidney.stones), default=None),
        "hydronephrosis": int(grade != "none"),
        "hydronephrosis_grade": None if grade == "none" else grade,
        "kidney_length_mm": kidney.length_mm,
    }


if __name__ == "__main__":
    main()
