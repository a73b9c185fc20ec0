"""Several phases of one patient: the same anatomy in other contrast, drawn fairly, fused without reading what is missing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvl.data.cohort import Cohort, PhantomCohort, build_phantom, common_grid, crop_geometry
from medvl.data.phases import available, column_of, fuse, pick_phase, take
from medvl.errors import ConfigError
from medvl.imaging.phantom.render import render
from medvl.imaging.phantom.sample import PHASES, sample_patient
from medvl.imaging.preprocess import MIN_COVERED, Contract, RegionSpec

WINDOWS = ((-150.0, 250.0),)
CONTRACT = Contract(
    (
        RegionSpec("kidney_left", (9, 9, 9), (9.0, 7.0, 7.0), WINDOWS),
        RegionSpec("kidney_right", (9, 9, 9), (9.0, 7.0, 7.0), WINDOWS),
    )
)
COHORT = PhantomCohort(seed=21, start=0, n=6, phases=3)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return build_phantom(tmp_path_factory.mktemp("phases"), COHORT, CONTRACT)


def test_the_first_scan_is_the_patients_own_and_equals_a_cohort_of_single_scans(built: Cohort, tmp_path: Path) -> None:
    single = build_phantom(tmp_path, replace(COHORT, phases=1), CONTRACT)
    assert single.phase_hu is None and single.phases == ()
    assert built.phase_hu is not None and built.phase_hu.shape == (6, 3, 2, 9, 9, 9)
    np.testing.assert_array_equal(built.hu, single.hu)
    np.testing.assert_array_equal(built.covered, single.covered)
    for number, case in enumerate(built.cases):
        assert case["phases"][0] == sample_patient(21, number).scanner.phase
        assert len(set(case["phases"])) == 3
        assert {k: v for k, v in case.items() if k != "phases"} == single.cases[number]
    assert set(built.phases) == {p for case in built.cases for p in case["phases"]}


def test_phases_differ_as_contrast_does_and_share_the_anatomy(built: Cohort) -> None:
    """Cortex is brighter with contrast than without by about what the phantom's table says; fat and bone stay."""
    assert built.phase_hu is not None
    seen = 0
    for row, case in enumerate(built.cases):
        if "noncontrast" not in case["phases"] or "portal_venous" not in case["phases"] or built.covered[row, 0] < 1:
            continue
        plain, venous = (built.phase_hu[row, case["phases"].index(p), 0].astype(float) for p in ("noncontrast", "portal_venous"))
        rise = venous - plain
        assert np.percentile(rise, 99) > 70
        assert abs(np.median(rise[plain < -60])) < 12
        seen += 1
    assert seen > 0


def test_noise_is_drawn_anew_for_each_phase() -> None:
    patient = sample_patient(21, 0)
    grid = crop_geometry(patient, RegionSpec("chest", (6, 12, 12), (3.0, 2.0, 2.0), WINDOWS), 0.0)
    noises = []
    for phase in ("noncontrast", "delayed"):
        scan = replace(patient, scanner=replace(patient.scanner, phase=phase, kernel_mm=0.1))
        noises.append(render(scan, grid).hu.astype(float) - render(scan, grid, noise=False).hu)
    assert np.std(noises[0]) > 3
    assert abs(np.corrcoef(noises[0].ravel(), noises[1].ravel())[0, 1]) < 0.3


def test_named_phases_come_main_first() -> None:
    cohort = replace(COHORT, phases=("arterial", "noncontrast", "portal_venous"))
    for number in range(30):
        patient = sample_patient(21, number)
        phases = cohort.phases_of(patient)
        rest = [p for p in ("arterial", "noncontrast", "portal_venous") if p != patient.scanner.phase]
        own = [patient.scanner.phase] if patient.scanner.phase != "delayed" else []
        assert list(phases) == [*own, *rest]
    others = {replace(COHORT, phases=2).phases_of(sample_patient(21, n))[1] for n in range(40)}
    assert others == set(PHASES)


@pytest.mark.parametrize("phases", [0, 5, (), ("arterial", "arterial"), ("venous",)])
def test_impossible_phases_are_refused(phases: object) -> None:
    with pytest.raises(ConfigError, match="phases must be"):
        replace(COHORT, phases=phases)


def test_phases_change_the_key() -> None:
    keys = {replace(COHORT, phases=p).key(CONTRACT) for p in (1, 2, 3, ("arterial", "delayed"), ("delayed", "arterial"))}
    assert len(keys) == 5


def test_picking_is_fair_repeatable_and_only_of_what_is_there() -> None:
    there = np.array([[True, True, True], [False, True, True], [True, False, False]])
    many = np.repeat(there, 4000, axis=0)
    picks = pick_phase(np.random.default_rng(1), many)
    np.testing.assert_array_equal(picks, pick_phase(np.random.default_rng(1), many))
    assert many[np.arange(len(many)), picks].all()
    shares = np.stack([np.bincount(part, minlength=3) / 4000 for part in picks.reshape(3, 4000)])
    np.testing.assert_allclose(shares, [[1 / 3, 1 / 3, 1 / 3], [0, 0.5, 0.5], [1, 0, 0]], atol=0.03)
    with pytest.raises(ConfigError, match="1 of 2 patients have no usable scan"):
        pick_phase(np.random.default_rng(1), np.array([[True, False], [False, False]]))


def test_taking_gives_all_regions_of_a_patient_in_one_phase(built: Cohort) -> None:
    assert built.phase_hu is not None
    rows, picks = np.array([4, 0]), np.array([2, 1])
    crops = take(built, rows, picks)
    for k, (row, pick) in enumerate(zip(rows, picks, strict=True)):
        np.testing.assert_array_equal(crops[k], built.phase_hu[row, pick])
    single = Cohort(np.array(built.hu), built.covered, built.cases, built.regions)
    np.testing.assert_array_equal(take(single, rows, picks), built.hu[[4, 0]])
    assert available(single, MIN_COVERED).shape == (6, 1, 2)
    np.testing.assert_array_equal(available(built, MIN_COVERED)[:, 0], built.covered >= MIN_COVERED)


def test_columns_by_name(built: Cohort) -> None:
    columns = column_of(built, built.phases[0])
    for case, column in zip(built.cases, columns, strict=True):
        assert (column == -1) == (built.phases[0] not in case["phases"])
        assert column == -1 or case["phases"][column] == built.phases[0]
    with pytest.raises(ConfigError, match="no patient has a scan in phase 'late'"):
        column_of(built, "late")


def test_fusing_is_the_mean_of_what_is_there_and_never_nan() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(5, 3, 4)).astype(np.float32)
    there = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 0]], bool)
    scores[~there] = np.nan
    fused = fuse(scores, there)
    expected = [np.mean([scores[n, p] for p in range(3) if there[n, p]], axis=0) for n in range(5)]
    np.testing.assert_allclose(fused, expected, rtol=1e-6)
    assert fused.dtype == np.float32
    np.testing.assert_allclose(fuse(scores[:, :, 0], there), np.array(expected)[:, 0], rtol=1e-6)
    with pytest.raises(ConfigError, match="do not fit"):
        fuse(scores[:, :2], there)


def test_regions_of_other_grids_are_refused() -> None:
    other = Contract((CONTRACT.regions[0], replace(CONTRACT.regions[1], grid_dhw=(9, 9, 8))))
    with pytest.raises(ConfigError, match=r"kidney_left \[9, 9, 9\], kidney_right \[9, 9, 8\]"):
        common_grid(other)
    with pytest.raises(ConfigError, match="same grid_dhw"):
        build_phantom(Path("unused"), COHORT, other)
    assert not Path("unused").exists()
