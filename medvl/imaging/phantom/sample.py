"""Draw phantom patients: prevalence, anatomy, findings, scanner and survival, from a site, a cohort seed and a patient number."""

from __future__ import annotations

import zlib
from dataclasses import replace
from datetime import date
from typing import Any, Literal

import numpy as np

from medvl.imaging.phantom.site import DEMO, Findings, FollowUp, Kernel, Machines, Site
from medvl.imaging.phantom.truth import Chest, Cyst, Grade, Kidney, Mass, Patient, Phase, Pole, Scanner, Side, Stone

POLES: tuple[Pole, ...] = ("upper", "interpolar", "lower")
GRADES: tuple[Grade, ...] = ("none", "mild", "moderate", "severe")
PHASES: tuple[Phase, ...] = ("noncontrast", "arterial", "portal_venous", "delayed")
KERNELS_MM = {kernel.name: kernel.blur_mm for kernel in DEMO.machines.kernels}
WEIBULL_SHAPE = 1.25


def sample_patient(seed: int, number: int, site: Site = DEMO) -> Patient:
    """Patient `number` of the cohort `seed` of a site; the same arguments always give the same patient."""
    own = site.name != DEMO.name
    salt = [zlib.crc32(site.name.encode())] if own else []
    rng = np.random.default_rng([seed, number, *salt])
    age = float(np.clip(rng.normal(*site.people.age_years), 25, 92))
    sex: Literal["F", "M"] = "F" if rng.random() < site.people.female else "M"
    bmi = float(np.clip(rng.normal(*site.people.bmi), 18, 38))
    left, right = _kidney(rng, "left", sex, site.findings), _kidney(rng, "right", sex, site.findings)
    chest = _chest(rng, sex, site.findings)
    liver = float(np.clip(rng.normal(150, 18), 105, 200))
    spleen = float(np.clip(rng.normal(105, 18), 70, 165))
    risk = log_hazard(age, (left, right), chest)
    time, event = _survival(rng, risk, site.follow_up)
    patient = Patient(
        patient_id=f"{site.prefix}{number:06d}",
        seed=seed,
        age_years=round(age, 1),
        sex=sex,
        bmi=round(bmi, 1),
        kidney_left=left,
        kidney_right=right,
        chest=chest,
        liver_mm=round(liver, 1),
        spleen_mm=round(spleen, 1),
        fatty_liver=bool(rng.random() < site.findings.fatty_liver),
        scanner=_scanner(rng, site.machines),
        true_risk=round(risk, 4),
        time_days=time,
        event=event,
    )
    return _of_site(patient, site, np.random.default_rng([seed, number, *salt, 1])) if own else patient


def _of_site(patient: Patient, site: Site, rng: np.random.Generator) -> Patient:
    """What only other hospitals have: their scanner's ways, dates, accession numbers, losses to follow-up and voice."""
    machines, follow = site.machines, site.follow_up
    kernel = next(k for k in machines.kernels if k.blur_mm == patient.scanner.kernel_mm)
    scanner = replace(
        patient.scanner,
        model=machines.model,
        kernel=kernel.name,
        protocol=machines.protocols[PHASES.index(patient.scanner.phase)],
        kvp=machines.kvp,
        iodine=machines.iodine,
        late=round(float(rng.uniform(*machines.late)), 3),
        hu_offset=round(float(rng.uniform(*machines.hu_offset)), 1),
        edge=kernel.edge,
        grain=kernel.grain,
    )
    first, last = (date(year, 1, 1).toordinal() for year in (site.years[0], site.years[1] + 1))
    day = date.fromordinal(int(rng.integers(first, last)))
    lost = float(rng.exponential()) * 365.25 / follow.lost_per_year if follow.lost_per_year else np.inf
    time = max(1.0, float(round(min(patient.time_days, lost))))
    return replace(
        patient,
        scanner=scanner,
        time_days=time,
        event=patient.event and time == patient.time_days,
        site=site.name,
        voice=site.voice,
        study_date=f"{day:%Y%m%d}",
        accession=f"{site.prefix}{day:%y}{int(rng.integers(100)):02d}{patient.number:06d}",
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


def _survival(rng: np.random.Generator, risk: float, follow_up: FollowUp) -> tuple[float, bool]:
    """Weibull proportional hazards with uniform administrative censoring; days, at least 1."""
    draw = -np.log(rng.uniform(1e-9, 1.0))
    death = follow_up.scale_days * (draw / np.exp(risk)) ** (1.0 / WEIBULL_SHAPE)
    censor = rng.uniform(*follow_up.days)
    return float(max(1.0, round(min(death, censor)))), bool(death <= censor)


def _choice(rng: np.random.Generator, values: tuple[Any, ...], p: tuple[float, ...] | None = None) -> Any:
    return values[int(rng.choice(len(values), p=p))]


def _kidney(rng: np.random.Generator, side: Side, sex: str, often: Findings) -> Kidney:
    length = float(np.clip(rng.normal(110 if sex == "M" else 105, 9), 84, 138))
    mass = _mass(rng, often) if rng.random() < often.mass else None
    n_cysts = _choice(rng, (0, 1, 2, 3), often.cysts)
    n_stones = _choice(rng, (0, 1, 2), often.stones)
    cysts = tuple(Cyst(round(float(np.clip(rng.lognormal(3.0, 0.45), 8, 70)), 1), _choice(rng, POLES)) for _ in range(n_cysts))
    stones = tuple(
        Stone(round(float(np.clip(rng.lognormal(*often.stone_log_mm), 3.5, 22)), 1), _choice(rng, POLES)) for _ in range(n_stones)
    )
    grade = _choice(rng, GRADES, often.hydronephrosis)
    return Kidney(side, round(length, 1), mass, cysts, stones, grade)


def _mass(rng: np.random.Generator, often: Findings) -> Mass:
    size = float(np.clip(rng.lognormal(*often.mass_log_mm), 12, 110))
    return Mass(
        size_mm=round(size, 1),
        pole=_choice(rng, POLES),
        exophytic_fraction=round(float(rng.uniform(0.1, 0.85)), 2),
        composition="cystic" if rng.random() < 0.18 else "solid",
        necrosis=bool(rng.random() < np.clip((size - 20) / 70, 0.0, 0.8)),
        calcification=bool(rng.random() < 0.2),
        enhancement="avid" if rng.random() < often.avid else "mild",
    )


def _chest(rng: np.random.Generator, sex: str, often: Findings) -> Chest:
    ratio = float(
        np.clip(rng.normal(*often.heart_ratio) if rng.random() < often.cardiomegaly else rng.normal(0.48, 0.03), 0.40, 0.70)
    )
    aorta = float(rng.normal(*often.aneurysm_mm) if rng.random() < often.aneurysm else rng.normal(34 if sex == "M" else 32, 3.2))
    inner_chest = 262.0 if sex == "M" else 240.0
    return Chest(
        heart_width_mm=round(ratio * inner_chest, 1),
        cardiothoracic_ratio=round(ratio, 3),
        ascending_aorta_mm=round(float(np.clip(aorta, 25, 62)), 1),
        coronary_calcification=_choice(rng, GRADES, often.coronary),
        pericardial_effusion_mm=round(float(rng.uniform(*often.pericardial_mm)), 1) if rng.random() < often.pericardial else 0.0,
        effusion_left_mm=round(float(rng.uniform(*often.effusion_mm)), 1) if rng.random() < often.effusion else 0.0,
        effusion_right_mm=round(float(rng.uniform(*often.effusion_mm)), 1) if rng.random() < often.effusion else 0.0,
    )


def _scanner(rng: np.random.Generator, machines: Machines) -> Scanner:
    step = _choice(rng, machines.spacing_mm, machines.spacing_shares)
    in_plane = round(float(rng.uniform(*machines.in_plane_mm)), 4)
    kernel: Kernel = _choice(rng, machines.kernels)
    return Scanner(
        spacing_dhw_mm=(step, in_plane, in_plane),
        thickness_mm=round(step * _choice(rng, machines.overlap, machines.overlap_shares), 3),
        kernel_mm=kernel.blur_mm,
        noise_hu=round(float(rng.uniform(*kernel.noise_hu)), 1),
        coverage=_choice(rng, ("chest_abdomen", "abdomen", "chest"), machines.coverage),
        feet_first=bool(rng.random() < machines.feet_first),
        phase=_choice(rng, PHASES, machines.phases),
        manufacturer=_choice(rng, machines.manufacturers),
    )
