"""A dataset from a manifest: whole, the same however it was made, free of identifiers, and good for training."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dataset_files import MASS, NORMAL, body, dicom, lines_of, made, nifti, some, write_csv

from medvl.data.table import open_table
from medvl.data.table_cohort import build_table
from medvl.dataset import open_dataset, open_studies
from medvl.errors import ConfigError
from medvl.imaging.preprocess import Contract, RegionSpec
from medvl.imaging.volume_file import read_volume

CONTRACT = Contract((RegionSpec("kidney_left", (8, 8, 8), (6.0, 6.0, 6.0), ((-150.0, 250.0),)),))


def test_every_scan_is_kept_voxel_for_voxel_with_its_facts(tmp_path: Path) -> None:
    dicom(tmp_path / "a", 1)
    nifti(tmp_path / "b.nii.gz", 2)
    rows = [
        {"patient_id": "A", "study": "a", "report": MASS, "age": "61,5", "gender": "w", "time_days": 40, "event": 1},
        {"patient_id": "B", "study": "b.nii.gz", "report": NORMAL, "phase": "venous", "bmi": "24.5"},
    ]
    dataset = made(write_csv(tmp_path / "m.csv", rows), tmp_path / "d", card=True).dataset
    frame = dataset.rows.set_index("row")
    for number, seed in ((2, 1), (3, 2)):
        volume = read_volume(dataset.folder / frame.at[number, "study"])
        np.testing.assert_array_equal(volume.hu, body(seed))
        assert volume.geometry.spacing_mm == pytest.approx((4, 4, 4))
    assert frame.loc[2, ["manufacturer", "kernel", "kvp", "slice_thickness_mm", "sex", "age_years"]].tolist() == [
        "Maker",
        "B30f",
        120,
        4,
        "F",
        61.5,
    ]
    assert (frame.at[2, "time_days"], frame.at[2, "event"], frame.at[3, "phase"]) == (40, True, "portal_venous")
    assert frame.at[3, "clinical:bmi"] == 24.5
    facts = json.loads((dataset.folder / "dataset.json").read_text(encoding="utf-8"))
    assert (facts["summary"]["patients"], facts["rows"]) == (2, {"manifest": 2, "used": 2, "left_out": {}})
    card = (dataset.folder / "card.html").read_text(encoding="utf-8")
    assert "2 patients with 2 CT scans" in card
    assert "data:image/svg" in card


def test_training_gets_the_same_crops_from_the_dataset_as_from_the_table(tmp_path: Path) -> None:
    centers = {"kidney_left_x_mm": 10, "kidney_left_y_mm": -5, "kidney_left_z_mm": 4}
    manifest = some(tmp_path, 3, split="train", **centers)
    dataset = made(manifest, tmp_path / "d").dataset
    direct = build_table(tmp_path / "c1", open_table(manifest), CONTRACT)["train"]
    cached = build_table(tmp_path / "c2", open_studies(dataset.folder), CONTRACT)["train"]
    np.testing.assert_array_equal(direct.hu, cached.hu)
    assert [c["labels"] for c in direct.cases] == [c["labels"] for c in cached.cases]
    assert cached.hu.std() > 10


def test_given_labels_and_facts_reach_the_cohort(tmp_path: Path) -> None:
    centers = {"kidney_left_x_mm": 0, "kidney_left_y_mm": 0, "kidney_left_z_mm": 0}
    given = {"label_renal_mass@kidney_left": 0, "label_renal_stone@kidney_left": "yes", "label_pericardial_effusion": "uncertain"}
    manifest = some(tmp_path, 1, split="train", site="North", sex="F", phase="arterial", **centers, **given)
    dataset = made(manifest, tmp_path / "d").dataset
    (case,) = build_table(tmp_path / "c", dataset.table(), CONTRACT)["train"].cases
    left = case["labels"]["kidney_left"]
    assert (left["renal_mass"], left["mass_size_mm"], left["mass_large"], left["mass_pole"]) == (0, None, -1, None)
    assert (left["renal_stone"], case["labels"]["chest"]["pericardial_effusion"]) == (1, 2)
    assert case["labels"]["kidney_right"]["renal_mass"] == 0
    assert case["label_sources"]["kidney_left"] == {"renal_mass": "csv", "renal_stone": "csv"}
    assert {k: case["truth"][k] for k in ("site", "sex", "phase")} == {"site": "North", "sex": "F", "phase": "arterial"}


def test_bad_rows_and_studies_are_listed_and_stop_nothing(tmp_path: Path) -> None:
    manifest = some(tmp_path, 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "note.txt").write_text("nothing")
    rows = lines_of(manifest)
    rows += [
        {"patient_id": "P7", "study": "empty", "report": MASS},
        {"patient_id": "P8", "study": "gone", "report": MASS},
        {"patient_id": "", "study": "s0.nii.gz", "report": MASS},
        {"patient_id": "P9", "study": "s1.nii.gz", "report": MASS, "age": "old"},
    ]
    result = made(write_csv(manifest, rows), tmp_path / "d")
    lines = lines_of(tmp_path / "d" / "rejects.csv")
    found = [(line["row"], line["used"], line["code"]) for line in lines]
    assert found == [
        ("4", "0", "no_volume"),
        ("5", "0", "not_found"),
        ("6", "0", "bad_row"),
        ("7", "1", "bad_cell"),
        ("7", "0", "repeated_study"),
    ]
    assert len(result.dataset.rows) == 2


def test_the_hash_tells_the_data_and_nothing_else(tmp_path: Path) -> None:
    manifest = some(tmp_path / "one")
    first = made(manifest, tmp_path / "d1").dataset
    assert made(manifest, tmp_path / "d2").dataset.sha256 == first.sha256
    lines = manifest.read_text(encoding="utf-8").splitlines()
    manifest.write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n", encoding="utf-8")
    other = made(manifest, tmp_path / "d3").dataset
    assert other.sha256 == first.sha256
    assert set(other.rows["case_id"]).isdisjoint(first.rows["case_id"])
    manifest.write_text("\n".join(lines).replace("3.1 cm", "3.2 cm") + "\n", encoding="utf-8")
    assert made(manifest, tmp_path / "d4").dataset.sha256 != first.sha256
    manifest.write_text("\n".join(lines).replace("P3,", "P1,") + "\n", encoding="utf-8")
    assert made(manifest, tmp_path / "d5").dataset.sha256 != first.sha256


def test_a_second_run_takes_over_what_is_done_and_makes_what_changed(tmp_path: Path) -> None:
    manifest = some(tmp_path)
    first = made(manifest, tmp_path / "d")
    again = made(manifest, tmp_path / "d")
    assert (first.n_known, again.n_known) == (0, 4)
    assert again.dataset.sha256 == first.dataset.sha256
    case = first.dataset.rows.set_index("row").loc[3]
    volume = tmp_path / "d" / case["study"]
    volume.write_bytes(volume.read_bytes()[:-100])
    nifti(tmp_path / "s0.nii.gz", 99)
    third = made(manifest, tmp_path / "d")
    assert third.n_known == 2
    assert third.dataset.sha256 != first.dataset.sha256
    np.testing.assert_array_equal(read_volume(volume).hu, body(1))


def test_a_row_that_leaves_the_manifest_leaves_the_folder(tmp_path: Path) -> None:
    manifest = some(tmp_path)
    made(manifest, tmp_path / "d")
    lines = manifest.read_text(encoding="utf-8").splitlines()
    manifest.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    dataset = made(manifest, tmp_path / "d").dataset
    assert len(dataset.rows) == len(list((tmp_path / "d" / "volumes").iterdir())) == 3
    assert len(list((tmp_path / "d" / "journal").glob("*.json"))) == 3


@pytest.mark.slow
def test_worker_processes_give_the_same_data(tmp_path: Path) -> None:
    manifest = some(tmp_path, 3)
    here = made(manifest, tmp_path / "d0").dataset
    assert made(manifest, tmp_path / "d2", workers=2).dataset.sha256 == here.sha256


def test_splits_that_part_one_patient_are_refused_joined_or_allowed(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii.gz", 1)
    nifti(tmp_path / "copy.nii.gz", 1)
    nifti(tmp_path / "b.nii.gz", 2)
    rows = [
        {"patient_id": "A", "study": "a.nii.gz", "report": MASS, "split": "train"},
        {"patient_id": "A2", "study": "copy.nii.gz", "report": NORMAL, "split": "test"},
        {"patient_id": "B", "study": "b.nii.gz", "report": NORMAL, "split": "train"},
    ]
    manifest = write_csv(tmp_path / "m.csv", rows)
    dataset = made(manifest, tmp_path / "d").dataset
    with pytest.raises(ConfigError, match=r"1 pairs of cases in different splits.*--join-leaks"):
        dataset.table()
    (line,) = lines_of(tmp_path / "d" / "leaks.csv")
    assert (line["kind"], line["likeness"], line["state"]) == ("image", "1.0", "open")
    assert len(dataset.table(allow_leaks=True).of("train")) == 2
    assert len(made(manifest, tmp_path / "d", policy="allow").dataset.table().of("train")) == 2
    joined = made(manifest, tmp_path / "d", policy="join").dataset
    assert [len(joined.table().of(s)) for s in ("train", "test")] == [1, 2]


def test_an_unfinished_or_foreign_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no finished dataset"):
        open_dataset(tmp_path)
    made(some(tmp_path, 1), tmp_path / "d")
    facts = tmp_path / "d" / "dataset.json"
    facts.write_text(facts.read_text(encoding="utf-8").replace("medvl.dataset/1", "medvl.dataset/9"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"medvl\.dataset/9"):
        open_dataset(tmp_path / "d")


def test_two_phases_of_one_report_are_one_case(tmp_path: Path) -> None:
    for k, phase in enumerate(("arterial", "venous")):
        nifti(tmp_path / f"{phase}.nii.gz", k)
    rows = [{"patient_id": "A", "study": f"{p}.nii.gz", "report": MASS, "phase": p} for p in ("arterial", "venous")]
    (case,) = made(write_csv(tmp_path / "m.csv", rows), tmp_path / "d").dataset.table().cases
    assert [scan.phase for scan in case.scans] == ["arterial", "portal_venous"]


def test_rows_of_the_dataset_are_plain_columns(tmp_path: Path) -> None:
    rows = made(some(tmp_path, 2, label_renal_cyst="0"), tmp_path / "d").dataset.rows
    assert rows["label:renal_cyst@kidney_left"].tolist() == [0, 0]
    assert rows["source:renal_cyst@kidney_right"].tolist() == ["csv", "csv"]
    assert rows["time_days"].isna().all()
    assert isinstance(rows, pd.DataFrame)
