"""What is true of a phantom, asked as findings are asked of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.truth import Kidney, Patient, patient_from
from medvl.text.prompts import Finding


def patient_of(truth: Mapping[str, Any]) -> Patient:
    """The phantom that a cohort's case describes."""
    if "site" in truth:
        return patient_from(truth)
    return sample_patient(int(truth["seed"]), int(str(truth["patient_id"])[2:]))


def truth_of(finding: Finding, region: str, patient: Patient) -> int | None:
    """1 or 0 from the phantom's truth; None where the finding is not asked or cannot be seen."""
    if finding.region == "chest":
        return int(_chest_truth(patient)[finding.truth])
    kidney = patient.kidney_left if region == "kidney_left" else patient.kidney_right
    if finding.given is not None and kidney.mass is None:
        return None
    if finding.phases and patient.scanner.phase not in finding.phases:
        return None
    return int(_kidney_truth(kidney)[finding.truth])


def _kidney_truth(kidney: Kidney) -> dict[str, bool]:
    mass = kidney.mass
    return {
        "renal_mass": mass is not None,
        "mass_large": mass is not None and mass.size_mm >= 40,
        "mass_cystic": mass is not None and mass.composition == "cystic",
        "mass_exophytic": mass is not None and mass.exophytic,
        "mass_necrosis": mass is not None and mass.necrosis,
        "mass_calcification": mass is not None and mass.calcification,
        "mass_avid": mass is not None and mass.enhancement == "avid",
        "renal_cyst": bool(kidney.cysts),
        "renal_stone": bool(kidney.stones),
        "hydronephrosis": kidney.hydronephrosis != "none",
    }


def _chest_truth(patient: Patient) -> dict[str, bool]:
    chest = patient.chest
    return {
        "coronary_calcification": chest.coronary_calcification != "none",
        "cardiomegaly": chest.cardiomegaly,
        "pericardial_effusion": chest.pericardial_effusion_mm > 0,
        "aortic_aneurysm": chest.aneurysm,
        "pleural_effusion_left": chest.effusion_left_mm > 0,
        "pleural_effusion_right": chest.effusion_right_mm > 0,
    }
