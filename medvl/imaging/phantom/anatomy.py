"""Where the organs and lesions of one phantom patient lie: solids in body mm, from the truth and the patient's own generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvl.imaging.phantom.shapes import Ellipsoid, rotation
from medvl.imaging.phantom.truth import Chest, Cyst, Kidney, Mass, Patient, Pole, Stone

Vector = NDArray[np.float64]
POLE_HEIGHT: dict[Pole, float] = {"upper": 0.60, "interpolar": 0.0, "lower": -0.60}
DIAPHRAGM_Z_MM = 108.0
HYDRO_PELVIS_MM = {
    "none": (6.0, 6.0, 9.0),
    "mild": (10.0, 10.0, 17.0),
    "moderate": (15.0, 14.0, 25.0),
    "severe": (21.0, 18.0, 34.0),
}
HYDRO_CALYX_MM = {"none": 0.0, "mild": 4.5, "moderate": 8.0, "severe": 12.0}
CALCIFICATIONS = {"none": (0, 0), "mild": (2, 3), "moderate": (4, 7), "severe": (8, 14)}
_CORONARIES = (
    ((0.20, -0.75, 0.62), (0.75, -0.60, -0.30)),
    ((-0.30, -0.80, 0.55), (-0.75, -0.30, -0.50)),
    ((0.30, -0.20, 0.90), (0.85, 0.30, 0.20)),
)


@dataclass(frozen=True, eq=False)
class KidneyAnatomy:
    """One kidney's solids; `lesions` holds (finding, index, outline) for masses, cysts and stones."""

    outline: Ellipsoid
    sinus: Ellipsoid
    collecting: tuple[Ellipsoid, ...]
    mass: Ellipsoid | None
    mass_core: Ellipsoid | None
    mass_specks: tuple[Ellipsoid, ...]
    cysts: tuple[Ellipsoid, ...]
    stones: tuple[Ellipsoid, ...]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Every solid of one patient, plus the widths of the trunk in mm (half axes of its outlines)."""

    cavity_mm: tuple[float, float]
    fat_mm: float
    turn_deg: float
    kidneys: dict[str, KidneyAnatomy]
    liver: tuple[Ellipsoid, ...]
    spleen: Ellipsoid
    bowel: tuple[tuple[Ellipsoid, float], ...]
    heart: Ellipsoid
    chambers: tuple[Ellipsoid, ...]
    pericardial: Ellipsoid | None
    coronary_lumen: tuple[Ellipsoid, ...]
    coronary_calcium: tuple[Ellipsoid, ...]
    aorta_xy: tuple[float, float]
    spine_y_mm: float
    lesion_seed: int


def build(patient: Patient) -> Anatomy:
    """Place everything; the same patient always gets the same anatomy."""
    rng = np.random.default_rng([patient.seed, int(patient.patient_id[2:]), 1])
    half_width = (262.0 if patient.sex == "M" else 240.0) / 2
    cavity = (half_width, 0.72 * half_width + float(rng.normal(0, 3)))
    fat = max(6.0, 1.5 * (patient.bmi - 18) + 5)
    heart = _heart(patient.chest, rng)
    lumen = _coronary_points(heart, rng, 14)
    return Anatomy(
        cavity_mm=cavity,
        fat_mm=fat,
        turn_deg=float(rng.normal(0, 2.5)),
        kidneys={k.side: _kidney(k, rng) for k in (patient.kidney_left, patient.kidney_right)},
        liver=_liver(patient.liver_mm, half_width, rng),
        spleen=Ellipsoid.of(
            (0.72 * half_width, 38 + rng.normal(0, 4), 70 + rng.normal(0, 6)), (30, 40, patient.spleen_mm / 2), rotation(1, -15)
        ),
        bowel=_bowel(cavity, rng),
        heart=heart,
        chambers=_chambers(heart),
        pericardial=_pericardial(heart, patient.chest.pericardial_effusion_mm),
        coronary_lumen=tuple(Ellipsoid.of(p, 1.8) for p in lumen),
        coronary_calcium=_calcium(lumen, patient.chest, rng),
        aorta_xy=(13 + float(rng.normal(0, 2)), 0.42 * cavity[1] - 2),
        spine_y_mm=0.42 * cavity[1] + 28,
        lesion_seed=int(rng.integers(2**31)),
    )


def _kidney(kidney: Kidney, rng: np.random.Generator) -> KidneyAnatomy:
    side = 1.0 if kidney.side == "left" else -1.0
    center = np.array([side * (63 + rng.normal(0, 4)), 34 + rng.normal(0, 4), (4 if side > 0 else -10) + rng.normal(0, 8)])
    scale = kidney.length_mm / 110 * float(rng.normal(1.0, 0.05))
    turn = rotation(1, side * float(rng.normal(14, 4))) @ rotation(0, float(rng.normal(-8, 4)))
    outline = Ellipsoid.of(center, (27 * scale, 24 * scale, kidney.length_mm / 2), turn)
    medial = turn @ np.array([-side, 0, 0])
    sinus = Ellipsoid.of(center + 9 * medial, (12 * scale, 11 * scale, 0.26 * kidney.length_mm), turn)
    pelvis_radii = np.array(HYDRO_PELVIS_MM[kidney.hydronephrosis]) * float(rng.normal(1, 0.06))
    pelvis = Ellipsoid.of(center + (13 + 0.2 * pelvis_radii[0]) * medial, pelvis_radii, turn)
    calyx = HYDRO_CALYX_MM[kidney.hydronephrosis]
    calyces = tuple(Ellipsoid.of(outline_point(outline, h, 0.0, 0.45, side), calyx) for h in (-0.5, 0.0, 0.5)) if calyx else ()
    mass = _mass(kidney.mass, outline, side, rng) if kidney.mass else None
    taken = [mass] if mass else []
    cysts: list[Ellipsoid] = []
    for cyst in kidney.cysts:
        cysts.append(_cyst(cyst, outline, side, taken, rng))
        taken.append(cysts[-1])
    return KidneyAnatomy(
        outline=outline,
        sinus=sinus,
        collecting=(pelvis, *calyces),
        mass=mass,
        mass_core=_core(kidney.mass, mass, rng) if kidney.mass and mass else None,
        mass_specks=_specks(kidney.mass, mass, rng) if kidney.mass and mass else (),
        cysts=tuple(cysts),
        stones=tuple(_stone(stone, sinus, rng) for stone in kidney.stones),
    )


def outline_point(outline: Ellipsoid, height: float, angle_rad: float, depth: float, side: float) -> Vector:
    """(3,) a point at `height` (-1 to 1 along the long axis), `angle_rad` from lateral, at `depth` (1 = surface)."""
    ring = np.sqrt(max(0.0, 1 - height**2)) * depth
    local = outline.radii * np.array([side * np.cos(angle_rad) * ring, np.sin(angle_rad) * ring, height])
    turn = np.eye(3) if outline.turn is None else outline.turn
    return np.asarray(outline.center + turn @ local)


def _surface(outline: Ellipsoid, height: float, angle: float, side: float) -> tuple[Vector, Vector]:
    point = outline_point(outline, height, angle, 1.0, side)
    turn = np.eye(3) if outline.turn is None else outline.turn
    normal = turn @ ((turn.T @ (point - outline.center)) / outline.radii**2)
    return point, np.asarray(normal / np.linalg.norm(normal))


def _mass(mass: Mass, outline: Ellipsoid, side: float, rng: np.random.Generator) -> Ellipsoid:
    height = POLE_HEIGHT[mass.pole] + float(rng.uniform(-0.12, 0.12))
    point, normal = _surface(outline, height, float(rng.uniform(-1.7, 1.7)), side)
    center = point + normal * (mass.exophytic_fraction - 0.5) * mass.size_mm
    radii = mass.size_mm / 2 * np.array([1.0, rng.uniform(0.85, 1), rng.uniform(0.85, 1)])
    return Ellipsoid.of(center, radii, rotation(int(rng.integers(3)), float(rng.uniform(0, 180))))


def _core(mass: Mass, outline: Ellipsoid, rng: np.random.Generator) -> Ellipsoid | None:
    if mass.composition == "cystic":
        return outline.grown(-max(2.5, 0.07 * mass.size_mm))
    if not mass.necrosis:
        return None
    shift = rng.normal(0, 0.06, 3) * mass.size_mm
    return Ellipsoid.of(outline.center + shift, outline.radii * float(rng.uniform(0.5, 0.68)), outline.turn)


def _specks(mass: Mass, outline: Ellipsoid, rng: np.random.Generator) -> tuple[Ellipsoid, ...]:
    if not mass.calcification:
        return ()
    points = []
    for _ in range(int(rng.integers(3, 7))):
        direction = rng.normal(size=3)
        offset = direction / np.linalg.norm(direction) * rng.uniform(0.3, 0.9) * outline.radii.min()
        points.append(Ellipsoid.of(outline.center + offset, float(rng.uniform(1.6, 3.2))))
    return tuple(points)


def _cyst(cyst: Cyst, outline: Ellipsoid, side: float, taken: list[Ellipsoid], rng: np.random.Generator) -> Ellipsoid:
    """A ball on the surface, at the candidate place that keeps farthest from the other lesions."""
    best, best_gap = None, -np.inf
    for _ in range(12):
        height = POLE_HEIGHT[cyst.pole] + float(rng.uniform(-0.15, 0.15))
        point, normal = _surface(outline, height, float(rng.uniform(-2.0, 2.0)), side)
        candidate = Ellipsoid.of(point + normal * rng.uniform(-0.2, 0.25) * cyst.size_mm, cyst.size_mm / 2)
        gap = min(
            (float(np.linalg.norm(candidate.center - t.center)) - cyst.size_mm / 2 - t.radii.max() for t in taken), default=np.inf
        )
        if best is None or gap > best_gap:
            best, best_gap = candidate, gap
        if best_gap > 2:
            break
    assert best is not None  # noqa: S101 - the loop always runs
    return best


def _stone(stone: Stone, sinus: Ellipsoid, rng: np.random.Generator) -> Ellipsoid:
    height = POLE_HEIGHT[stone.pole] * 1.1 + float(rng.uniform(-0.15, 0.15))
    turn = np.eye(3) if sinus.turn is None else sinus.turn
    center = sinus.center + turn @ (sinus.radii * np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), height]))
    return Ellipsoid.of(
        center, stone.size_mm / 2 * np.array([1.0, rng.uniform(0.75, 1), rng.uniform(0.75, 1)]), rotation(2, rng.uniform(0, 180))
    )


def _liver(length: float, half_width: float, rng: np.random.Generator) -> tuple[Ellipsoid, ...]:
    z = DIAPHRAGM_Z_MM + 6 - length / 2
    right = Ellipsoid.of((-0.52 * half_width, 0 + rng.normal(0, 3), z), (0.47 * half_width, 68, length / 2), rotation(1, 8))
    left = Ellipsoid.of((-8, -38, z + 25), (55 + rng.normal(0, 5), 26, 38))
    return right, left


def _bowel(cavity: tuple[float, float], rng: np.random.Generator) -> tuple[tuple[Ellipsoid, float], ...]:
    loops = []
    oral_contrast = rng.random() < 0.25
    for _ in range(22):
        center = (rng.uniform(-0.75, 0.75) * cavity[0], rng.uniform(-0.75, 0.12) * cavity[1], rng.uniform(-170, 45))
        kind = rng.random()
        hu = -850.0 if kind < 0.2 else (250.0 if oral_contrast and kind < 0.5 else float(rng.uniform(20, 50)))
        loops.append((Ellipsoid.of(center, rng.uniform(10, 24, 3), rotation(2, rng.uniform(0, 180))), hu))
    return tuple(loops)


def _heart(chest: Chest, rng: np.random.Generator) -> Ellipsoid:
    half = chest.heart_width_mm / 2
    height = 0.74 * half * float(rng.normal(1, 0.03))
    center = (0.24 * half + rng.normal(0, 2), -24 + rng.normal(0, 3), DIAPHRAGM_Z_MM + 0.72 * height)
    return Ellipsoid.of(center, (half, min(0.72 * half, 58.0), height), rotation(1, 10))


def _chambers(heart: Ellipsoid) -> tuple[Ellipsoid, ...]:
    turn = np.eye(3) if heart.turn is None else heart.turn
    places = (
        ((0.42, 0.12, -0.05), 0.40),
        ((-0.18, -0.38, -0.12), 0.40),
        ((-0.05, 0.45, 0.38), 0.34),
        ((-0.52, 0.05, 0.15), 0.33),
    )
    return tuple(Ellipsoid.of(heart.center + turn @ (heart.radii * np.array(p)), heart.radii * s, heart.turn) for p, s in places)


def _pericardial(heart: Ellipsoid, thickness: float) -> Ellipsoid | None:
    if thickness <= 0:
        return None
    return Ellipsoid(heart.center + np.array([0, 0.35, -0.2]) * thickness, heart.radii + 0.75 * thickness, heart.turn)


def _coronary_points(heart: Ellipsoid, rng: np.random.Generator, n: int) -> list[Vector]:
    turn = np.eye(3) if heart.turn is None else heart.turn
    points = []
    for start, stop in _CORONARIES:
        for t in np.linspace(0, 1, n):
            direction = np.array(start) * (1 - t) + np.array(stop) * t + rng.normal(0, 0.03, 3)
            points.append(heart.center + turn @ ((heart.radii + 1.5) * direction / np.linalg.norm(direction)))
    return points


def _calcium(lumen: list[Vector], chest: Chest, rng: np.random.Generator) -> tuple[Ellipsoid, ...]:
    low, high = CALCIFICATIONS[chest.coronary_calcification]
    n = int(rng.integers(low, high + 1)) if high else 0
    picks = rng.choice(len(lumen), size=n, replace=False)
    radius = {"none": 0.0, "mild": 1.8, "moderate": 2.3, "severe": 2.8}[chest.coronary_calcification]
    return tuple(Ellipsoid.of(lumen[int(i)] + rng.normal(0, 0.6, 3), radius * float(rng.uniform(0.85, 1.2))) for i in picks)
