"""The patient's age: as tagged, else between birth and study, else not known. Never among the facts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvl.dicom.age import BIRTH_DATE, PATIENT_AGE, STUDY_DATE, age_years
from medvl.geometry import Geometry
from medvl.imaging.load import load
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.sample import sample_patient
from medvl.records import Volume


@pytest.mark.parametrize(
    ("age", "born", "seen", "expected"),
    [
        ("062Y", "", "", 62.0),
        ("62y ", "", "", 62.0),
        ("018M", "", "", 1.5),
        ("026W", "", "", 0.498),
        ("010D", "", "", 0.027),
        ("062Y", "19000101", "20240101", 62.0),
        ("", "19600229", "20240301", 64.003),
        ("unknown", "19600101", "20240101", 64.0),
        ("", "20240101", "19600101", None),
        ("", "18000101", "20240101", None),
        ("", "19601332", "20240101", None),
        ("", "1960", "20240101", None),
        ("999Y", "", "", None),
        ("", "", "", None),
    ],
)
def test_as_the_header_tells_it(age: str, born: str, seen: str, expected: float | None) -> None:
    values = {PATIENT_AGE: age.encode(), BIRTH_DATE: born.encode(), STUDY_DATE: seen.encode()}
    assert age_years(values) == (None if expected is None else pytest.approx(expected, abs=0.002))


@pytest.mark.parametrize("syntax", ["explicit", "jpegls"])
def test_a_series_tells_it_but_its_facts_and_printed_form_do_not(syntax: Any, tmp_path: Path) -> None:
    who = sample_patient(21, 3)
    grid = Geometry.centered((0, 0, 0), (8, 24, 24), (5, 5, 5))
    write_dicom(Volume(np.full((8, 24, 24), 40, np.int16), grid), who, tmp_path, syntax=syntax)
    (study,) = load(tmp_path)
    entry = study.entries[0]
    assert entry.age_years == int(who.age_years)
    assert not {"age", "age_years", "PatientAge"} & set(entry.facts)
    assert f"{int(who.age_years):03d}Y" not in repr(entry)
