"""Spreadsheets as hospitals export them are read for what they say, and every cell that cannot be is told by row and column."""

import datetime
from pathlib import Path
from typing import Any

import pytest
from dataset_files import read, write_csv

from medvl.dataset import cells
from medvl.dataset.manifest import Row
from medvl.dataset.sheet import read_sheet
from medvl.errors import ConfigError

HEAD = "Patient;Pfad;Befund;Alter\n"


@pytest.fixture(autouse=True)
def scan(tmp_path: Path) -> None:
    for name in ("s1", "s2", "s3"):
        (tmp_path / name).mkdir()


@pytest.mark.parametrize(
    ("data", "note"),
    [
        ((HEAD + 'P1;s1;"Niere; groß";61,5\n').encode("cp1252"), "Windows-1252"),
        (("\ufeff" + HEAD + 'P1;s1;"Niere; groß";61,5;;\n;;;\n').encode(), "semicolons"),
        (("sep=;\n" + HEAD + 'P1;s1;"Niere; groß";61,5\n').encode(), "semicolons"),
        ((HEAD + '"=""P1""";s1;"Niere; groß";61,5\n').encode(), 'written ="..."'),
        ((HEAD + 'P1;s1;"Niere; groß";61,5\n').replace(";", "\t").replace("Niere\t", "Niere;").encode("utf-16"), "UTF-16"),
    ],
)
def test_exports_of_spreadsheets_are_read(tmp_path: Path, data: bytes, note: str) -> None:
    (tmp_path / "m.csv").write_bytes(data)
    found = read(tmp_path / "m.csv")
    (row,) = found.rows
    assert (row.patient, row.study, row.report, row.age_years) == ("P1", "s1", "Niere; groß", 61.5)
    assert any(note in line for line in found.notes)


def test_words_for_nothing_are_nothing(tmp_path: Path) -> None:
    rows = [{"patient_id": "P1", "study": "s1", "report": "#N/A", "age": "NULL", "event": "n/a", "sex": "-"}]
    (row,) = read(write_csv(tmp_path / "m.csv", rows)).rows
    assert (row.report, row.age_years, row.event, row.sex) == ("", None, None, "")


def test_a_workbook_and_a_broken_row_are_told(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(ConfigError, match="CSV UTF-8"):
        read_sheet(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("patient_id,study\nP1,s1,loose\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="row 2 has more cells"):
        read_sheet(tmp_path / "m.csv")


def _one(tmp_path: Path, **cells_: Any) -> Row:
    return read(write_csv(tmp_path / "m.csv", [{"patient_id": "P1", "study": "s1", **cells_}])).rows[0]


def test_follow_up_comes_from_dates_or_units(tmp_path: Path) -> None:
    dates = {"scan_date": "04.03.2021", "last_follow_up": "2022-03-04", "death_date": ""}
    assert (_one(tmp_path, **dates).time_days, _one(tmp_path, **dates).event) == (365, False)
    died = _one(tmp_path, scan_date="20210304", last_follow_up="20210401", death_date="20210314")
    assert (died.time_days, died.event) == (10, True)
    assert _one(tmp_path, os_months="12", status="dead").time_days == pytest.approx(365.25)
    assert (_one(tmp_path, time_days="5", event="alive").event, _one(tmp_path, time_days="5", event="").time_days) == (
        False,
        None,
    )
    assert _one(tmp_path, scan_date="44259", dob="1960-03-04").age_years == pytest.approx(61, abs=0.1)


def test_days_and_months_are_told_apart_by_the_column(tmp_path: Path) -> None:
    rows = [
        {"patient_id": f"P{k}", "study": f"s{k}", "scan_date": d, "last_follow_up": "2022-01-01"}
        for k, d in ((1, "03/04/2021"), (2, "13/04/2021"))
    ]
    found = read(write_csv(tmp_path / "m.csv", rows))
    expected = [(datetime.date(2022, 1, 1) - datetime.date(2021, 4, d)).days for d in (3, 13)]
    assert [row.time_days for row in found.rows] == expected
    rows[1]["scan_date"] = "05/06/2021"
    with pytest.raises(ConfigError, match="--dates dmy or --dates mdy"):
        read(write_csv(tmp_path / "m.csv", rows))
    assert read(tmp_path / "m.csv", dates="mdy").rows[0].time_days == (datetime.date(2022, 1, 1) - datetime.date(2021, 3, 4)).days


@pytest.mark.parametrize(
    ("cells_", "code", "message"),
    [
        ({"patient_id": ""}, "bad_row", "column 'patient_id': is empty"),
        ({"patient_id": "1.23E+15"}, "bad_row", "shortened"),
        ({"study": "s9"}, "not_found", "no such file or folder"),
        ({"study": "1.2.840.5.7"}, "bad_row", "--dicomweb"),
        ({"report": "r.txt"}, "bad_report", "no such report file"),
        ({"split": "trian"}, "bad_cell", "did you mean 'train'?"),
        ({"age": "-3"}, "bad_cell", "from 0 to 130"),
        ({"label_renal_mass": "perhaps so"}, "bad_label", "0 or 1"),
        ({"scan_date": "2021-01-05", "last_seen_date": "2021-01-01"}, "bad_outcome", "ends before it begins"),
        ({"time_days": "7", "event": ""}, "bad_outcome", "go together"),
    ],
)
def test_faults_are_told_by_row_and_column_and_not_by_content(
    tmp_path: Path, cells_: dict[str, str], code: str, message: str
) -> None:
    good = {"patient_id": "P1", "study": "s1"}
    found = read(write_csv(tmp_path / "m.csv", [good, {"patient_id": "Secret", "study": "s2", **cells_}]))
    (issue,) = found.issues
    assert (issue.row, issue.code) == (3, code)
    assert message in issue.message
    assert "Secret" not in issue.message
    assert len(found.rows) == (1 if issue.fatal else 2)


def test_free_text_is_no_covariate(tmp_path: Path) -> None:
    rows = [
        {
            "patient_id": "P1",
            "study": "s1",
            "clinical_stage": "II",
            "clinical_note": "a long note that may name anybody at all here",
        }
    ]
    found = read(write_csv(tmp_path / "m.csv", rows))
    assert found.rows[0].clinical == {"stage": "II"}
    assert any("free text" in note for note in found.notes)


def test_words_of_cells() -> None:
    assert [cells.label(t) for t in ("Yes", "absent", "uncertain", "vorhanden", "often")] == [1, 0, 2, 1, None]
    assert [cells.phase(t) for t in ("PV", "Non-contrast", "arterial phase", "odd")] == [
        "portal_venous",
        "noncontrast",
        "arterial",
        None,
    ]
    assert [cells.split(t) for t in ("Training", "val", "hold-out")] == ["train", "validation", "test"]
    assert [cells.sex(t) for t in ("weiblich", "M", "1", "x")] == ["F", "M", "M", None]
    assert cells.date("31.02.2021") is None
