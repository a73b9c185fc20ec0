"""Draw phantom patients: prevalence, anatomy, findings, scanner and survival, from a cohort seed and a patient number."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from medvl.imaging.phantom.truth import Chest, Cyst, Grade, Kidney, Mass, Patient, Phase, Pole, Scanner, Side, Stone

POLES: tuple[Pole, ...] = ("upper", "interpolar", "lower")
GRADES: tuple[Grade, ...] = ("none", "mild", "moderate", "severe")
PHASES: tuple[Phase, ...] = ("noncontrast", "arterial", "portal_venous", "delayed")
KERNELS_MM = {"soft": 0.9, "standard": 0.7, "sharp": 0.45}
FOLLOW_UP_DAYS = (700.0, 3200.0)
WEIBULL_SHAPE, WEIBULL_SCALE_DAYS = 1.25, 4200.0


def sample_patient(seed: int, number: int) -> Patient:
    """Patient `number` of the cohort `seed`; the same arguments always give the same patient."""
    rng = np.random.default_rng([seed, number])
    age = float(np.clip(rng.normal(62, 12), 25, 92))
    sex: Literal["F", "M"] = "F" if rng.random() < 0.42 else "M"
    bmi = float(np.clip(rng.normal(26.5, 4.0), 18, 38))
    left, right = _kidney(rng, "left", sex), _kidney(rng, "right", sex)
    chest = _chest(rng, sex)
    liver = float(np.clip(rng.normal(150, 18), 105, 200))
    spleen = float(np.clip(rng.normal(105, 18), 70, 165))
    risk = log_hazard(age, (left, right), chest)
    time, event = _survival(rng, risk)
    return Patient(
        patient_id=f"PH{number:06d}",
        seed=seed,
        age_years=round(age, 1),
        sex=sex,
        bmi=round(bmi, 1),
        kidney_left=left,
        kidney_right=right,
        chest=chest,
        liver_mm=round(liver, 1),
        spleen_mm=round(spleen, 1),
        fatty_liver=bool(rng.random() < 0.2),
        scanner=_scanner(rng),
        true_risk=round(risk, 4),
        time_days=time,
        event=event,
    )


def log_hazard(age_years: float, kidneys: tuple[Kidney, Kidney], chest: Chest) -> float:
    """The stated truth: log hazard ratio, linear in age and findings.

    0.035 per year from 62; per mass 0.30 per cm up to 10 cm, 0.5 with necrosis, -0.3 when exophytic; 0.35 for moderate or
    severe hydronephrosis; 0.45 cardiomegaly, 0.5 moderate or severe coronary calcification, 0.6 any pleural effusion.
    """
    risk = 0.035 * (age_years - 62.0)
    for kidney in kidneys:
        if kidney.mass is not None:
            mass = kidney.mass
            risk += 0.30 * min(mass.size_mm, 100.0) / 10.0 + 0.5 * mass.necrosis - 0.3 * mass.exophytic
        risk += 0.35 * (kidney.hydronephrosis in ("moderate", "severe"))
    risk += 0.45 * chest.cardiomegaly + 0.5 * (chest.coronary_calcification in ("moderate", "severe"))
    return risk + 0.6 * (max(chest.effusion_left_mm, chest.effusion_right_mm) > 0)


def _survival(rng: np.random.Generator, risk: float) -> tuple[float, bool]:
    """Weibull proportional hazards with uniform administrative censoring; days, at least 1."""
    draw = -np.log(rng.uniform(1e-9, 1.0))
    death = WEIBULL_SCALE_DAYS * (draw / np.exp(risk)) ** (1.0 / WEIBULL_SHAPE)
    censor = rng.uniform(*FOLLOW_UP_DAYS)
    return float(max(1.0, round(min(death, censor)))), bool(death <= censor)


def _choice(rng: np.random.Generator, values: tuple[Any, ...], p: tuple[float, ...] | None = None) -> Any:
    return values[int(rng.choice(len(values), p=p))]


def _kidney(rng: np.random.Generator, side: Side, sex: str) -> Kidney:
    length = float(np.clip(rng.normal(110 if sex == "M" else 105, 9), 84, 138))
    mass = _mass(rng) if rng.random() < 0.24 else None
    n_cysts = _choice(rng, (0, 1, 2, 3), (0.68, 0.22, 0.07, 0.03))
    n_stones = _choice(rng, (0, 1, 2), (0.80, 0.15, 0.05))
    cysts = tuple(Cyst(round(float(np.clip(rng.lognormal(3.0, 0.45), 8, 70)), 1), _choice(rng, POLES)) for _ in range(n_cysts))
    stones = tuple(
        Stone(round(float(np.clip(rng.lognormal(1.95, 0.4), 3.5, 22)), 1), _choice(rng, POLES)) for _ in range(n_stones)
    )
    grade = _choice(rng, GRADES, (0.82, 0.07, 0.07, 0.04))
    return Kidney(side, round(length, 1), mass, cysts, stones, grade)


def _mass(rng: np.random.Generator) -> Mass:
    size = float(np.clip(rng.lognormal(3.55, 0.5), 12, 110))
    return Mass(
        size_mm=round(size, 1),
        pole=_choice(rng, POLES),
        exophytic_fraction=round(float(rng.uniform(0.1, 0.85)), 2),
        composition="cystic" if rng.random() < 0.18 else "solid",
        necrosis=bool(rng.random() < np.clip((size - 20) / 70, 0.0, 0.8)),
        calcification=bool(rng.random() < 0.2),
        enhancement="avid" if rng.random() < 0.65 else "mild",
    )


def _chest(rng: np.random.Generator, sex: str) -> Chest:
    ratio = float(np.clip(rng.normal(0.60, 0.03) if rng.random() < 0.25 else rng.normal(0.48, 0.03), 0.40, 0.70))
    aorta = float(rng.normal(49, 3.0) if rng.random() < 0.2 else rng.normal(34 if sex == "M" else 32, 3.2))
    inner_chest = 262.0 if sex == "M" else 240.0
    return Chest(
        heart_width_mm=round(ratio * inner_chest, 1),
        cardiothoracic_ratio=round(ratio, 3),
        ascending_aorta_mm=round(float(np.clip(aorta, 25, 62)), 1),
        coronary_calcification=_choice(rng, GRADES, (0.58, 0.16, 0.14, 0.12)),
        pericardial_effusion_mm=round(float(rng.uniform(6, 24)), 1) if rng.random() < 0.16 else 0.0,
        effusion_left_mm=round(float(rng.uniform(12, 60)), 1) if rng.random() < 0.18 else 0.0,
        effusion_right_mm=round(float(rng.uniform(12, 60)), 1) if rng.random() < 0.18 else 0.0,
    )


def _scanner(rng: np.random.Generator) -> Scanner:
    step = _choice(rng, (2.0, 2.5, 3.0, 4.0, 5.0), (0.15, 0.3, 0.3, 0.1, 0.15))
    in_plane = round(float(rng.uniform(1.5, 2.2)), 4)
    kernel = _choice(rng, tuple(KERNELS_MM))
    noise = {"soft": (6.0, 14.0), "standard": (8.0, 18.0), "sharp": (14.0, 28.0)}[kernel]
    return Scanner(
        spacing_dhw_mm=(step, in_plane, in_plane),
        thickness_mm=round(step * _choice(rng, (1.0, 1.25, 1.5), (0.6, 0.25, 0.15)), 3),
        kernel_mm=KERNELS_MM[kernel],
        noise_hu=round(float(rng.uniform(*noise)), 1),
        coverage=_choice(rng, ("chest_abdomen", "abdomen", "chest"), (0.66, 0.22, 0.12)),
        feet_first=bool(rng.random() < 0.25),
        phase=_choice(rng, PHASES, (0.14, 0.2, 0.5, 0.16)),
        manufacturer=_choice(rng, ("Phantom Systems A", "Phantom Systems B", "Phantom Systems C")),
    )
