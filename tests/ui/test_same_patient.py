"""The same patient is known again from a hospital's spreadsheet to the page, by links under one key and by nothing else."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dataset_files import MASS, NORMAL, write_csv
from evidence_studies import pane, readings, said
from tiny import Tiny, patient, scan_of

from medvl.data.identity import folder_key
from medvl.data.person import person_of
from medvl.dataset import open_dataset, open_studies
from medvl.errors import ConfigError, InputError
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.volume_file import read_volume
from medvl.retrieval.people import people_of, person_in
from medvl.retrieval.store import Index
from medvl_pipelines import embed, index, infer, ingest
from medvl_pipelines.patient_key import VARIABLE, patient_key
from medvl_pipelines.station import Station
from medvl_ui.neighbours import MARK, is_neighbour, neighbour
from medvl_ui.results import read_study, study_folders
from medvl_ui.similar import same_patient, untold
from medvl_ui.station import IMAGE, open_station, station
from medvl_ui.volumes import image_picture

NUMBERS = (3, 40, 80)
CANNOT = "cannot be told"


@dataclass(frozen=True)
class Site:
    """What a hospital has: its key, an index made with it, one made before, results of a later scan of the first patient."""

    root: Path
    key: Path
    linked: Path
    older: Path
    results: Path
    numbers: list[str]


def spreadsheet(folder: Path) -> tuple[Path, list[str]]:
    """Three phantoms as DICOM under a study's own numbers, which are not those of the headers; and the headers' numbers."""
    who = [patient(number) for number in NUMBERS]
    rows = []
    for k, one in enumerate(who):
        write_dicom(scan_of(one), one, folder / f"s{k}")
        rows.append({"patient_id": f"STUDY-{k:02d}", "study": f"s{k}", "report": (MASS, NORMAL)[k % 2], "split": "test"})
    write_dicom(scan_of(who[0], (5.0, 3.2, 3.4)), who[0], folder / "later")
    return write_csv(folder / "manifest.csv", rows), [one.patient_id for one in who]


def indexed(bundle: Path, manifest: Path, out: Path, key: Path | None) -> Path:
    """The commands from a spreadsheet to an index."""
    assert ingest.run(manifest, out / "dataset", patient_key=key, workers=0) == 0
    assert embed.run(str(bundle), out / "embedded", table=out / "dataset", patient_key=key) == 0
    assert index.build([out / "embedded" / "test"], out / "index") == 0
    return out / "index"


@pytest.fixture(scope="module")
def site(tiny_run: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Made once, by the commands themselves."""
    root = tmp_path_factory.mktemp("site")
    (root / "in").mkdir()
    manifest, numbers = spreadsheet(root / "in")
    key = root / "keys" / "patients"
    linked = indexed(tiny_run.bundle, manifest, root / "linked", key)
    older = indexed(tiny_run.bundle, manifest, root / "older", None)
    how = Station(str(tiny_run.bundle), root / "results", "cpu", explain=False, readers=1, patient_key=key)
    assert infer.run([str(root / "in" / "later")], how) == 0
    return Site(root, key, linked, older, root / "results", numbers)


def told_of(site: Site, monkeypatch: pytest.MonkeyPatch, index: Path, results: Path | None = None) -> str:
    """What the page says of similar cases of the later scan."""
    return said(pane(readings(results or site.results, monkeypatch, index=index), "Similar"))


def with_person(site: Site, out: Path, person: str | None) -> Path:
    """The results as a run with another key, or with none, would have written them."""
    shutil.copytree(site.results, out)
    path = next(out.glob("studies/*/findings.json"))
    record = json.loads(path.read_text(encoding="utf-8"))
    record["series"]["person"] = person
    path.write_text(json.dumps(record), encoding="utf-8")
    return out


@pytest.mark.slow
def test_the_later_scan_of_a_patient_finds_its_earlier_one_in_the_index(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    key = folder_key(site.key)
    open_station(site.results)
    study = read_study(site.results, study_folders(site.results)[0].name)
    assert study.series is not None
    assert study.series.person == person_of(key, site.numbers[0])
    with Index.open(site.linked) as opened:
        known = same_patient(opened, study)
        assert (len(known.same), known.n, known.untold, untold(study, known)) == (1, 3, {}, "")
        with opened.reading() as view:
            assert people_of(view, person_of(key, "STUDY-00")).same == known.same
            rows = [int(row) for row in view.rows_where("patient", known.same[0])]
            assert {person_in(entry) for entry in view.entries(rows).values()} == {person_of(key, site.numbers[0], "STUDY-00")}
    told = told_of(site, monkeypatch, site.linked)
    assert known.same[0] not in told
    assert CANNOT not in told


@pytest.mark.slow
def test_an_index_without_links_says_that_it_cannot_tell(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    told = told_of(site, monkeypatch, site.older)
    assert f"{CANNOT}: 3 of 3 patients of the index were ingested or embedded without a patient key" in told
    assert "cases of" not in told


@pytest.mark.slow
def test_a_result_of_another_key_or_of_none_says_that_it_cannot_tell(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = with_person(site, tmp_path / "other", person_of(b"o" * 32, site.numbers[0]))
    assert "with another patient key than this result's" in told_of(site, monkeypatch, site.linked, other)
    none = with_person(site, tmp_path / "none", None)
    assert "this result was made without a patient key" in told_of(site, monkeypatch, site.linked, none)


@pytest.mark.slow
def test_the_data_hash_knows_nothing_of_the_key_and_a_rerun_adds_links(site: Site, tmp_path: Path) -> None:
    linked, older = (open_dataset(folder.parent / "dataset") for folder in (site.linked, site.older))
    assert linked.sha256 == older.sha256
    assert "person" not in older.rows
    shutil.copytree(older.folder, tmp_path / "again")
    assert ingest.run(site.root / "in" / "manifest.csv", tmp_path / "again", patient_key=site.key, workers=0) == 0
    assert list(open_dataset(tmp_path / "again").rows["person"]) == list(linked.rows["person"])


@pytest.mark.slow
def test_a_case_of_the_index_is_laid_beside_from_the_dataset(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = site.linked.parent / "dataset"
    with Index.open(site.linked) as opened, opened.reading() as view:
        studies = set(view.columns.text("study")[1])
    assert studies == set(open_dataset(dataset).rows["case_id"])
    at = pane(readings(site.results, monkeypatch, index=site.linked, dataset=dataset), "Similar")
    asked = [button for button in at.button if str(button.key).startswith("beside_")]
    assert asked
    asked[0].click().run()
    case_id, other, _ = at.session_state["beside"]
    assert (case_id, is_neighbour(other)) == (study_folders(site.results)[0].name, True)
    held = read_volume(dataset / "volumes" / f"{other.removeprefix(MARK)}.mvol")
    shown = station().picture(other, IMAGE)
    assert np.array_equal(shown.voxels, image_picture(held.hu, held.geometry).voxels)
    assert station().version(other, IMAGE) != "0"
    for wrong in ("../../key", "a/b", "", "0" * 12):
        assert neighbour(wrong) is None
        with pytest.raises(InputError, match="does not hold"):
            station().picture(MARK + wrong, IMAGE)
    with pytest.raises(InputError, match="no maps"):
        station().picture(other, "heatmaps/x.nii.gz")
    at = pane(readings(site.results, monkeypatch, index=site.linked, dataset=site.older.parent / "dataset"), "Similar")
    assert not [button for button in at.button if str(button.key).startswith("beside_")]
    assert "holds no images of these cases" in said(at)


@pytest.mark.slow
def test_patients_of_a_plain_table_are_linked_by_its_numbers(site: Site) -> None:
    manifest, key = site.root / "in" / "manifest.csv", folder_key(site.key)
    cases = open_studies(manifest, patient_key=key).cases
    assert [case.person for case in cases] == [person_of(key, f"STUDY-{k:02d}") for k in range(3)]
    assert {case.person for case in open_studies(manifest).cases} == {""}


@pytest.mark.slow
def test_no_number_and_no_key_is_in_what_was_written(site: Site) -> None:
    key = site.key.read_text(encoding="utf-8")
    assert site.key.stat().st_mode & 0o077 == 0
    for folder in (site.linked.parent, site.results):
        for path in folder.rglob("*"):
            if not path.is_file() or path.name.startswith(("ledger.sqlite", "sources.json")):
                continue
            held = path.read_bytes()
            if path.suffix == ".parquet":
                held += pd.read_parquet(path).to_csv().encode()
            for planted in (*site.numbers, "STUDY-0", key):
                assert planted.encode() not in held, (path.name, planted)
                assert bytes.fromhex(key) not in held


def test_the_key_is_asked_for_made_once_and_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    out = tmp_path / "out"
    assert patient_key(None, out) == b""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "site.key"))
    made = patient_key(None, out)
    assert len(made) == 32
    assert "made a new patient key" in capfd.readouterr().err
    assert patient_key(None, out) == made
    assert "made a new" not in capfd.readouterr().err
    with pytest.raises(ConfigError, match="keep it elsewhere"):
        patient_key(out / "site.key", out)
    (tmp_path / "site.key").chmod(0o640)
    with pytest.raises(ConfigError, match="others may read it"):
        patient_key(None, out)
    (tmp_path / "empty").touch(0o600)
    with pytest.raises(ConfigError, match="0 bytes"):
        patient_key(tmp_path / "empty", out)
