"""Identifiers planted in headers, columns, paths and reports are nowhere in the dataset folder, nor in what is printed."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dataset_files import dicom, write_csv

from medvl.dataset.scrub import scrub
from medvl.text.labels import extract
from medvl.text.report import parse_report
from medvl_pipelines.ingest import run

UID = "1.2.826.0.1.3680043.77.4242"
TAGS: dict[str, Any] = {
    "PatientName": "Zwetkova^Olga",
    "PatientID": "HOSP-77123",
    "PatientBirthDate": "19470318",
    "AccessionNumber": "ACC5550123",
    "ReferringPhysicianName": "Quistgaard^Per",
    "InstitutionName": "Saint Elsewhere",
    "StudyDate": "20210304",
    "StudyID": "SID9911",
}
REPORT = (
    "Patient: Olga ZWETKOVA, born 18.03.1947, HOSP-77123, accession ACC5550123, exam of 4 March 2021 at 14:32.\n"
    "Referring physician: Dr. Per Quistgaard, Saint Elsewhere, tel. 030 4567-891. Comparison: 2020-11-30.\n"
    "FINDINGS: There is a 3.1 cm solid mass in the upper pole of the left kidney. The right kidney is normal.\n"
    "Mrs Zwetkova's daughter was informed. Signed by: Hannelore Bruckmüller. Mailed to o.zwetkova@example.org. Row id MRX887766."
)
PLANTED = (
    *("Zwetkova", "Olga", "77123", "19470318", "18.03.1947", "1947-03-18", "ACC5550123", "5550123", "Quistgaard", "Elsewhere"),
    *(
        "SID9911",
        "20210304",
        "4 March",
        "2021-03",
        "030 4567",
        "2020-11",
        "Bruckm",
        "example.org",
        "887766",
        UID,
        "olga-z",
        "Hohenstein",
    ),
)


def _everything(folder: Path) -> bytes:
    """All bytes of a folder and its names, tables unpacked."""
    found = b""
    for path in folder.rglob("*"):
        found += path.relative_to(folder).as_posix().encode()
        if path.is_file():
            found += path.read_bytes()
        if path.suffix == ".parquet":
            found += pd.read_parquet(path).to_csv().encode()
    return found


def test_planted_identifiers_are_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "olga-zwetkova"
    dicom(source / "study", 1, UID, **TAGS)
    (source / "olga-z.txt").write_text(REPORT, encoding="utf-8")
    (source / "bad").mkdir()
    rows = [
        {"MRN": "HOSP-77123", "study": "study", "report": "olga-z.txt", "name": "Zwetkova, Olga", "acc": "ACC5550123",
         "date of birth": "18.03.1947", "study_date": "2021-03-04", "last_follow_up": "2022-03-04", "row_id": "MRX887766"},
        {"MRN": "HOSP-77124 Zwetkova", "study": "bad", "report": "Hohenstein, dictated by Hohenstein", "name": "Hohenstein"},
        {"MRN": "HOSP-77125", "study": "olga-z.zip", "report": "Zwetkova", "acc": "ACC5550123"},
    ]  # fmt: skip
    out = tmp_path / "dataset"
    assert run(write_csv(source / "manifest.csv", rows), out, identifiers=("row_id",), workers=1) == 3
    printed = "".join(capfd.readouterr())
    everything = _everything(out).decode("latin-1")
    text = pd.read_parquet(out / "cases.parquet").at[0, "report"]
    for planted in PLANTED:
        assert planted.lower() not in everything.lower(), planted
        assert planted.lower() not in printed.lower(), planted
    assert "3.1 cm solid mass in the upper pole of the left kidney" in text
    assert extract(parse_report(text)) == extract(parse_report(REPORT))
    assert (out / "key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("text", "identity", "clean"),
    [
        ("Seen by Dr. A. Hart-Lee on 3/4/2021.", (), "Seen by [NAME] on [DATE]."),
        ("Call +49 30 1234567 or 555-123-4567.", (), "Call [PHONE] or [PHONE]."),
        ("Series 4:32, 3.1 x 2.5 x 2.2 cm, T12, grade 2/4.", (), "Series 4:32, 3.1 x 2.5 x 2.2 cm, T12, grade 2/4."),
        ("Stone in the left kidney. Mr Stone agrees.", ("Stone^Eve",), "Stone in the left kidney. [NAME] agrees."),
        ("SMITH, John: normal. Smith's kidney.", ("Smith^John",), "[NAME]: normal. [NAME] kidney."),
        ("A 94-year-old and a 64-year-old.", (), "A [AGE]-year-old and a 64-year-old."),
        ("Born 1/2/1950, 1.2.50 or 1950-02-01.", ("1950-02-01",), "Born [DATE], [DATE] or [DATE]."),
        ("Compared with May 2019.", (), "Compared with [DATE]."),
    ],
)
def test_what_identifies_goes_and_what_is_medical_stays(text: str, identity: tuple[str, ...], clean: str) -> None:
    assert scrub(text, identity)[0] == clean
