"""A table is checked as a whole before any work; what is wrong is told by row and column, and never by content."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from table_files import REPORT, write_csv

from medvl.data.identity import folder_key, keyed_id
from medvl.data.table import open_table
from medvl.errors import ConfigError
from medvl.imaging.phantom.write import split_of

SECRET = "Smith^John 1961"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("s1", "s2", "s3", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "r.txt").write_text(REPORT, encoding="utf-8")
    return tmp_path


def _row(study: str = "s1", **values: Any) -> dict[str, Any]:
    return {"patient_id": SECRET, "study": study, "report": REPORT, **values}


def _fails(folder: Path, rows: list[Mapping[str, Any]]) -> str:
    with pytest.raises(ConfigError) as caught:
        open_table(write_csv(folder / "t.csv", rows))
    text = str(caught.value)
    for hidden in (SECRET, "Smith", "solid mass", str(folder)):
        assert hidden not in text
    return text


def test_every_column_is_read(folder: Path) -> None:
    row = _row(
        "s2",
        split="Val",
        age_years="61.5",
        time_days="400",
        event="1",
        phase="Non-contrast",
        masks="masks",
        kidney_left_x_mm="50",
        kidney_left_y_mm="-3.5",
        kidney_left_z_mm="1e2",
        hospital="north, wing",
    )
    table = open_table(write_csv(folder / "t.csv", [row]))
    assert table.center_regions == ("kidney_left",)
    (case,) = table.of("validation")
    assert (case.patient_id, case.report, case.age_years, case.time_days, case.event) == (SECRET, REPORT.strip(), 61.5, 400, True)
    (scan,) = case.scans
    assert (scan.row, scan.study, scan.phase, scan.masks) == (2, folder / "s2", "noncontrast", folder / "masks")
    assert scan.centers == {"kidney_left": (50.0, -3.5, 100.0)}
    assert SECRET not in repr(table) + repr(case) and "mass" not in repr(case)


def test_reports_may_be_files_and_cells_of_several_lines(folder: Path) -> None:
    rows = [_row(report="", report_file="r.txt"), _row("s2", report="FINDINGS: one\nIMPRESSION: two", report_file="")]
    table = open_table(write_csv(folder / "t.csv", rows))
    assert [case.report for case in table.cases] == [REPORT, "FINDINGS: one\nIMPRESSION: two"]


def test_parquet_reads_as_csv_does(folder: Path) -> None:
    rows = [
        {"patient_id": 7, "study": "s1", "report": REPORT, "age_years": 60.0, "time_days": None, "event": None},
        {"patient_id": 8, "study": "s2", "report": REPORT, "age_years": None, "time_days": 12.0, "event": True},
    ]
    frame = pd.DataFrame(rows)
    frame.to_parquet(folder / "t.parquet")
    frame.to_csv(folder / "t.csv", index=False)
    assert open_table(folder / "t.parquet") == open_table(folder / "t.csv")
    assert [c.event for c in open_table(folder / "t.parquet").cases] == [None, True]
    (folder / "bad.parquet").write_text("no")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        open_table(folder / "bad.parquet")


def test_splits_come_from_the_table_then_the_patients_other_rows_then_a_hash(folder: Path) -> None:
    rows = [
        _row("s1", split=""),
        _row("s2", split="test", report="FINDINGS: later"),
        {**_row("s3"), "patient_id": "B", "split": ""},
    ]
    table = open_table(write_csv(folder / "t.csv", rows))
    assert [case.split for case in table.cases] == ["test", "test", split_of(0, "B")]
    other = next(seed for seed in range(50) if split_of(seed, "B") != split_of(0, "B"))
    assert open_table(folder / "t.csv", split_seed=other).cases[2].split == split_of(other, "B")


def test_one_patient_in_two_splits_is_refused(folder: Path) -> None:
    text = _fails(folder, [_row("s1", split="train"), _row("s2", split="test")])
    assert "rows 2 and 3: the same patient is in two splits (train and test)" in text


def test_phases_of_one_report_become_one_case_and_repeated_exams_do_not(folder: Path) -> None:
    rows = [
        _row("s1", phase="arterial"),
        _row("s2", phase="venous"),
        _row("s3", phase="arterial"),
        _row("s2", phase="delayed", report="FINDINGS: other"),
    ]
    cases = open_table(write_csv(folder / "t.csv", rows)).cases
    assert [[s.row for s in case.scans] for case in cases] == [[2, 3], [4], [5]]
    assert [s.phase for s in cases[0].scans] == ["arterial", "portal_venous"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"study": "s9"}, "row 2, column 'study': there is no such file or folder"),
        ({"study": ""}, "row 2, column 'study': is empty"),
        ({"patient_id": " "}, "row 2, column 'patient_id': is empty"),
        ({"report": " "}, "row 2, column 'report': is empty"),
        ({"report": "", "report_file": "x.txt"}, "row 2, column 'report_file': there is no such file"),
        ({"report": "", "report_file": ""}, "row 2, column 'report_file': is empty"),
        ({"split": "trian"}, "must be one of train, validation, test; did you mean 'train'?"),
        ({"phase": "arteriel"}, "did you mean 'arterial'?"),
        ({"masks": "r.txt"}, "row 2, column 'masks': there is no such folder"),
        ({"age_years": "Smith"}, "row 2, column 'age_years': needs a number from 0 to 130"),
        ({"age_years": "nan"}, "row 2, column 'age_years': needs a number from 0 to 130"),
        ({"time_days": "-1", "event": "1"}, "row 2, column 'time_days': needs a number"),
        ({"time_days": "5", "event": "dead"}, "row 2, column 'event': must be 0 or 1"),
        ({"time_days": "5"}, "give both or neither"),
        ({"event": "0"}, "give both or neither"),
        ({"heart_x_mm": "5", "heart_y_mm": "", "heart_z_mm": "1"}, "a centre needs x, y and z"),
        ({"heart_x_mm": "5", "heart_y_mm": "2"}, "add the column 'heart_z_mm'"),
        ({"spilt": "train"}, "a column 'spilt' that is not known; did you mean 'split'?"),
    ],
)
def test_faults_are_told_by_row_and_column(folder: Path, row: dict[str, str], message: str) -> None:
    assert message in _fails(folder, [{**_row(), **row}])


def test_columns_that_are_missing_name_the_nearest(folder: Path) -> None:
    row = _row()
    assert "no column 'study'; is it 'studies'? Rename it" in _fails(folder, [{"studies": row.pop("study"), **row}])
    assert "no column 'report'; add it" in _fails(folder, [{"patient_id": SECRET, "study": "s1"}])


def test_all_faults_are_told_at_once_up_to_ten(folder: Path) -> None:
    text = _fails(folder, [_row("s9", age_years="x") for _ in range(6)])
    assert "the table has 12 faults" in text
    assert text.count("\nrow ") == 10
    assert "... and 2 more" in text


def test_the_same_study_twice_is_refused(folder: Path) -> None:
    assert "rows 2 and 3: the same study twice" in _fails(folder, [_row(), _row()])


def test_files_that_are_no_tables_are_refused(folder: Path) -> None:
    cases = {
        "semicolons.csv": (b"patient_id;study\n1;2\n", "semicolons"),
        "twice.csv": (b"study,study\n1,2\n", "columns twice"),
        "nameless.csv": (b"study,\n1,2\n", "without a name"),
        "ragged.csv": (b"patient_id,study,report\n1,s1,left, right\n", "row 2 of the table has 4 cells, the header 3"),
        "latin.csv": ("patient_id,study,report\nJos\u00e9,s1,x\n".encode("latin-1"), "UTF-8"),
        "empty.csv": (b"", "no rows"),
        "head.csv": (b"patient_id,study,report\n,,\n", "no rows"),
        "sheet.xlsx": (b"PK", "give a .csv or .parquet"),
    }
    for name, (content, message) in cases.items():
        (folder / name).write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            open_table(folder / name)
    with pytest.raises(ConfigError, match="is not there"):
        open_table(folder / "none.csv")


def test_keys_are_private_and_ids_cannot_be_had_without_them(tmp_path: Path) -> None:
    key = folder_key(tmp_path / "a" / "key")
    assert folder_key(tmp_path / "a" / "key") == key
    assert len(key) == 32 and (tmp_path / "a" / "key").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "a") == ["key"]  # noqa: PTH208
    other = folder_key(tmp_path / "b" / "key")
    ids = {keyed_id(k, text) for k in (key, other) for text in ("1", "2")}
    assert len(ids) == 4 and all(len(i) == 12 and int(i, 16) >= 0 for i in ids)
