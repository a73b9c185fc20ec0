"""Cohorts from a table: the phantom's own crops and labels come back from its files, and bad studies are told, not fatal."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from table_files import CONTRACT, REPORT, WINDOWS, phantom_table, small_scan, write_csv

from medvl.data.cohort import Cohort, describe, phantom_crop
from medvl.data.phases import available, column_of
from medvl.data.statements import region_texts
from medvl.data.table import Scan, open_table
from medvl.data.table_cohort import build_table
from medvl.data.targets import KindTargets
from medvl.errors import ConfigError, InputError
from medvl.imaging.load import load
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.preprocess import MIN_COVERED, Contract, RegionSpec
from medvl.records import Volume

KIDNEYS = KindTargets(regions=("kidney_left", "kidney_right"), binary=("renal_mass", "renal_cyst", "renal_stone"))
ONE = Contract((RegionSpec("kidney_left", (8, 8, 8), (5.0, 5.0, 5.0), WINDOWS),))


def _check_phantoms(folder: Path, numbers: Sequence[int], workers: int = 1) -> None:
    table = open_table(phantom_table(folder, 31, numbers))
    cohorts = build_table(folder / "cache", table, CONTRACT, workers=workers)
    seen = 0
    for split, cohort in cohorts.items():
        assert [c["truth"] for c in cohort.cases] == [
            {"age_years": c.age_years, "time_days": c.time_days, "event": c.event} for c in table.of(split)
        ]
        for row, case in enumerate(table.of(split)):
            number = int(case.patient_id[2:])
            told, mine = describe(31, number), cohort.cases[row]
            assert mine["labels"] == told["labels"]
            assert mine["region_texts"] == told["region_texts"]
            for column, spec in enumerate(CONTRACT.regions):
                seen += _check_crop(cohort, row, column, *phantom_crop(31, number, spec, 0.0))
    assert seen >= 2 * len(numbers)
    usable = next(iter(cohorts.values())).covered >= MIN_COVERED
    first = next(iter(cohorts.values()))
    assert len(region_texts(first.cases, KIDNEYS, first.regions, usable)) > 0


def _check_crop(cohort: Cohort, row: int, column: int, hu: np.ndarray, covered: float) -> bool:
    """A crop from the files against the phantom's own: other noise, and slices that lie elsewhere by up to half a step."""
    assert abs(cohort.covered[row, column] - covered) < 0.1
    if min(covered, cohort.covered[row, column]) < MIN_COVERED:
        return False
    mine = cohort.hu[row, column].astype(float)
    body = hu > -950
    gaps = np.abs(mine - hu)[body]
    shifted = np.abs(np.roll(mine, 1, axis=2) - hu)[body]
    assert np.median(gaps) < 15
    assert np.mean(gaps) < 0.6 * np.mean(shifted)
    assert np.corrcoef(mine.ravel(), hu.ravel())[0, 1] > 0.97
    return True


def test_phantoms_written_as_dicom_come_back_as_their_own_crops_and_labels(tmp_path: Path) -> None:
    numbers = [n for n in range(60) if sample_patient(31, n).scanner.spacing_dhw_mm[0] == 5.0][:2]
    _check_phantoms(tmp_path, numbers)


@pytest.mark.slow
def test_a_dozen_phantoms_of_all_coverages_in_two_processes(tmp_path: Path) -> None:
    _check_phantoms(tmp_path, range(12), workers=2)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three patients: a good scan, a file that is no scan, a scan without any region."""
    small_scan(tmp_path / "a.nii.gz")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("nothing")
    small_scan(tmp_path / "c.nii.gz")
    center = {"kidney_left_x_mm": 40, "kidney_left_y_mm": 0, "kidney_left_z_mm": 0}
    far = {**center, "kidney_left_z_mm": 500}
    rows = [
        {"patient_id": "Smith John", "study": "a.nii.gz", "report": REPORT, "split": "train", **center},
        {"patient_id": "Doe Jane", "study": "b", "report": REPORT, "split": "train", **center},
        {"patient_id": "Roe Richard", "study": "c.nii.gz", "report": REPORT, "split": "test", **far},
    ]
    return write_csv(tmp_path / "table.csv", rows)


def test_studies_that_cannot_be_used_keep_a_row_and_a_reason(scans: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    cohorts = build_table(tmp_path / "cache", open_table(scans), ONE, progress=lambda *step: told.append(step))
    assert told == [("train", 1, 2), ("train", 2, 2), ("test", 1, 1)]
    assert set(cohorts) == {"train", "test"}
    train = cohorts["train"]
    np.testing.assert_array_equal(train.covered, [[1], [0]])
    assert (train.hu[1] == -1024).all()
    assert train.hu[0, 0, 4, 4, 4] == 40
    assert "rejected" not in train.cases[0]
    assert train.cases[1]["rejected"] == "no_volume"
    assert cohorts["test"].cases[0]["rejected"] == "region_incomplete"
    with (tmp_path / "cache" / "rejects.csv").open(encoding="utf-8") as file:
        lost = [(line["row"], line["split"], line["code"], line["used"]) for line in csv.DictReader(file)]
    assert lost == [("3", "train", "no_volume", "0"), ("4", "test", "region_incomplete", "0")]


def test_the_cache_holds_no_identifier_and_its_ids_need_its_key(scans: Path, tmp_path: Path) -> None:
    table = open_table(scans)
    ids = [build_table(tmp_path / name, table, ONE)["train"].cases[0]["patient_id"] for name in ("one", "two", "one")]
    assert ids[0] == ids[2] != ids[1]
    assert (tmp_path / "one" / "key").stat().st_mode & 0o777 == 0o600
    held = b"".join(p.read_bytes() for p in (tmp_path / "one").rglob("*") if p.is_file())
    held += "".join(p.name for p in (tmp_path / "one").rglob("*")).encode()
    for word in (b"Smith", b"Doe", b"Roe", b"nii.gz", tmp_path.name.encode()):
        assert word not in held


class _Locate:
    """Says the same place for every scan and counts how often it was asked."""

    def __init__(self, confidence: float = 0.9) -> None:
        self.confidence, self.asked = confidence, list[Scan]()

    def __call__(self, volume: Volume, scan: Scan) -> dict[str, tuple[tuple[float, float, float], float]]:
        assert volume.hu.shape == (50, 50, 50)
        self.asked.append(scan)
        return {"kidney_left": ((40.0, 0.0, 0.0), self.confidence), "liver": ((0.0, 0.0, 0.0), 1.0)}


def _table(folder: Path, names: Sequence[str], **more: object) -> Path:
    rows = [{"patient_id": n, "study": f"{n}.nii.gz", "report": REPORT, "split": "train", **more} for n in names]
    return write_csv(folder / "table.csv", rows)


def test_regions_come_from_the_localiser_unless_the_table_gives_them_or_it_is_unsure(tmp_path: Path) -> None:
    for name in "ab":
        small_scan(tmp_path / f"{name}.nii.gz")
    table = open_table(_table(tmp_path, "ab"))
    sure = build_table(tmp_path / "cache", table, ONE, _Locate(), locate_key="1")["train"]
    assert (sure.hu[:, 0, 4, 4, 4] == 40).all()
    unsure = replace(
        table,
        cases=(
            table.cases[0],
            replace(table.cases[1], scans=(replace(table.cases[1].scans[0], centers={"kidney_left": (-40.0, 0.0, 0.0)}),)),
        ),
    )
    given = build_table(tmp_path / "cache", unsure, ONE, _Locate(0.4), locate_key="2")["train"]
    assert given.cases[0]["rejected"] == "region_not_found"
    assert given.hu[1, 0, 4, 4, 4] == -100


def test_rows_are_taken_over_while_the_studies_the_localiser_and_the_contract_stay(tmp_path: Path) -> None:
    for k, name in enumerate("abc"):
        small_scan(tmp_path / f"{name}.nii.gz", 10.0 * k)

    def build(names: str, key: str = "1", contract: Contract = ONE) -> tuple[int, Cohort]:
        locate = _Locate()
        cohort = build_table(tmp_path / "cache", open_table(_table(tmp_path, names)), contract, locate, locate_key=key)["train"]
        return len(locate.asked), cohort

    assert build("ab")[0] == 2
    assert build("ab")[0] == 0
    asked, cohort = build("cba")
    assert asked == 1
    np.testing.assert_array_equal(cohort.hu[:, 0, 4, 4, 4], [20, 10, 0])
    assert build("ab", key="2")[0] == 2
    assert build("ab", contract=Contract((replace(ONE.regions[0], spacing_mm=(5.0, 5.0, 5.1)),)))[0] == 2
    small_scan(tmp_path / "a.nii.gz", 77.0)
    asked, cohort = build("ab")
    assert asked == 1
    np.testing.assert_array_equal(cohort.hu[:, 0, 4, 4, 4], [77, 10])


def test_a_report_may_change_without_reading_the_scans_again(tmp_path: Path) -> None:
    small_scan(tmp_path / "a.nii.gz")
    locate = _Locate()
    first = build_table(tmp_path / "cache", open_table(_table(tmp_path, "a")), ONE, locate)["train"]
    other = _table(tmp_path, "a", report="FINDINGS: The left kidney has no mass.")
    second = build_table(tmp_path / "cache", open_table(other), ONE, locate)["train"]
    assert len(locate.asked) == 1
    assert first.cases[0]["labels"]["kidney_left"]["renal_mass"] == 1
    assert second.cases[0]["labels"]["kidney_left"]["renal_mass"] == 0


def test_phases_of_one_report_are_one_case(tmp_path: Path) -> None:
    for k, name in enumerate(("native", "late", "single")):
        small_scan(tmp_path / f"{name}.nii.gz", 50.0 * k)
    shared = {"report": REPORT, "split": "train"}
    rows = [
        {"patient_id": "1", "study": "native.nii.gz", "phase": "native", **shared},
        {"patient_id": "1", "study": "late.nii.gz", "phase": "delayed", **shared},
        {"patient_id": "2", "study": "single.nii.gz", "phase": "delayed", **shared},
    ]
    cohort = build_table(tmp_path / "cache", open_table(write_csv(tmp_path / "t.csv", rows)), ONE, _Locate())["train"]
    assert cohort.phases == ("delayed", "noncontrast")
    assert cohort.phase_hu is not None and cohort.phase_hu.shape == (2, 2, 1, 8, 8, 8)
    np.testing.assert_array_equal(cohort.phase_hu[:, :, 0, 4, 4, 4], [[0, 50], [100, -1024]])
    np.testing.assert_array_equal(available(cohort, MIN_COVERED)[..., 0], [[True, True], [True, False]])
    np.testing.assert_array_equal(column_of(cohort, "delayed"), [1, 0])
    np.testing.assert_array_equal(column_of(cohort, "noncontrast"), [0, -1])
    np.testing.assert_array_equal(cohort.hu[:, 0, 4, 4, 4], [0, 100])


def test_one_study_for_two_phases_needs_a_series_for_each(tmp_path: Path) -> None:
    small_scan(tmp_path / "a.nii.gz")
    rows = [
        {"patient_id": "1", "study": "a.nii.gz", "phase": p, "report": REPORT, "split": "train"} for p in ("arterial", "delayed")
    ]
    build_table(tmp_path / "cache", open_table(write_csv(tmp_path / "t.csv", rows)), ONE, _Locate())
    with (tmp_path / "cache" / "rejects.csv").open(encoding="utf-8") as file:
        lost = list(csv.DictReader(file))
    assert [(line["row"], line["scan"], line["used"], line["code"]) for line in lost] == [("3", "delayed", "1", "no_volume")]


def test_our_own_faults_are_kept_as_such_and_tried_again(tmp_path: Path) -> None:
    for name in "ab":
        small_scan(tmp_path / f"{name}.nii.gz")
    table = open_table(_table(tmp_path, "ab"))

    def broken(volume: Volume, scan: Scan) -> dict[str, tuple[tuple[float, float, float], float]]:
        if scan.row == 3:
            raise ZeroDivisionError("Smith John")
        return {"kidney_left": ((40.0, 0.0, 0.0), 1.0)}

    cohort = build_table(tmp_path / "cache", table, ONE, broken)["train"]
    assert cohort.cases[1]["rejected"] == "internal_error"
    assert "Smith" not in (tmp_path / "cache" / "rejects.csv").read_text()
    locate = _Locate()
    mended = build_table(tmp_path / "cache", table, ONE, locate)["train"]
    assert [scan.row for scan in locate.asked] == [3]
    assert "rejected" not in mended.cases[1]


def test_nothing_to_use_is_an_error(tmp_path: Path) -> None:
    small_scan(tmp_path / "a.nii.gz")
    table = open_table(_table(tmp_path, "a"))
    with pytest.raises(ConfigError, match=r"none of the 1 cases .*\(region_not_found\)"):
        build_table(tmp_path / "cache", table, ONE, _Locate(0.1))

    def unreadable(volume: Volume, scan: Scan) -> dict[str, tuple[tuple[float, float, float], float]]:
        raise InputError("bad_mask", "told")

    with pytest.raises(ConfigError, match=r"\(bad_mask\)"):
        build_table(tmp_path / "cache", table, ONE, unreadable, locate_key="2")
    with pytest.raises(ConfigError, match="nothing says where kidney_left lie"):
        build_table(tmp_path / "cache", table, ONE)
    centers = open_table(_table(tmp_path, "a", kidney_lefft_x_mm=1, kidney_lefft_y_mm=1, kidney_lefft_z_mm=1))
    with pytest.raises(ConfigError, match="did you mean 'kidney_left'"):
        build_table(tmp_path / "cache", centers, ONE)


@pytest.mark.data
@pytest.mark.slow
def test_a_real_abdomen_with_an_invented_report(shared_data: Path, tmp_path: Path) -> None:
    """A public portal venous abdomen: its liver and left kidney region come out in HU, whatever the folder holds besides."""
    study = shared_data / "dicom" / "abdomen_portal_venous_crlm1004"
    volume = load(study).chosen.read()  # type: ignore[union-attr]
    middle = volume.geometry.center_lps
    places = {f"kidney_left_{axis}_mm": float(c) for axis, c in zip("xyz", middle, strict=True)}
    rows = [{"patient_id": "one", "study": str(study), "report": REPORT, "split": "train", "phase": "venous", **places}]
    cohort = build_table(tmp_path / "cache", open_table(write_csv(tmp_path / "t.csv", rows)), ONE)["train"]
    assert cohort.covered[0, 0] == 1
    index = np.rint(volume.geometry.to_index(ONE.regions[0].geometry(middle).center_lps)).astype(int)
    around = tuple(slice(i - 4, i + 5) for i in index)
    assert abs(float(cohort.hu[0, 0, 3:5, 3:5, 3:5].mean()) - float(volume.hu[around].mean())) < 60
    assert json.loads(json.dumps(cohort.cases[0]["labels"]))["kidney_left"]["renal_mass"] == 1
