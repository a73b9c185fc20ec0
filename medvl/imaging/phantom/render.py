"""Turn a phantom patient into CT: paint the anatomy on any upright grid, blur by the kernel, add noise.

A region painted alone equals that part of the whole scan, but for the noise draw and the blur within a few mm of its border;
training caches use that to paint only what a model looks at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvl.geometry import Geometry
from medvl.imaging.phantom.anatomy import DIAPHRAGM_Z_MM, Anatomy, KidneyAnatomy, build
from medvl.imaging.phantom.sample import PHASES
from medvl.imaging.phantom.shapes import F32, Canvas, Ellipsoid, ramp
from medvl.imaging.phantom.truth import Kidney, Patient, Phase, Scanner
from medvl.records import Volume

RENDER_VERSION = 2  # of the pictures: counted up with every change that moves a voxel, so that caches of older ones are not used
COVERAGE_Z_MM = {"chest": (48.0, 320.0), "abdomen": (-185.0, 112.0), "chest_abdomen": (-185.0, 320.0)}
ORGAN_HU: dict[str, dict[Phase, float]] = {
    "cortex": {"noncontrast": 33, "arterial": 165, "portal_venous": 168, "delayed": 128},
    "medulla": {"noncontrast": 33, "arterial": 85, "portal_venous": 155, "delayed": 128},
    "avid": {"noncontrast": 36, "arterial": 145, "portal_venous": 112, "delayed": 82},
    "mild": {"noncontrast": 36, "arterial": 55, "portal_venous": 76, "delayed": 70},
    "urine": {"noncontrast": 6, "arterial": 6, "portal_venous": 6, "delayed": 320},
    "blood": {"noncontrast": 42, "arterial": 300, "portal_venous": 168, "delayed": 112},
    "myocardium": {"noncontrast": 44, "arterial": 108, "portal_venous": 105, "delayed": 85},
    "liver": {"noncontrast": 56, "arterial": 70, "portal_venous": 112, "delayed": 90},
    "spleen": {"noncontrast": 48, "arterial": 125, "portal_venous": 122, "delayed": 92},
}
EVERYWHERE = (slice(None), slice(None), slice(None))
HEART_BELOW_MM = 60.0  # how far below the top of the diaphragm the largest heart with its fluid and fat may reach
DOME_MM = 57.6  # from the top of the diaphragm to its lowest edge
FAT_HU, MUSCLE_HU, LUNG_HU, FLUID_HU = -102.0, 56.0, -855.0, 9.0


def organ_hu(organ: str, scanner: Scanner) -> float:
    """HU of an organ: by phase, on its way to the next one, and by how strongly the scanner sees contrast medium."""
    hu = ORGAN_HU[organ]
    seen = hu[scanner.phase]
    if scanner.late and scanner.phase != "noncontrast":
        following = PHASES[min(PHASES.index(scanner.phase) + 1, len(PHASES) - 1)]
        seen += scanner.late * (hu[following] - seen)
    return seen if scanner.iodine == 1 else hu["noncontrast"] + scanner.iodine * (seen - hu["noncontrast"])


def scanner_geometry(patient: Patient, spacing_mm: tuple[float, float, float] | None = None) -> Geometry:
    """The patient's own scan grid: the whole trunk within the coverage, slices head to foot or foot to head.

    `spacing_mm` (slice, row, column) replaces the scanner's voxel size over the same field of view.
    """
    anatomy = build(patient)
    low, high = COVERAGE_Z_MM[patient.scanner.coverage]
    step, row, column = spacing_mm or patient.scanner.spacing_dhw_mm
    wide = 2 * (anatomy.cavity_mm[0] + anatomy.fat_mm + 12 + 14)
    tall = 2 * (anatomy.cavity_mm[1] + anatomy.fat_mm + 12 + 20)
    shape = (int((high - low) / step), int(tall / row), int(wide / column))
    geometry = Geometry.centered((0, 0, (low + high) / 2), shape, (step, row, column))
    if not patient.scanner.feet_first:
        return geometry
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = shape[0] - 1
    return Geometry(shape, geometry.affine_lps @ flip)


def region_centers(patient: Patient) -> dict[str, NDArray[np.float64]]:
    """True centres (3,) LPS mm of the regions the model looks at: kidney_left, kidney_right, chest (the heart)."""
    anatomy = build(patient)
    angle = np.radians(anatomy.turn_deg)
    back = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    centers = {f"kidney_{side}": kidney.outline.center for side, kidney in anatomy.kidneys.items()}
    return {name: back @ c for name, c in {**centers, "chest": anatomy.heart.center}.items()}


def render(patient: Patient, geometry: Geometry | None = None, *, noise: bool = True) -> Volume:
    """HU of the patient on `geometry` (the scanner's own grid if None).

    Args:
        patient: the truth.
        geometry: an upright grid; its slices are as thick as the scanner's.
        noise: add noise and kernel blur; without, the ideal image.

    Returns:
        A volume of int16 HU in [-1024, 3071].

    Raises:
        ValueError: the grid is oblique.
    """
    grid = scanner_geometry(patient) if geometry is None else geometry
    anatomy = build(patient)
    canvas = Canvas.over(grid, max(patient.scanner.thickness_mm, grid.spacing_mm[0]), anatomy.turn_deg)
    _trunk(canvas, anatomy, patient)
    _abdomen(canvas, anatomy, patient)
    for kidney in (patient.kidney_left, patient.kidney_right):
        _kidney(canvas, anatomy.kidneys[kidney.side], kidney, patient.scanner)
    _heart(canvas, anatomy, patient)
    if noise:
        _scan(canvas, patient)
    hu = np.rint(canvas.hu).clip(-1024, 3071).astype(np.int16)
    return Volume(hu, grid, facts={"phase": patient.scanner.phase, "kernel_mm": patient.scanner.kernel_mm})


def _scan(canvas: Canvas, patient: Patient) -> None:
    """Blur and noise of the patient's scanner, in place; each phase has noise of its own."""
    scan = PHASES.index(patient.scanner.phase)
    rng = np.random.default_rng([patient.seed, int(patient.patient_id[2:]), 2, canvas.hu.size, scan])
    blur_and_noise(canvas, patient.scanner, rng)


def blur_and_noise(canvas: Canvas, scanner: Scanner, rng: np.random.Generator) -> None:
    """Kernel blur and overshoot in plane, then noise with the kernel's own grain, then the error of calibration, in place."""
    sigma = (0.0, scanner.kernel_mm / canvas.voxel_mm[1], scanner.kernel_mm / canvas.voxel_mm[0])
    ndimage.gaussian_filter(canvas.hu, sigma, output=canvas.hu, truncate=3.0)
    if scanner.edge:
        smooth = ndimage.gaussian_filter(canvas.hu, tuple(s + 0.8 * bool(s) for s in sigma), truncate=3.0)
        np.add(canvas.hu, np.float32(scanner.edge) * (canvas.hu - smooth), out=canvas.hu)
    grain = rng.standard_normal(canvas.hu.shape, dtype=np.float32)
    ndimage.gaussian_filter(grain, tuple(s * scanner.grain for s in sigma), output=grain, truncate=3.0)
    grain *= np.float32(scanner.noise_hu / max(float(grain[: 1 + len(grain) // 8].std()), 1e-3))
    np.add(canvas.hu, grain, out=canvas.hu)
    if scanner.hu_offset:
        np.add(canvas.hu, np.float32(scanner.hu_offset), out=canvas.hu)


def superellipse(canvas: Canvas, half: tuple[float, float], power: float = 2.5) -> F32:
    """(1, H, W) approximate signed distance in mm to an upright trunk outline, negative inside."""
    level = (np.abs(canvas.x / half[0]) ** power + np.abs(canvas.y / half[1]) ** power) ** np.float32(1 / power)
    return np.asarray((level - 1) * np.float32(min(half)), dtype=np.float32)


def _trunk(canvas: Canvas, a: Anatomy, patient: Patient) -> None:
    width = canvas.voxel_mm[0]
    wall = (a.cavity_mm[0] + 12, a.cavity_mm[1] + 12)
    skin = (wall[0] + a.fat_mm, wall[1] + a.fat_mm)
    flat = np.full(canvas.x.shape, -1000.0, np.float32)
    table = np.abs(canvas.y - (skin[1] + 7)) - 3
    for distance, hu in ((table, -550.0), (superellipse(canvas, skin), FAT_HU), (superellipse(canvas, wall), MUSCLE_HU)):
        flat += ramp(distance, width) * (hu - flat)
    inside = superellipse(canvas, a.cavity_mm)
    flat += ramp(inside, width) * (FAT_HU + 8 - flat)
    canvas.hu[:] = flat
    _lungs(canvas, a, inside, patient)
    _bones(canvas, a)


def diaphragm(canvas: Canvas, a: Anatomy) -> F32:
    """(1, H, W) height of the diaphragm in mm: domed, lower towards the walls, lowest at the back."""
    bow = (canvas.x / a.cavity_mm[0]) ** 2 + 1.2 * (np.maximum(canvas.y, 0) / a.cavity_mm[1]) ** 2
    return np.asarray(DIAPHRAGM_Z_MM + np.where(canvas.x < 0, 8, 0) - DOME_MM / 1.2 * np.minimum(bow, 1.2), dtype=np.float32)


def _lung_space(canvas: Canvas, a: Anatomy, inside: F32, side: float) -> F32:
    """(D, H, W) coverage of one pleural space; side +1 is the patient's left."""
    middle = 1 - np.sqrt(((canvas.x - 4) / 40) ** 2 + (canvas.y / (1.05 * a.cavity_mm[1])) ** 2)
    flat = np.minimum(ramp(inside + 3, canvas.voxel_mm[0]), ramp(middle * 40, canvas.voxel_mm[0])) * (side * canvas.x > 0)
    top = ramp((canvas.z - 305) * 0.5, canvas.voxel_mm[2])
    return np.asarray(flat * ramp(diaphragm(canvas, a) - canvas.z, canvas.voxel_mm[2]) * top, dtype=np.float32)


def _lungs(canvas: Canvas, a: Anatomy, inside: F32, patient: Patient) -> None:
    part = canvas.above(DIAPHRAGM_Z_MM - DOME_MM - canvas.voxel_mm[2])
    if part is None:
        return
    k = np.random.default_rng(a.lesion_seed).uniform(0.25, 0.45, 4).astype(np.float32)
    x, y, z = part.x, part.y, part.z
    waves = np.sin(k[0] * x + k[1] * y) * _sine_of_sum(k[2] * z, np.float32(0.2) * y)
    waves += _sine_of_sum(np.float32(-0.3) * z, k[3] * x)
    lung = np.float32(320) * np.clip(waves - np.float32(1.35), 0, 1)
    lung += np.float32(35) * y / np.float32(a.cavity_mm[1]) + np.float32(LUNG_HU)
    spaces = {side: _lung_space(part, a, inside, side) for side in (1.0, -1.0)}
    part.blend(EVERYWHERE, spaces[1.0] + spaces[-1.0], lung)
    for side, space in spaces.items():
        fluid = _effusion(part, a, space, side, patient)
        if fluid is not None:
            part.blend(EVERYWHERE, fluid, FLUID_HU)


def _sine_of_sum(up: F32, across: F32) -> F32:
    """sin(up + across) of (D, 1, 1) and (1, H, W) from the sines of each, which spares a sine per voxel."""
    return np.asarray(np.sin(up) * np.cos(across) + np.cos(up) * np.sin(across), dtype=np.float32)


def _effusion(canvas: Canvas, a: Anatomy, space: F32, side: float, patient: Patient) -> F32 | None:
    """(D, H, W) coverage of pleural fluid lying at the back of one side, or None."""
    depth = patient.chest.effusion_left_mm if side > 0 else patient.chest.effusion_right_mm
    if depth <= 0:
        return None
    wall_y = a.cavity_mm[1] * (1 - np.minimum(np.abs(canvas.x) / a.cavity_mm[0], 1) ** 2.5) ** np.float32(0.4)
    level = wall_y - depth
    top = DIAPHRAGM_Z_MM + 30 + 2.0 * depth
    return np.asarray(
        space * ramp(level - canvas.y, canvas.voxel_mm[1]) * ramp(canvas.z - top, canvas.voxel_mm[2]), dtype=np.float32
    )


def _tube(canvas: Canvas, x: float, y: float, radius: float, z: tuple[float, float], hu: float) -> None:
    window = canvas.window((x, y, (z[0] + z[1]) / 2), max(radius, (z[1] - z[0]) / 2))
    if window is None:
        return
    wx, wy, wz = canvas.x[:, window[1], window[2]], canvas.y[:, window[1], window[2]], canvas.z[window[0]]
    near_rows, near_columns = np.nonzero(np.hypot(wx[0] - x, wy[0] - y) < radius + 2 * canvas.voxel_mm[0])
    if not len(near_rows):
        return
    rows = slice(near_rows.min(), near_rows.max() + 1)
    columns = slice(near_columns.min(), near_columns.max() + 1)
    disc = ramp(np.hypot(wx - x, wy - y)[:, rows, columns] - radius, canvas.voxel_mm[0])
    ends = ramp(z[0] - wz, canvas.voxel_mm[2]) * ramp(wz - z[1], canvas.voxel_mm[2])
    part = canvas.hu[window][:, rows, columns]
    part += disc * ends * (hu - part)


def _bones(canvas: Canvas, a: Anatomy) -> None:
    y, whole = a.spine_y_mm, (-400.0, 400.0)
    _tube(canvas, 0, y, 22, whole, 75.0)
    bodies = (np.abs(((canvas.z + 3) % 34) - 17) - 12.5).astype(np.float32)
    for radius, hu in ((21.5, 330.0), (19.5, 190.0)):
        disc = ramp(np.hypot(canvas.x, canvas.y - np.float32(y)) - radius, canvas.voxel_mm[0])
        near = canvas.touched(disc)
        if near is not None:
            canvas.blend(near, disc[:, near[1], near[2]] * ramp(bodies + (0 if radius > 20 else 2), canvas.voxel_mm[2]), hu)
    _tube(canvas, 0, y + 31, 9, whole, 25.0)
    _tube(canvas, 0, y + 46, 5, whole, 330.0)
    for side in (-1, 1):
        _tube(canvas, side * 36, y - 4, 19, (-400.0, 30.0), MUSCLE_HU + 3)
    _ribs(canvas, a)


def _ribs(canvas: Canvas, a: Anatomy) -> None:
    """Oblique stripes of bone in the trunk's wall; worked out on the wall's own (D, M) columns of voxels only."""
    shell = ramp(np.abs(superellipse(canvas, (a.cavity_mm[0] + 6, a.cavity_mm[1] + 6))) - 4, canvas.voxel_mm[0])[0]
    rows, columns = np.nonzero(shell)
    y, z = canvas.y[0, rows, columns], canvas.z[:, 0]
    stripes = np.abs(((z + np.float32(0.45) * y) % 27) - 13.5) - 5
    rib = shell[rows, columns] * ramp(stripes, canvas.voxel_mm[2])
    rib *= ramp(-z - 10 + np.float32(0.25) * np.abs(y - np.float32(a.cavity_mm[1])), 4.0)
    hu = canvas.hu[:, rows, columns]
    canvas.hu[:, rows, columns] = hu + rib * (np.float32(420.0) - hu)


def _paint(canvas: Canvas, solid: Ellipsoid, hu: float) -> None:
    found = solid.coverage(canvas)
    if found is not None:
        canvas.blend(*found, hu)


def _abdomen(canvas: Canvas, a: Anatomy, patient: Patient) -> None:
    scanner = patient.scanner
    for loop, hu in a.bowel:
        _paint(canvas, loop, hu)
    dome = diaphragm(canvas, a)
    liver_hu = organ_hu("liver", scanner) - (38 if patient.fatty_liver else 0)
    for solid, hu in (*((s, liver_hu) for s in a.liver), (a.spleen, organ_hu("spleen", scanner))):
        found = solid.coverage(canvas)
        if found is not None:
            window, cover = found
            canvas.blend(window, cover * ramp(canvas.z[window[0]] - dome[:, window[1], window[2]], canvas.voxel_mm[2]), hu)
    blood = organ_hu("blood", scanner)
    _tube(canvas, *a.aorta_xy, 10.5, (-400.0, 240.0), blood)
    _tube(canvas, -18.0, a.aorta_xy[1] - 4, 11.0, (-400.0, 120.0), 0.75 * blood + 12)


def _kidney(canvas: Canvas, k: KidneyAnatomy, kidney: Kidney, scanner: Scanner) -> None:
    _paint(canvas, k.outline.grown(8), FAT_HU)
    _paint(canvas, k.outline, organ_hu("cortex", scanner))
    _paint(canvas, k.outline.grown(-7), organ_hu("medulla", scanner))
    _paint(canvas, k.sinus, -65.0)
    urine = organ_hu("urine", scanner) if kidney.hydronephrosis == "none" else FLUID_HU
    for part in k.collecting:
        _paint(canvas, part, urine)
    for cyst in k.cysts:
        _paint(canvas, cyst, 5.0)
    if kidney.mass is not None and k.mass is not None:
        wall = organ_hu(kidney.mass.enhancement, scanner)
        _paint(canvas, k.mass, wall)
        if k.mass_core is not None:
            _paint(canvas, k.mass_core, 20.0)
        if kidney.mass.composition == "cystic":
            _paint(canvas, Ellipsoid.of(k.mass.center + 0.45 * k.mass.radii, 0.28 * k.mass.radii), wall)
        for speck in k.mass_specks:
            _paint(canvas, speck, 620.0)
    for stone in k.stones:
        _paint(canvas, stone, 950.0)


def _heart(canvas: Canvas, a: Anatomy, patient: Patient) -> None:
    if canvas.z.max() < DIAPHRAGM_Z_MM - HEART_BELOW_MM:
        return
    blood = organ_hu("blood", patient.scanner)
    outer = a.pericardial or a.heart
    _paint(canvas, outer.grown(5), -85.0)
    if a.pericardial is not None:
        _paint(canvas, a.pericardial, 12.0)
    else:
        _paint(canvas, outer.grown(1.2), 40.0)
    _paint(canvas, a.heart, organ_hu("myocardium", patient.scanner))
    for chamber in a.chambers:
        _paint(canvas, chamber, blood)
    for solid in ascending_aorta(a, patient):
        _paint(canvas, solid, blood)
    for point in a.coronary_lumen:
        _paint(canvas, point, blood)
    for speck in a.coronary_calcium:
        _paint(canvas, speck, 850.0)
    _tube(canvas, 3.0, 0.15 * a.cavity_mm[1], 8.5, (a.heart.center[2] + a.heart.radii[2] + 22, 400.0), -985.0)


def ascending_aorta(a: Anatomy, patient: Patient) -> tuple[Ellipsoid, ...]:
    """Balls along the ascending aorta (the first eight) and the arch."""
    radius = patient.chest.ascending_aorta_mm / 2
    base = a.heart.center + np.array([-0.32 * a.heart.radii[0], -6.0, 0.62 * a.heart.radii[2]])
    rise = [base + np.array([0, 0, t]) for t in np.linspace(0, 72, 10)]
    end = np.array([*a.aorta_xy, rise[-1][2]])
    arch = []
    for t in np.linspace(0.12, 1, 9):
        along = rise[-1] * (1 - t) + end * t
        arch.append(Ellipsoid.of(along + np.array([0, 0, 24 * np.sin(np.pi * t)]), radius * (1 - t) + 12.5 * t))
    return (*(Ellipsoid.of(p, radius) for p in rise), *arch)


def lesion_masks(patient: Patient, geometry: Geometry) -> dict[str, NDArray[np.bool_]]:
    """Where each finding truly is: ``finding@region`` to (D, H, W) bool on an upright grid, only for what is present."""
    anatomy = build(patient)
    canvas = Canvas.over(geometry, geometry.spacing_mm[0], anatomy.turn_deg)
    masks: dict[str, NDArray[np.bool_]] = {}
    for kidney in (patient.kidney_left, patient.kidney_right):
        k, region = anatomy.kidneys[kidney.side], f"kidney_{kidney.side}"
        if k.mass is not None:
            masks[f"renal_mass@{region}"] = _union(canvas, (k.mass,))
        if k.mass_specks:
            masks[f"mass_calcification@{region}"] = _union(canvas, k.mass_specks)
        for name, solids in (("renal_cyst", k.cysts), ("renal_stone", k.stones)):
            if solids:
                masks[f"{name}@{region}"] = _union(canvas, solids)
        if kidney.hydronephrosis != "none":
            masks[f"hydronephrosis@{region}"] = _union(canvas, k.collecting)
    return {**masks, **_chest_masks(canvas, anatomy, patient)}


def _chest_masks(canvas: Canvas, a: Anatomy, patient: Patient) -> dict[str, NDArray[np.bool_]]:
    masks: dict[str, NDArray[np.bool_]] = {}
    if a.coronary_calcium:
        masks["coronary_calcification@chest"] = _union(canvas, a.coronary_calcium)
    if patient.chest.cardiomegaly:
        masks["cardiomegaly@chest"] = _union(canvas, (a.heart,))
    if a.pericardial is not None:
        masks["pericardial_effusion@chest"] = _union(canvas, (a.pericardial,)) & ~_union(canvas, (a.heart,))
    if patient.chest.aneurysm:
        masks["aortic_aneurysm@chest"] = _union(canvas, ascending_aorta(a, patient)[:10])
    inside = superellipse(canvas, a.cavity_mm)
    for side, name in ((1.0, "left"), (-1.0, "right")):
        fluid = _effusion(canvas, a, _lung_space(canvas, a, inside, side), side, patient)
        if fluid is not None:
            masks[f"pleural_effusion_{name}@chest"] = fluid > 0.5
    return masks


def _union(canvas: Canvas, solids: tuple[Ellipsoid, ...]) -> NDArray[np.bool_]:
    mask = np.zeros(canvas.hu.shape, bool)
    for solid in solids:
        found = solid.coverage(canvas)
        if found is not None:
            window, cover = found
            mask[window] |= (cover > 0) & (cover >= min(0.5, 0.5 * float(cover.max())))
    return mask
