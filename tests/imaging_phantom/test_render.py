"""The phantom's truth and its pixels: the same sides, sizes, densities and places, whichever grid they are painted on."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from scipy import ndimage

from medvl.geometry import Geometry
from medvl.imaging.phantom.anatomy import build
from medvl.imaging.phantom.render import ORGAN_HU, lesion_masks, region_centers, render, scanner_geometry
from medvl.imaging.phantom.sample import log_hazard, sample_patient
from medvl.imaging.phantom.shapes import Canvas, Ellipsoid, rotation
from medvl.imaging.phantom.truth import Chest, Cyst, Kidney, Mass, Patient, Stone
from medvl.recipe import CohortConfig
from medvl.records import Volume

MASS = Mass(44.0, "upper", 0.6, "solid", False, False, "mild")
SPACING = (3.0, 1.7, 2.1)


def _patient(left: Kidney | None = None, right: Kidney | None = None, feet_first: bool = False, **chest: object) -> Patient:
    """Thin slices of chest and abdomen, nothing found but what is given."""
    patient = sample_patient(3, 1)
    scanner = replace(
        patient.scanner,
        coverage="chest_abdomen",
        phase="portal_venous",
        feet_first=feet_first,
        thickness_mm=2.0,
        spacing_dhw_mm=SPACING,
    )
    heart = Chest(118.0, 0.45, 33.0, "none", 0.0, 0.0, 0.0)
    return replace(
        patient,
        kidney_left=left or _kidney("left"),
        kidney_right=right or _kidney("right"),
        chest=replace(heart, **chest),
        scanner=scanner,
    )


def _kidney(side: str, mass: Mass | None = None, cysts: tuple = (), stones: tuple = (), grade: str = "none") -> Kidney:
    return Kidney(side, 110.0, mass, cysts, stones, grade)  # type: ignore[arg-type]


def _region(patient: Patient, name: str, spacing: tuple[float, float, float] = (2.0, 1.6, 1.3)) -> Geometry:
    return Geometry.centered(region_centers(patient)[name], (75, 83, 95), spacing)


def _lps(volume: Volume, mask: np.ndarray) -> np.ndarray:
    return volume.geometry.to_lps(np.argwhere(mask))


# Solids


@pytest.mark.parametrize("radii", [(40, 40, 40), (9, 9, 9), (4, 4, 4), (1.8, 1.8, 1.8), (27, 24, 55), (12, 5, 7), (3, 2.2, 4.0)])
@pytest.mark.parametrize("turned", [False, True])
def test_coverage_adds_up_to_the_volume(radii: tuple[float, float, float], turned: bool) -> None:
    geometry = Geometry.centered((3.0, -8.0, 21.0), (75, 83, 95), (2.5, 1.4, 1.1))
    turn = rotation(1, 31.0) @ rotation(0, -17.0) if turned else None
    totals = []
    for shift in np.random.default_rng(0).uniform(-1.2, 1.2, (6, 3)):
        canvas = Canvas.over(geometry, 2.5, 4.0)
        center = np.array([canvas.x.mean(), canvas.y.mean(), canvas.z.mean()]) + shift
        found = Ellipsoid.of(center, radii, turn).coverage(canvas)
        assert found is not None
        window, cover = found
        assert cover.shape == canvas.hu[window].shape
        assert 0 <= cover.min() <= cover.max() <= 1
        totals.append(float(cover.sum()) * 2.5 * 1.4 * 1.1)
    assert np.mean(totals) == pytest.approx(4 / 3 * math.pi * math.prod(radii), rel=0.05)


def test_thick_slabs_blur_but_keep_the_volume() -> None:
    geometry = Geometry.centered((0, 0, 0), (41, 51, 61), (2.0, 1.4, 1.1))
    for radius in (11.0, 18.0):
        sums, peaks = [], []
        for thickness in (2.0, 5.0):
            found = Ellipsoid.of((0.3, -0.2, 0.4), radius).coverage(Canvas.over(geometry, thickness, 0.0))
            assert found is not None
            sums.append(float(found[1].sum()))
            peaks.append(int(((found[1] > 0) & (found[1] < 1)).sum()))
        assert sums[1] == pytest.approx(sums[0], rel=0.05)
        assert peaks[1] > peaks[0]


def test_the_voxel_at_the_very_centre_is_inside() -> None:
    canvas = Canvas.over(Geometry.centered((0, 0, 0), (31, 41, 51), (2.5, 1.4, 1.1)), 2.5, 0.0)
    found = Ellipsoid.of((0, 0, 0), (20, 22, 25)).coverage(canvas)
    assert found is not None
    (d, h, w), cover = found
    assert cover[15 - d.start, 20 - h.start, 25 - w.start] == 1


def test_inside_and_outside_are_where_the_equation_says() -> None:
    geometry = Geometry.centered((5, 0, -7), (31, 41, 51), (2.5, 1.4, 1.1))
    canvas = Canvas.over(geometry, 2.5, 0.0)
    turn, radii, center = rotation(2, 40.0), np.array([16.0, 9.0, 22.0]), np.array([7.0, 1.0, -5.0])
    found = Ellipsoid(center, radii, turn).coverage(canvas)
    assert found is not None
    points = geometry.to_lps(np.stack(np.meshgrid(*map(np.arange, (31, 41, 51)), indexing="ij"), -1))
    level = np.linalg.norm(((points - center) @ turn) / radii, axis=-1)
    whole = np.zeros(geometry.shape_dhw, np.float32)
    whole[found[0]] = found[1]
    assert (whole[level < 0.8] == 1).all()
    assert (whole[level > 1.25] == 0).all()
    assert ((whole > 0.5) == (level < 1)).mean() > 0.999


def test_out_of_view_is_none_and_oblique_grids_are_refused() -> None:
    geometry = Geometry.centered((0, 0, 0), (5, 7, 11), (2.5, 0.8, 0.7))
    assert Ellipsoid.of((0, 0, 40), 9.0).coverage(Canvas.over(geometry, 2.5, 0.0)) is None
    tilt = np.eye(4)
    tilt[:3, :3] = rotation(0, 10)
    with pytest.raises(ValueError, match="upright"):
        render(_patient(), Geometry((5, 7, 11), tilt @ geometry.affine_lps))


# Sides and orientation


def test_left_is_at_positive_x_in_every_statement_of_place() -> None:
    for number in range(20):
        patient = sample_patient(11, number)
        centers = region_centers(patient)
        assert centers["kidney_left"][0] > 35
        assert centers["kidney_right"][0] < -35
        assert centers["chest"][2] > 90 > max(centers["kidney_left"][2], centers["kidney_right"][2])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("feet_first", [False, True])
def test_a_stone_lies_on_its_own_side_in_the_pixels(side: str, feet_first: bool) -> None:
    kidney = _kidney(side, stones=(Stone(18.0, "interpolar"),))
    patient = _patient(**{side: kidney}, feet_first=feet_first)
    volume = render(patient, noise=False)
    places = _lps(volume, volume.hu > 800)
    sign = 1 if side == "left" else -1
    assert len(places) > 20
    assert (sign * places[:, 0] > 20).all()
    assert np.linalg.norm(places.mean(0) - region_centers(patient)[f"kidney_{side}"]) < 30


def test_liver_is_on_the_right_fluid_on_its_side_and_the_spine_at_the_back() -> None:
    volume = render(_patient(effusion_left_mm=45.0), noise=False)
    hu, geometry = volume.hu, volume.geometry

    def at(x: float, y: float, z: float) -> int:
        return int(hu[tuple(geometry.to_index((x, y, z)).round().astype(int))])

    assert at(-65, 0, 40) == pytest.approx(ORGAN_HU["liver"]["portal_venous"], abs=45)
    a = build(_patient())
    assert at(0, a.spine_y_mm, 2) > 100
    fluid = lesion_masks(_patient(effusion_left_mm=45.0), geometry)["pleural_effusion_left@chest"]
    assert _lps(volume, fluid)[:, 0].min() > 0
    assert _lps(volume, fluid)[:, 1].mean() > 40
    assert np.median(hu[fluid]) == pytest.approx(9, abs=3)
    dry = render(_patient(), noise=False)
    assert np.median(dry.hu[fluid]) < -500
    mirrored = _lps(volume, fluid) * [-1, 1, 1]
    index = geometry.to_index(mirrored).round().astype(int)
    assert np.median(hu[tuple(index.T)]) < -500


def test_feet_first_stores_the_same_patient_the_other_way_up() -> None:
    head, feet = (scanner_geometry(_patient(feet_first=f), (7.0, 5.0, 4.0)) for f in (False, True))
    assert (head.axes, feet.axes) == ("SPL", "IPL")
    assert head.shape_dhw == feet.shape_dhw
    d, h, w = head.shape_dhw
    assert np.allclose(feet.to_lps((0, 2, 3)), head.to_lps((d - 1, 2, 3)))
    assert np.allclose(feet.to_lps((d - 1, h - 1, w - 1)), head.to_lps((0, h - 1, w - 1)))
    up, down = (render(_patient(feet_first=f), g, noise=False).hu for f, g in ((False, head), (True, feet)))
    assert np.abs(up - down[::-1].astype(int)).max() <= 1
    assert np.abs(up - down.astype(int)).mean() > 20


def test_the_scan_covers_what_its_coverage_says_and_keeps_its_field_of_view() -> None:
    for coverage, low, high in (("chest", 48, 320), ("abdomen", -185, 112), ("chest_abdomen", -185, 320)):
        patient = _patient()
        patient = replace(patient, scanner=replace(patient.scanner, coverage=coverage))
        for spacing in (None, (4.5, 3.1, 2.9)):
            geometry = scanner_geometry(patient, spacing)
            assert geometry.spacing_mm == pytest.approx(spacing or SPACING)
            z = geometry.to_lps([(-0.5, 0, 0), (geometry.shape_dhw[0] - 0.5, 0, 0)])[:, 2]
            assert low <= z[0] < low + 2.5
            assert high - 2.5 < z[1] <= high
        hu = render(patient, scanner_geometry(patient, (24.0, 3.0, 4.0)), noise=False).hu
        assert (hu[:, :, [0, -1]] < -400).all()
        assert (hu[:, 0] < -900).all()


# Lesions


LESIONS = {
    "renal_mass": ({"mass": MASS}, ORGAN_HU["mild"]["portal_venous"]),
    "renal_cyst": ({"cysts": (Cyst(36.0, "lower"),)}, 5.0),
    "renal_stone": ({"stones": (Stone(20.0, "interpolar"),)}, 950.0),
    "hydronephrosis": ({"grade": "severe"}, 9.0),
}


@pytest.mark.parametrize("name", LESIONS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_masks_hold_the_density_of_the_lesion_and_all_of_it(name: str, side: str) -> None:
    parts, density = LESIONS[name]
    patient = _patient(**{side: _kidney(side, **parts)})  # type: ignore[arg-type]
    geometry = _region(patient, f"kidney_{side}")
    masks = lesion_masks(patient, geometry)
    assert list(masks) == [f"{name}@kidney_{side}"]
    mask = masks[f"{name}@kidney_{side}"]
    hu = render(patient, geometry, noise=False).hu
    core = ndimage.binary_erosion(mask)
    assert core.sum() > 50
    assert (np.abs(hu[core] - density) < 2).mean() > 0.97
    ring = ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_dilation(mask)
    assert (np.abs(hu[ring] - density) < 2).mean() < 0.1
    assert np.sign(_lps(Volume(hu, geometry), mask)[:, 0].mean()) == (1 if side == "left" else -1)


def test_lesion_sizes_are_those_of_the_truth() -> None:
    left = _kidney("left", MASS, (Cyst(30.0, "lower"),))
    patient = _patient(left, _kidney("right", stones=(Stone(16.0, "lower"),)))
    for region, name, size in (
        ("kidney_left", "renal_mass", 44.0),
        ("kidney_left", "renal_cyst", 30.0),
        ("kidney_right", "renal_stone", 16.0),
    ):
        geometry = _region(patient, region, (1.8, 1.3, 1.5))
        mask = lesion_masks(patient, geometry)[f"{name}@{region}"]
        points = geometry.to_lps(np.argwhere(mask & ~ndimage.binary_erosion(mask)))
        diameter = max(float(np.linalg.norm(points - p, axis=1).max()) for p in points[:: max(1, len(points) // 400)])
        assert diameter == pytest.approx(size, abs=2.6)
        if name == "renal_cyst":
            assert mask.sum() * geometry.voxel_ml == pytest.approx(math.pi / 6 * size**3 / 1000, rel=0.05)


@pytest.mark.parametrize(("pole", "sign"), [("upper", 1), ("lower", -1)])
def test_poles_are_above_and_below_the_centre(pole: str, sign: int) -> None:
    patient = _patient(_kidney("left", replace(MASS, pole=pole), (Cyst(16.0, pole),), (Stone(9.0, pole),)))  # type: ignore[arg-type]
    geometry = _region(patient, "kidney_left")
    masks = lesion_masks(patient, geometry)
    assert len(masks) == 3
    for mask in masks.values():
        z = geometry.to_lps(np.argwhere(mask))[:, 2].mean() - region_centers(patient)["kidney_left"][2]
        assert sign * z > 8


def test_no_finding_no_mask_and_chest_findings_have_theirs() -> None:
    patient = _patient()
    geometry = Geometry.centered(region_centers(patient)["chest"], (45, 61, 71), (4.0, 3.5, 3.0))
    assert lesion_masks(patient, geometry) == {}
    sick = {
        "cardiothoracic_ratio": 0.6,
        "heart_width_mm": 157.0,
        "ascending_aorta_mm": 52.0,
        "coronary_calcification": "severe",
        "pericardial_effusion_mm": 20.0,
        "effusion_right_mm": 40.0,
    }
    patient = _patient(**sick)
    masks = lesion_masks(patient, geometry)
    names = ("coronary_calcification", "cardiomegaly", "pericardial_effusion", "aortic_aneurysm", "pleural_effusion_right")
    assert set(masks) == {f"{name}@chest" for name in names}
    hu, healthy = (render(p, geometry, noise=False).hu for p in (patient, _patient()))
    calcium, effusion = masks["coronary_calcification@chest"], masks["pericardial_effusion@chest"]
    assert np.median(hu[calcium]) > 300 > np.percentile(healthy[calcium], 95)
    assert np.median(hu[effusion]) == pytest.approx(12, abs=4)
    right = masks["pleural_effusion_right@chest"]
    assert geometry.to_lps(np.argwhere(right))[:, 0].max() < 0
    heart = geometry.to_lps(np.argwhere(masks["cardiomegaly@chest"]))
    assert np.ptp(heart[:, 0]) == pytest.approx(157, abs=9)
    assert masks["aortic_aneurysm@chest"].sum() * geometry.voxel_ml > 100


def test_a_lesion_just_outside_the_grid_marks_nothing() -> None:
    patient = _patient(_kidney("left", stones=(Stone(6.0, "interpolar"),)))
    whole = _region(patient, "kidney_left", (2.0, 1.6, 1.3))
    mask = lesion_masks(patient, whole)["renal_stone@kidney_left"]
    first, last = np.argwhere(mask).min(0), np.argwhere(mask).max(0)
    d, h, w = whole.shape_dhw
    for gap in (1, 2, 3):
        above = whole.crop((int(last[0]) + 1 + gap, 0, 0), (12, h, w))
        beside = whole.crop((0, 0, int(last[2]) + 1 + gap), (d, h, 14))
        below = whole.crop((int(first[0]) - 12 - gap, 0, 0), (12, h, w))
        for part in (above, beside, below):
            painted = render(patient, part, noise=False).hu > 600
            assert not painted.any()
            found = lesion_masks(patient, part).get("renal_stone@kidney_left")
            assert found is None or not found.any()


# One patient on many grids


@pytest.mark.parametrize("seed", [1, 4, 9])
def test_a_region_painted_alone_is_that_part_of_the_scan(seed: int) -> None:
    patient = sample_patient(11, seed)
    patient = replace(patient, scanner=replace(patient.scanner, coverage="chest_abdomen"))
    scan = render(patient, scanner_geometry(patient, (4.0, 3.1, 2.7)), noise=False)
    for name, center in region_centers(patient).items():
        start = np.maximum(scan.geometry.to_index(center).round().astype(int) - (13, 17, 19), 0)
        shape = tuple(int(n) for n in np.minimum((27, 35, 41), np.array(scan.hu.shape) - start))
        d, h, w = (int(v) for v in start)
        alone = render(patient, scan.geometry.crop((d, h, w), shape), noise=False)  # type: ignore[arg-type]
        part = scan.hu[d : d + shape[0], h : h + shape[1], w : w + shape[2]]
        assert part.std() > 50, name
        inner = (slice(2, -2),) * 3
        assert np.abs(alone.hu[inner] - part[inner].astype(int)).max() <= 1, name


def test_noise_has_its_stated_spread_and_repeats() -> None:
    patient = _patient()
    patient = replace(patient, scanner=replace(patient.scanner, noise_hu=15.0))
    geometry = Geometry.centered((-65, 0, 40), (13, 21, 25), (2.5, 1.4, 1.6))
    noisy, again, ideal = render(patient, geometry), render(patient, geometry), render(patient, geometry, noise=False)
    np.testing.assert_array_equal(noisy.hu, again.hu)
    assert (noisy.hu - ideal.hu.astype(int))[:, 5:-5, 5:-5].std() == pytest.approx(15, rel=0.15)
    assert noisy.hu.dtype == np.int16
    assert noisy.hu.min() >= -1024


# Patients


def test_the_same_arguments_give_the_same_patient_and_other_seeds_others() -> None:
    for number in range(30):
        assert sample_patient(11, number) == sample_patient(11, number)
        assert _facts(sample_patient(11, number)) != _facts(sample_patient(12, number))
    a, b = (build(sample_patient(11, 7)) for _ in range(2))
    assert np.array_equal(a.heart.center, b.heart.center)
    assert np.array_equal(a.kidneys["left"].outline.center, b.kidneys["left"].outline.center)
    assert a.lesion_seed == b.lesion_seed


def _facts(patient: Patient) -> str:
    return repr(replace(patient, patient_id="", seed=0))


def test_train_validation_and_test_share_no_patient() -> None:
    defaults = CohortConfig.model_fields
    starts = [0, defaults["start_validation"].default, defaults["start_test"].default]
    groups = [{_facts(sample_patient(11, start + n)) for n in range(700)} for start in starts]
    assert [len(g) for g in groups] == [700] * 3
    for a, b in combinations(groups, 2):
        assert not a & b


def test_prevalences_are_those_of_the_stated_chances() -> None:
    patients = [sample_patient(5, n) for n in range(1500)]
    kidneys = [k for p in patients for k in (p.kidney_left, p.kidney_right)]
    for found, chance in (
        (np.mean([k.mass is not None for k in kidneys]), 0.24),
        (np.mean([bool(k.cysts) for k in kidneys]), 0.32),
        (np.mean([bool(k.stones) for k in kidneys]), 0.20),
        (np.mean([k.hydronephrosis != "none" for k in kidneys]), 0.18),
        (np.mean([p.scanner.feet_first for p in patients]), 0.25),
        (np.mean([p.chest.pericardial_effusion_mm > 0 for p in patients]), 0.16),
        (np.mean([p.chest.effusion_left_mm > 0 for p in patients]), 0.18),
    ):
        assert found == pytest.approx(chance, abs=0.04)
    for patient in patients:
        assert 1 <= patient.time_days <= 3200
        assert {k.side for k in (patient.kidney_left, patient.kidney_right)} == {"left", "right"}
        assert patient.chest.heart_width_mm / patient.chest.cardiothoracic_ratio == pytest.approx(
            262 if patient.sex == "M" else 240, rel=0.01
        )


def test_the_hazard_adds_what_is_stated() -> None:
    chest = Chest(130.0, 0.5, 33.0, "mild", 0.0, 0.0, 0.0)
    plain = (_kidney("left"), _kidney("right"))
    assert log_hazard(62.0, plain, chest) == 0
    assert log_hazard(72.0, plain, chest) == pytest.approx(0.35)
    for mass, expected in (
        (replace(MASS, exophytic_fraction=0.2), 1.32),
        (MASS, 1.02),
        (replace(MASS, necrosis=True), 1.52),
        (replace(MASS, size_mm=130.0), 2.7),
    ):
        assert log_hazard(62.0, (plain[0], _kidney("right", mass)), chest) == pytest.approx(expected)
    assert log_hazard(62.0, (_kidney("left", grade="severe"), _kidney("right", grade="mild")), chest) == pytest.approx(0.35)
    sick = replace(
        chest, cardiothoracic_ratio=0.55, coronary_calcification="moderate", effusion_left_mm=9.0, effusion_right_mm=9.0
    )
    assert log_hazard(62.0, plain, sick) == pytest.approx(0.45 + 0.5 + 0.6)


def test_survival_follows_the_true_risk() -> None:
    patients = [sample_patient(6, n) for n in range(1500)]
    frame = pd.DataFrame(
        {"risk": [p.true_risk for p in patients], "t": [p.time_days for p in patients], "e": [p.event for p in patients]}
    )
    fitted = CoxPHFitter().fit(frame, "t", "e")
    assert float(fitted.params_["risk"]) == pytest.approx(1, abs=4 * float(fitted.standard_errors_["risk"]))
    assert float(fitted.standard_errors_["risk"]) < 0.07
