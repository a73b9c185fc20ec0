"""A phantom cohort on disk: crops equal the resampled scan, builds resume, keys follow their contents."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medvl.data.cohort import Cohort, PhantomCohort, build_phantom, describe, open_cohort, phantom_crop
from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.phantom import render as rendering
from medvl.imaging.phantom.render import COVERAGE_Z_MM, region_centers, render, scanner_geometry
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.preprocess import MIN_COVERED, Contract, RegionSpec

WINDOWS = ((-150.0, 250.0),)
GRID = (5, 7, 11)
CONTRACT = Contract(
    (
        RegionSpec("kidney_left", GRID, (8.0, 6.0, 5.0), WINDOWS),
        RegionSpec("kidney_right", GRID, (8.0, 6.0, 5.0), WINDOWS),
        RegionSpec("chest", GRID, (9.0, 8.0, 7.0), WINDOWS),
    )
)
COHORT = PhantomCohort(seed=11, start=3, n=4)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cohort]:
    folder = tmp_path_factory.mktemp("cache")
    told: list[tuple[int, int]] = []
    cohort = build_phantom(folder, COHORT, CONTRACT, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (4, 4)
    return folder / COHORT.key(CONTRACT), cohort


def test_key_changes_with_everything_that_changes_the_crops() -> None:
    other = Contract((*CONTRACT.regions[:2], RegionSpec("chest", GRID, (9.0, 8.0, 7.5), WINDOWS)))
    keys = {
        COHORT.key(CONTRACT),
        COHORT.key(other),
        *(replace(COHORT, **{k: v}).key(CONTRACT) for k, v in (("seed", 12), ("start", 4), ("n", 5), ("jitter_mm", 8.0))),
    }
    assert len(keys) == 6
    assert PhantomCohort(11, 3, 4).key(CONTRACT) == COHORT.key(CONTRACT)


def test_pictures_of_an_older_renderer_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    before = COHORT.key(CONTRACT)
    monkeypatch.setattr("medvl.data.cohort.RENDER_VERSION", rendering.RENDER_VERSION + 1)
    assert COHORT.key(CONTRACT) != before


def test_an_unfinished_cohort_is_not_opened(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    cohort = replace(COHORT, n=10)
    with pytest.raises(KeyboardInterrupt):
        build_phantom(tmp_path, cohort, CONTRACT, progress=stop)
    with pytest.raises(ConfigError, match="2 of 10 rows"):
        open_cohort(tmp_path / cohort.key(CONTRACT))
    assert len(build_phantom(tmp_path, cohort, CONTRACT)) == 10
    open_cohort(tmp_path / cohort.key(CONTRACT))


def test_a_cohort_holds_every_patient_in_order(built: tuple[Path, Cohort]) -> None:
    _, cohort = built
    assert cohort.hu.shape == (4, 3, *GRID)
    assert cohort.hu.dtype == np.int16
    assert cohort.regions == ("kidney_left", "kidney_right", "chest")
    assert [c["patient_id"] for c in cohort.cases] == [f"PH{n:06d}" for n in range(3, 7)]
    assert cohort.cases[2] == json.loads(json.dumps(describe(11, 5)))
    for row in range(4):
        for column, spec in enumerate(CONTRACT.regions):
            hu, covered = phantom_crop(11, 3 + row, spec, COHORT.jitter_mm)
            np.testing.assert_array_equal(cohort.hu[row, column], hu)
            assert cohort.covered[row, column] == np.float32(covered)


def test_a_broken_off_build_goes_on_where_it_stopped(built: tuple[Path, Cohort]) -> None:
    place, cohort = built
    expected = np.array(cohort.hu)
    hu, done = np.load(place / "hu.npy", mmap_mode="r+"), np.load(place / "done.npy", mmap_mode="r+")
    hu[0], hu[2], done[2] = 7, 8, 0
    hu.flush()
    done.flush()
    again = build_phantom(place.parent, COHORT, CONTRACT)
    assert (again.hu[0] == 7).all()
    np.testing.assert_array_equal(again.hu[1:], expected[1:])
    hu[0] = expected[0]
    hu.flush()
    np.testing.assert_array_equal(open_cohort(place).hu, expected)


def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medvl.data.cohort.render", lambda patient, geometry: render(patient, geometry, noise=False))


def test_a_crop_equals_the_scanners_own_voxels_resampled_by_simpleitk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own voxels lie elsewhere between slices than the scanner's do, so it is compared where the anatomy is smooth."""
    _quiet(monkeypatch)
    spec = RegionSpec("kidney_left", (15, 25, 21), (5.0, 2.9, 2.6), WINDOWS)
    number = next(n for n in range(50) if sample_patient(11, n).scanner.coverage == "chest_abdomen")
    patient = sample_patient(11, number)
    hu, covered = phantom_crop(11, number, spec, 0.0)
    assert covered == 1
    grid = Geometry.centered(region_centers(patient)["kidney_left"], spec.grid_dhw, spec.spacing_mm)
    whole = scanner_geometry(patient)
    corners = np.sort(whole.to_index([grid.to_lps((-4, -4, -4)), grid.to_lps(np.array(spec.grid_dhw) + 4)]).astype(int), axis=0)
    scan = render(patient, whole.crop(tuple(corners[0].tolist()), tuple(np.ptp(corners, axis=0).tolist())), noise=False)
    expected = _resampled(scan.hu, scan.geometry, grid)
    mirrored = _resampled(scan.hu[:, :, ::-1], scan.geometry, grid)
    gaps = np.abs(hu - expected)
    assert np.median(gaps) < 6
    assert np.median(gaps) < 0.2 * np.median(np.abs(hu - mirrored))
    assert np.corrcoef(hu.ravel(), expected.ravel())[0, 1] > 0.95


def _resampled(hu: np.ndarray, source: Geometry, target: Geometry) -> np.ndarray:
    image = sitk.GetImageFromArray(np.ascontiguousarray(hu).astype(np.float32))
    _place(image, source)
    like = sitk.Image(*(int(n) for n in target.shape_dhw[::-1]), sitk.sitkFloat32)
    _place(like, target)
    return sitk.GetArrayFromImage(sitk.Resample(image, like, sitk.Transform(), sitk.sitkLinear, -1024.0))


def _place(image: sitk.Image, geometry: Geometry) -> None:
    image.SetOrigin(geometry.affine_lps[:3, 3].tolist())
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetDirection(geometry.directions[:, ::-1].ravel().tolist())


def test_regions_outside_the_scan_are_not_taken() -> None:
    taken = {"chest": 0, "abdomen": 0}
    for number in range(60):
        coverage = sample_patient(11, number).scanner.coverage
        if coverage == "chest_abdomen":
            continue
        for spec in (CONTRACT.regions[1], CONTRACT.regions[2]):
            hu, covered = phantom_crop(11, number, spec, 9.0)
            assert (hu == -1024).all() == (covered < MIN_COVERED)
            if (spec.name == "chest") != (coverage == "chest"):
                assert covered < MIN_COVERED
                taken[coverage] += 1
    assert min(taken.values()) > 2
    assert scanner_geometry(sample_patient(11, 0)).extent_mm[0] <= np.ptp(COVERAGE_Z_MM["chest_abdomen"])
    assert rendering.COVERAGE_Z_MM["chest"][0] > rendering.COVERAGE_Z_MM["abdomen"][0]


def test_the_crop_moves_by_at_most_the_jitter_and_repeatably(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("medvl.data.cohort.resample", lambda volume, target: seen.append(target) or np.zeros(target.shape_dhw))
    spec = CONTRACT.regions[0]
    numbers = [n for n in range(40) if sample_patient(11, n).scanner.coverage == "chest_abdomen"][:8]
    offsets = []
    for number in numbers:
        phantom_crop(11, number, spec, 9.0)
        phantom_crop(11, number, spec, 9.0)
        assert seen[-1] == seen[-2]
        offsets.append(seen[-1].center_lps - region_centers(sample_patient(11, number))["kidney_left"])
    assert np.abs(offsets).max() <= 9.0
    assert np.abs(offsets).max() > 5
    assert (np.ptp(offsets, axis=0) > 4).all()
