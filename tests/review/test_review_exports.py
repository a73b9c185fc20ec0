"""What leaves a results folder: labels, JSON, PDF and DICOM reports of what humans decided."""

import json
import shutil
import stat
import subprocess
from pathlib import Path

import highdicom as hd
import pandas as pd
import pydicom
import pytest
from finished import conforms
from reviewed import ANNA, BERT, CASE, CYST, MASS, STONE, save, signed, write

from medvl.errors import ConfigError, InputError
from medvl.review.corrections import COLUMNS, corrections
from medvl.review.desk import Reviews
from medvl.review.export import export, write_labels, write_log
from medvl.review.record import Person, ReviewError
from medvl.text.prompts import load_findings

EFFUSION = "pleural_effusion_left@chest"
EXOPHYTIC = "mass_exophytic@kidney_left"
RIGHT_CYST = "renal_cyst@kidney_right"
READERS = {
    "csv": lambda path: pd.read_csv(path, keep_default_na=False, dtype={"case_id": str, "reviewer": str}),
    "parquet": pd.read_parquet,
    "json": lambda path: pd.DataFrame(json.loads(path.read_text())),
}


@pytest.fixture
def decided(desk: Reviews) -> Reviews:
    """One signed study, and one with a decision that is not signed."""
    save(desk, MASS, "correct", presence="present", region="kidney_right", comment="Doe^Jane")
    save(desk, CYST, "accept")
    save(desk, STONE, "reject", BERT)
    save(desk, "added:1", "added", finding="hydronephrosis", label="Hydronephrosis", region="kidney_left")
    save(desk, "added:2", "added", label="Something of Jane Doe", region="kidney_left")
    signed(desk)
    write(desk.folder, "ffffffffffff")
    save(desk, MASS, "reject", case="ffffffffffff")
    return desk


def labels(table: pd.DataFrame) -> dict[tuple[str, str], str]:
    return {(row.finding, row.region): row.label for row in table.itertuples()}


def test_labels_say_what_was_decided_and_name_nobody(decided: Reviews) -> None:
    table = corrections(decided.folder)
    assert list(table.columns) == list(COLUMNS)
    assert labels(table) == {
        ("renal_mass", "kidney_left"): "absent",  # it was on the other side
        ("renal_mass", "kidney_right"): "present",
        ("stone", "kidney_left"): "present",
        ("hydronephrosis", "kidney_left"): "present",
    }  # the cyst stays undecided, and free words are no label
    assert set(table.case_id) == {CASE}
    assert set(table.source) == {"review"}
    assert set(table.results_sha256) == {decided.review(CASE).answers.sha256}
    assert set(table.bundle_sha256) == {"ab" * 32}
    assert table.signed.all()
    stone = table[table.finding == "stone"].iloc[0]
    assert (stone.choice, stone.model) == ("reject", "absent")
    assert pd.Timestamp(stone.decided_at).tz is not None
    people = set(table.reviewer)
    assert len(people) == 2
    assert all(len(name) == 12 and int(name, 16) >= 0 for name in people)
    assert "Jane" not in table.to_csv()
    assert "Roth" not in table.to_csv()


def test_unsigned_labels_on_wish_the_latest_counts(decided: Reviews) -> None:
    write(decided.folder, made_at="2027-01-01T00:00:00+00:00")
    save(decided, STONE, "accept")  # on the new answers, not signed
    assert len(corrections(decided.folder)) == 0  # signed was what the new answers replaced
    table = corrections(decided.folder, unsigned=True)
    assert labels(table[table.case_id == CASE])["stone", "kidney_left"] == "absent"
    assert labels(table[table.case_id == "ffffffffffff"]) == {("renal_mass", "kidney_left"): "absent"}


def test_a_place_that_was_decided_itself_outweighs_one_moved_there(desk: Reviews) -> None:
    save(desk, MASS, "correct", presence="present", region="kidney_right")
    save(desk, "added:1", "added", finding="renal_cyst", label="Renal cyst", region="kidney_left")
    save(desk, CYST, "correct", presence="present", region="kidney_left")
    assert labels(corrections(desk.folder, unsigned=True)) == {
        ("renal_cyst", "kidney_left"): "present",
        ("renal_cyst", "kidney_right"): "absent",
        ("renal_mass", "kidney_left"): "absent",
        ("renal_mass", "kidney_right"): "present",
    }


@pytest.mark.parametrize(("form", "read"), list(READERS.items()))
def test_labels_come_back_from_every_format(decided: Reviews, tmp_path: Path, form: str, read) -> None:
    out, table = tmp_path / "new" / "labels", corrections(decided.folder)
    write_labels(table, out, form)
    told = read(out)
    pd.testing.assert_frame_equal(told, table, check_dtype=False)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="no format yaml"):
        write_labels(table, out, "yaml")


def test_a_folder_nobody_reviewed_is_left_as_it_is(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ConfigError, match="nobody reviewed"):
        corrections(tmp_path)
    assert not (tmp_path / "reviews.sqlite").exists()


def test_json_says_all_of_it(decided: Reviews) -> None:
    told = json.loads(export(decided, CASE, "json", BERT))
    assert (told["schema"], told["status"], told["status_by"], told["undecided"]) == (
        "medvl.review/1", "signed", "Anna Roth", [])  # fmt: skip
    mass, cyst, stone = told["findings"]
    assert mass["model"] == {"verdict": "present", "score": 0.9}
    assert (mass["human"]["choice"], mass["human"]["region"], mass["human"]["comment"]) == ("correct", "kidney_right", "Doe^Jane")
    assert (cyst["human"]["presence"], stone["human"]["by"]) == ("undecided", "Bert Söll")
    assert [a["label"] for a in told["added"]] == ["Hydronephrosis", "Something of Jane Doe"]
    assert decided.events()[-1]["what"] == "exported"
    assert decided.events()[-1]["who"] == "Bert Söll"


def test_the_log_as_json_lines(decided: Reviews, tmp_path: Path) -> None:
    n = write_log(decided, tmp_path / "log.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert n == len(lines) == decided.verify().n_rows
    assert [line["number"] for line in lines] == list(range(1, n + 1))
    assert decided.verify().head == f"{n}:{lines[-1]['digest']}"


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext: install poppler-utils")
def test_pdf_says_who_decided_what(decided: Reviews, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(export(decided, CASE, "pdf", ANNA))
    assert export(decided, CASE, "pdf", ANNA) == (tmp_path / "a.pdf").read_bytes()
    shown = subprocess.run(["pdftotext", "-layout", tmp_path / "a.pdf", "-"], capture_output=True, text=True, check=True).stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "Renal mass right kidney Present Present corrected Anna Roth" in lines
    assert "Stone left kidney Absent Present rejected Bert Söll" in lines
    assert "Hydronephrosis left kidney - Present added Anna Roth" in lines
    assert any(line.startswith("SIGNED") for line in lines)
    assert any(line.startswith("Signed: Anna Roth (reviewer), 20") for line in lines)
    (tmp_path / "b.pdf").write_bytes(export(decided, "ffffffffffff", "pdf", ANNA))
    shown = subprocess.run(["pdftotext", "-layout", tmp_path / "b.pdf", "-"], capture_output=True, text=True, check=True).stdout
    assert "NOT SIGNED" in shown
    assert "1 decided, 1 that need a decision have none" in shown


@pytest.fixture
def signing(real: Path, tmp_path: Path) -> Reviews:
    """A real study, signed by somebody with an accent."""
    shutil.copytree(real, tmp_path / "results")
    desk = Reviews(tmp_path / "results")
    who = Person("Zoë Bär", "reviewer")
    save(desk, MASS, "correct", who, presence="present", region="kidney_right", comment="größer\nals 3 cm")
    save(desk, EXOPHYTIC, "accept", who)
    save(desk, RIGHT_CYST, "reject", who)
    save(desk, EFFUSION, "correct", who, presence="absent")
    save(desk, "added:1", "added", who, label="Hufeisenniere", region="kidney_left")
    signed(desk, who)
    return desk


def report(desk: Reviews, path: Path, **more) -> hd.sr.Comprehensive3DSR:
    findings = load_findings(Path(__file__).parents[2] / "configs" / "findings" / "phantom.yaml")
    path.write_bytes(export(desk, CASE, "sr", ANNA, findings=findings, **more))
    conforms(path)
    return hd.sr.srread(path)


def test_the_dicom_report_is_the_humans(signing: Reviews, tmp_path: Path) -> None:
    made = report(signing, tmp_path / "sr.dcm", organisation="Klinik Süd")
    assert (made.VerificationFlag, made.PreliminaryFlag, made.CompletionFlag) == ("VERIFIED", "FINAL", "COMPLETE")
    observer = made.VerifyingObserverSequence[0]
    assert (observer.VerifyingObserverName, observer.VerifyingOrganization) == ("Zoë Bär", "Klinik Süd")
    assert (str(made.PatientName), made.StudyInstanceUID) == ("Müller^Jörg", "1.2.3.4.0")
    persons = [i.PersonName for i in made.ContentSequence if i.ValueType == "PNAME"]
    assert persons == ["Zoë Bär"]
    theirs = pydicom.dcmread(signing.folder / "studies" / CASE / "dicom" / "sr.dcm")
    groups = {g.tracking_identifier: g for g in made.content.get_image_measurement_groups()}
    assert list(groups) == [MASS, EXOPHYTIC, RIGHT_CYST, EFFUSION, "added:1"]
    presence = hd.sr.CodedConcept("121052", "DCM", "Presence of property")
    said = [g.get_qualitative_evaluations(presence)[0].value.meaning for g in groups.values()]
    assert said == ["Present", "Presence Undetermined", "Absent", "Absent", "Present"]
    mass = groups[MASS]
    assert mass.finding_type == hd.sr.CodedConcept("309088003", "SCT", "Renal mass")
    assert mass.finding_sites[0].laterality.meaning == "Right"
    assert [i.TextValue for i in mass[0].ContentSequence if i.ValueType == "TEXT"][-1] == "größer\nals 3 cm"
    refers = [i.ReferencedSOPSequence[0] for i in mass[0].ContentSequence if i.ValueType == "COMPOSITE"]
    assert [r.ReferencedSOPInstanceUID for r in refers] == [theirs.SOPInstanceUID]
    assert theirs.SOPInstanceUID in {uid for _, _, uid, _ in made.get_evidence()}
    uids = {g.tracking_uid for g in hd.sr.srread(signing.folder / "studies" / CASE / "dicom" / "sr.dcm").content
            .get_planar_roi_measurement_groups()}  # fmt: skip
    assert mass.tracking_uid in uids
    assert (made.SeriesInstanceUID, made.SOPInstanceUID) != (theirs.SeriesInstanceUID, theirs.SOPInstanceUID)
    assert report(signing, tmp_path / "sr.dcm", organisation="Klinik Süd").SOPInstanceUID == made.SOPInstanceUID


def test_nothing_is_verified_without_the_right_to(signing: Reviews, tmp_path: Path) -> None:
    assert report(signing, tmp_path / "sr.dcm").VerificationFlag == "UNVERIFIED"
    now = signing.review(CASE)
    chief = Person("Chief", "admin")
    now = signing.unsign(CASE, chief, "again", expected_version=now.version, results=now.answers.sha256)
    with pytest.raises(ReviewError, match="only what is signed"):
        export(signing, CASE, "sr", ANNA)
    signed(signing, chief)
    made = report(signing, tmp_path / "sr.dcm", organisation="Clinic")
    assert made.VerificationFlag == "UNVERIFIED"
    assert "VerifyingObserverSequence" not in made


def test_without_the_softwares_report_or_the_images(signing: Reviews, tmp_path: Path) -> None:
    (signing.folder / "studies" / CASE / "dicom" / "sr.dcm").unlink()
    made = report(signing, tmp_path / "sr.dcm")
    assert not [
        i for g in made.content.get_image_measurement_groups() for i in g[0].ContentSequence if i.ValueType == "COMPOSITE"
    ]
    (signing.folder / "sources.json").unlink()
    n = len(signing.events())
    with pytest.raises(InputError, match="source_gone"):
        export(signing, CASE, "sr", ANNA)
    with pytest.raises(ConfigError, match="no export docx"):
        export(signing, CASE, "docx", ANNA)
    assert len(signing.events()) == n  # what was not made was not exported
