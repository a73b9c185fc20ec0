"""The painted cohort: splits, reproducible crops, facts that come through, and a plain word where the data are missing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvl.data.painted_cohort import SPLITS, PaintedCohort, build_painted, painted_crop, read_case, split_patients
from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.nifti import write_nifti
from medvl.imaging.preprocess import Contract, RegionSpec

WINDOWS = ((-150.0, 250.0),)
SPECS = [RegionSpec(f"kidney_{side}", (12, 12, 12), (10.0, 10.0, 10.0), WINDOWS) for side in ("left", "right")]
CONTRACT = Contract(tuple(SPECS))


def _map(grid: Geometry, both: bool) -> np.ndarray:
    """Boxes for kidneys; the tumour of 24 mm on the left."""
    d, h, w = (grid.to_lps(_line(k, n))[:, 2 - k] for k, n in enumerate(grid.shape_dhw))
    labels = np.zeros(grid.shape_dhw, np.uint8)

    def fill(x: tuple[int, int], y: tuple[int, int], z: tuple[int, int], label: int) -> None:
        inside = [(v >= low) & (v < high) for v, (low, high) in zip((d, h, w), (z, y, x), strict=True)]
        labels[np.ix_(*inside)] = label

    fill((40, 80), (-20, 20), (-50, 50), 1)
    fill((70, 94), (-12, 12), (20, 44), 2)
    if both:
        fill((-80, -40), (-20, 20), (-50, 50), 1)
        fill((-90, -74), (-8, 8), (-40, -24), 3)
    return labels


def _line(axis: int, n: int) -> np.ndarray:
    index = np.zeros((n, 3))
    index[:, axis] = np.arange(n)
    return index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight made-up patients in the layout of KiTS23; the first lacks its right kidney."""
    whole = Geometry.centered((0.0, 0.0, 0.0), (40, 60, 80), (4.0, 4.0, 4.0))
    near = Geometry.centered((0.0, 0.0, 0.0), (40, 20, 72), (3.0, 3.0, 3.0))
    rows = []
    for name in ("native_crop", "grid3mm"):
        (tmp_path / "kits" / name).mkdir(parents=True)
    for n in range(8):
        case = f"case_{n:05d}"
        write_nifti(_map(near, n > 0), near, tmp_path / "kits" / "native_crop" / f"{case}.nii.gz")
        write_nifti(_map(whole, n > 0), whole, tmp_path / "kits" / "grid3mm" / f"{case}.nii.gz")
        rows.append(
            {
                "case_id": case,
                "age_at_nephrectomy": 50 + n,
                "bmi": 27.0,
                "vital_days_after_surgery": 100 * n,
                "vital_status": "dead" if n % 2 else "censored",
                "tumor_histologic_subtype": "clear_cell_rcc" if n % 2 else "papillary_rcc",
                "tumor_necrosis": False,
            }
        )
    (tmp_path / "kits" / "kits23.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path / "kits"


def test_splits_are_whole_patients_and_of_the_stated_shares() -> None:
    names = [f"case_{n:05d}" for n in range(392)]
    split = split_patients(names, 0)
    assert [len(split[name]) for name in SPLITS] == [235, 59, 98]
    assert set.union(*split.values()) == set(names)
    assert split == split_patients(names[::-1], 0) != split_patients(names, 1)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no KiTS23 label maps in .*nowhere.*kits23\.json"):
        PaintedCohort(tmp_path / "nowhere", "train")


@pytest.mark.parametrize(
    "wrong", [{"split": "holdout"}, {"phases": ("arterial", "arterial")}, {"phases": ("venous",)}, {"phases": ()}]
)
def test_wrong_options_are_refused(folder: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        PaintedCohort(**{"data": folder, "split": "train", **wrong})  # type: ignore[arg-type]


def test_cases_carry_the_mask_s_and_the_clinic_s_facts(folder: Path, tmp_path: Path) -> None:
    which = PaintedCohort(folder, "train", phases=("arterial", "delayed"))
    cohort = build_painted(tmp_path / "cache", which, CONTRACT)
    assert cohort.phase_hu is not None and cohort.phase_hu.shape == (5, 2, 2, 12, 12, 12)
    assert not (cohort.phase_hu[:, 0] == cohort.phase_hu[:, 1])[cohort.covered > 0].all()
    for row, case in enumerate(cohort.cases):
        n = int(case["patient_id"][-5:])
        assert (case["truth"]["age_years"], case["truth"]["time_days"], case["truth"]["event"]) == (50 + n, 100 * n, n % 2 == 1)
        assert cohort.covered[row].tolist() == [1.0, float(n > 0)]
        assert case["truth"]["kidneys"]["left"]["tumours"][0]["pole"] == "upper"
        assert case["labels"]["kidney_left"]["renal_mass"] == 1
        assert ("kidney_right" in case["region_texts"] and bool(case["region_texts"]["kidney_right"])) or n == 0
        assert case["painted"]["tumour"]["enhancement"] == ("avid" if n % 2 else "mild")
    again = build_painted(tmp_path / "other", which, CONTRACT)
    assert again.phase_hu is not None and (again.phase_hu == cohort.phase_hu).all()
    assert again.cases == cohort.cases


def test_the_crop_is_where_the_kidney_is(folder: Path) -> None:
    """The tumour's HU stand at the tumour's own place in the crop, and cutting the link changes nothing else."""
    which = PaintedCohort(folder, "train")
    row = json.loads((folder / "kits23.json").read_text())[1]
    case, spec = read_case(folder, row), RegionSpec("kidney_left", (24, 24, 24), (5.0, 5.0, 5.0), WINDOWS)
    hu = painted_crop(which, case, "left", spec, "arterial")
    grid = spec.geometry(case.kidneys["left"].center_lps)
    d, h, w = np.rint(grid.to_index((82.0, 0.0, 32.0))).astype(int)
    alike = painted_crop(replace(which, link=False), case, "left", spec, "arterial")
    assert hu[d, h, w] - alike[d, h, w] > 15
    far = np.rint(grid.to_index((60.0, 0.0, -30.0))).astype(int)
    assert hu[tuple(far)] == alike[tuple(far)]


def test_the_link_can_be_cut_and_changes_the_folder(folder: Path) -> None:
    linked, cut = PaintedCohort(folder, "test"), PaintedCohort(folder, "test", link=False)
    keys = {
        linked.key(CONTRACT),
        cut.key(CONTRACT),
        replace(linked, seed=1).key(CONTRACT),
        replace(linked, jitter_mm=3.0).key(CONTRACT),
    }
    assert len(keys) == 4
    rows = json.loads((folder / "kits23.json").read_text())
    clear, other = ({**rows[1], "tumor_histologic_subtype": s} for s in ("clear_cell_rcc", "papillary_rcc"))
    a, b = (painted_crop(cut, read_case(folder, row), "left", SPECS[0], "arterial") for row in (clear, other))
    assert (a == b).all()


def test_only_kidneys_are_painted(folder: Path, tmp_path: Path) -> None:
    wrong = Contract((*SPECS, RegionSpec("chest", (12, 12, 12), (10.0, 10.0, 10.0), WINDOWS)))
    with pytest.raises(ConfigError, match="chest"):
        build_painted(tmp_path, PaintedCohort(folder, "train"), wrong)


@pytest.mark.slow
@pytest.mark.data
def test_real_masks_give_the_radiologist_s_size(shared_data: Path) -> None:
    """Five real patients: measured diameters lie near the clinical ones, and their crops show kidneys brighter than fat."""
    kits = shared_data / "kits23"
    if not kits.is_dir():
        pytest.skip("no kits23 in the shared data")
    rows = [
        r for r in json.loads((kits / "kits23.json").read_text()) if r["case_id"] in {f"case_{n:05d}" for n in (0, 3, 4, 5, 10)}
    ]
    which = PaintedCohort(kits, "test")
    for row in rows:
        case = read_case(kits, row)
        side = max(case.kidneys, key=lambda s: sum(t.volume_ml for t in case.kidneys[s].tumours))
        assert case.kidneys[side].tumours[0].size_mm == pytest.approx(10 * row["radiographic_size"], rel=0.35)
        hu = painted_crop(which, case, side, SPECS[0], "arterial")
        assert 40 < np.median(hu[4:8, 4:8, 4:8]) < 250 and hu.min() < -60
