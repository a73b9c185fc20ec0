"""Cached volumes, worker processes, studies of a PACS, and labels of clinicians."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import MASS, body, dicom, made, nifti, write_csv

from medvl.data.identity import folder_key, keyed_id
from medvl.dataset import web as web_module
from medvl.dataset.columns import map_columns
from medvl.dataset.ingest import Options, ingest
from medvl.dataset.labels import Reviews, open_reviews
from medvl.dataset.manifest import Reader
from medvl.dataset.pool import Lost, run
from medvl.dataset.sheet import read_sheet
from medvl.dataset.web import Web
from medvl.errors import ConfigError, InputError
from medvl.geometry import Geometry
from medvl.imaging.load import load
from medvl.imaging.volume_file import content_hash, read_crop, read_header, read_volume, write_volume
from medvl.records import Reason, Volume


@pytest.fixture
def volume() -> Volume:
    """Full-range noise that no block divides evenly."""
    hu = np.random.default_rng(0).integers(-32768, 32768, (37, 70, 131), dtype=np.int16)
    return Volume(hu, Geometry.centered((5, -3, 11), hu.shape, (2.5, 0.7, 0.7)), (Reason("tilt_resampled", "said"),))  # type: ignore[arg-type]


def test_a_volume_comes_back_bit_for_bit_with_its_place(tmp_path: Path, volume: Volume) -> None:
    path = tmp_path / "a.mvol"
    sha256 = write_volume(volume, path, {"kvp": 120})
    back = read_volume(path)
    np.testing.assert_array_equal(back.hu, volume.hu)
    assert (back.geometry, back.reasons, back.facts) == (volume.geometry, volume.reasons, {"kvp": 120})
    assert sha256 == read_header(path).sha256 == content_hash(volume.hu, volume.geometry)
    write_volume(volume, tmp_path / "b.mvol", {"kvp": 120})
    assert path.read_bytes() == (tmp_path / "b.mvol").read_bytes()
    entry = load(path).chosen
    assert entry is not None
    np.testing.assert_array_equal(entry.read().hu, volume.hu)


@pytest.mark.parametrize("start", [(0, 0, 0), (31, 63, 63), (5, 6, 100)])
def test_a_crop_is_that_part_in_that_place(tmp_path: Path, volume: Volume, start: tuple[int, int, int]) -> None:
    write_volume(volume, tmp_path / "a.mvol")
    size = (6, 7, 31)
    crop = read_crop(tmp_path / "a.mvol", start, size)
    np.testing.assert_array_equal(crop.hu, volume.hu[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))])
    np.testing.assert_allclose(crop.geometry.to_lps((0, 0, 0)), volume.geometry.to_lps(start))
    with pytest.raises(ValueError, match="outside"):
        read_crop(tmp_path / "a.mvol", (30, 0, 0), (8, 8, 8))


@pytest.mark.parametrize("cut", [-1, 30, 9])
def test_a_damaged_volume_is_refused(tmp_path: Path, volume: Volume, cut: int) -> None:
    path = tmp_path / "a.mvol"
    write_volume(volume, path)
    data = bytearray(path.read_bytes())
    data[-40] ^= 255
    path.write_bytes(data if cut == 9 else data[:cut])
    with pytest.raises(InputError, match="unreadable_file"):
        read_volume(path)


def _work(seconds: float) -> str:
    if seconds < 0:
        os._exit(9)
    time.sleep(seconds)
    return f"slept {seconds}"


@pytest.mark.slow
def test_a_task_that_hangs_or_kills_its_process_costs_only_itself() -> None:
    found = dict(run(_work, [0.0, 600.0, -1.0, 0.01], 2, 3.0))
    assert (found[0], found[3]) == ("slept 0.0", "slept 0.01")
    assert [found[k].code for k in (1, 2) if isinstance(found[k], Lost)] == ["timeout", "worker_died"]


def _pacs(monkeypatch: pytest.MonkeyPatch, studies: dict[str, int]) -> list[str]:
    """A PACS that has some studies; gives the list of what was asked."""
    asked: list[str] = []

    class Fake:
        def __init__(self, *_: Any) -> None: ...
        def __enter__(self) -> "Fake":
            return self

        def __exit__(self, *_: object) -> None: ...
        def fetch(self, uid: str, folder: Path, **_: Any) -> int:
            asked.append(uid)
            if uid in studies:
                dicom(folder, studies[uid], uid)
            return int(uid in studies)

    monkeypatch.setattr(web_module, "DicomWeb", Fake)
    return asked


def test_studies_are_fetched_by_uid_or_address_once_and_nothing_of_them_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _pacs(monkeypatch, {"1.2.3.4": 1, "1.2.3.5": 2})
    url = "https://pacs.example/dicom-web"
    rows = [
        {"patient_id": "A", "study": "1.2.3.4", "report": MASS},
        {"patient_id": "B", "study": f"{url}/studies/1.2.3.5", "report": MASS},
        {"patient_id": "C", "study": "https://other.example/studies/1.2.3.6"},
        {"patient_id": "D", "study": "1.2.3.7"},
    ]
    sheet = read_sheet(write_csv(tmp_path / "m.csv", rows))
    mapped = map_columns(sheet.columns)
    manifest = Reader(mapped, tmp_path, web=True).read(sheet)
    options = Options(tmp_path, web=Web(f"dicomweb+{url}"), workers=0, card=False)
    first = ingest(manifest, mapped, tmp_path / "d", options)
    assert first.rejects == {"bad_row": 1, "no_images": 1}
    np.testing.assert_array_equal(read_volume(tmp_path / "d" / first.dataset.rows.at[1, "study"]).hu, body(2))
    assert asked == ["1.2.3.4", "1.2.3.5", "1.2.3.7"]
    assert ingest(manifest, mapped, tmp_path / "d", options).n_known == 4
    assert len(asked) == 3
    assert not list((tmp_path / "d").rglob("*.dcm"))


def test_a_filter_in_the_address_of_the_pacs_is_refused() -> None:
    with pytest.raises(ConfigError, match="without filters"):
        Web("dicomweb+https://pacs.example/web?PatientID=5")


def test_labels_of_clinicians_join_the_studies_that_they_reviewed(tmp_path: Path) -> None:
    dicom(tmp_path / "a", 1)
    scan = nifti(tmp_path / "b.nii.gz", 2)
    rows = [
        {"patient_id": p, "study": s, "report": MASS, "label_renal_mass@kidney_left": 1}
        for p, s in (("A", "a"), ("B", scan.name))
    ]
    manifest, key = write_csv(tmp_path / "m.csv", rows), folder_key(tmp_path / "results" / "key")
    (study,) = load(tmp_path / "a")
    labels = {
        keyed_id(key, study.key): {("renal_mass", "kidney_left"): 0},
        keyed_id(key, f"file:{scan.resolve()}"): {("renal_stone", "kidney_right"): 1},
        keyed_id(key, "another"): {("renal_cyst", "kidney_left"): 1},
    }
    review = Reviews(key, labels)
    dataset = made(manifest, tmp_path / "d", reviews=(review,)).dataset
    frame = dataset.rows
    assert frame["label:renal_mass@kidney_left"].tolist() == [0, 1]
    assert frame["source:renal_mass@kidney_left"].tolist() == ["review", "csv"]
    assert frame["label:renal_stone@kidney_right"].isna().tolist() == [True, False]
    (told,) = dataset.facts["labels"]["reviews"]
    assert told == {"labels": 3, "studies": 2, "used": 2, "unmatched": 1, "unknown_finding": 0}
    more = replace(review, labels={**labels, keyed_id(key, study.key): {("renal_mass", "kidney_left"): 1}})
    again = made(manifest, tmp_path / "d", reviews=(more,))
    assert (again.n_known, again.dataset.rows["label:renal_mass@kidney_left"].tolist()) == (2, [1, 1])


def test_a_results_folder_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no key"):
        open_reviews(tmp_path, {})
