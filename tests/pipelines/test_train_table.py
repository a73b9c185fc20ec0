"""From studies and reports in a table to a bundle that answers, through the commands themselves."""

import csv
import json
from pathlib import Path

import pytest
from shrunk import command, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def written(cohort: Path, medvl: str) -> Path:
    """Ten phantoms as DICOM, and a table of them as docs/how-to/train-on-your-own-table.md describes it."""
    made = run([medvl, "phantom", "--out", str(cohort), "--n", "10", "--seed", "5"])
    assert made.returncode == 0, made.stderr
    with (cohort / "manifest.csv").open(encoding="utf-8") as file:
        patients = list(csv.DictReader(file))
    with (cohort / "table.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, ("patient_id", "study", "report_file", "split", "age_years", "time_days", "event"))
        rows.writeheader()
        for number, patient in enumerate(patients):
            told = {name: patient[name] for name in ("patient_id", "age_years", "time_days", "event")}
            split = "train" if number < 6 else "validation"
            rows.writerow({**told, "study": patient["dicom"], "report_file": patient["report"], "split": split})
    return cohort / "table.csv"


def test_a_table_trains_a_bundle_that_infers(tmp_path: Path) -> None:
    medvl = command("cardiac-clip-small", tmp_path)[0]
    table = written(tmp_path / "cohort", medvl)
    words = command("cardiac-clip-small", tmp_path / "run", "--table", str(table))
    trained = run(words)
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert "estimates no survival: fewer than 10 events" in trained.stdout
    bundle = tmp_path / "run" / "bundle"
    assert run([medvl, "bundles", "verify", str(bundle)]).returncode == 0

    study = next((tmp_path / "cohort").glob("dicom/*"))
    answered = run([medvl, "infer", str(study), "-b", str(bundle), "-o", str(tmp_path / "answers"), "--device", "cpu"])
    assert answered.returncode == 0, answered.stderr
    record = json.loads(next((tmp_path / "answers").glob("studies/*/findings.json")).read_text(encoding="utf-8"))
    assert record["risk"] is None

    before = (bundle / "bundle.json").stat().st_mtime_ns
    assert run(words).returncode == 0
    assert (bundle / "bundle.json").stat().st_mtime_ns == before
