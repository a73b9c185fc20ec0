"""Whole sources without identifiers: what is written, what is refused, the command, and an outside validator."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from medvl.delivery.deidentify import Deidentifier, Deidentify
from medvl.dicom.read import read
from medvl.dicom.scan import scan
from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.sample import sample_patient
from medvl.records import Volume
from medvl_pipelines import deidentify as command

KEY = bytes(range(32))


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Two small phantom studies, and among them a text, a truncated file, a screen shot and a link that leads outside."""
    root = tmp_path / "in"
    rng = np.random.default_rng(1)
    for number in (0, 1):
        affine = np.diag([2.0, 1.5, 1.5, 1.0])[:, [2, 1, 0, 3]]
        hu = rng.integers(-1000, 900, (6, 8, 8)).astype(np.int16)
        hu[:, 0] = -1000
        write_dicom(Volume(hu, Geometry((6, 8, 8), affine)), sample_patient(5, number), root / f"Meier {number}")
    first = min((root / "Meier 0").iterdir())
    (root / "letter.txt").write_text("Dear Mr Meier, " * 40)
    (root / "cut").write_bytes(first.read_bytes()[:300])
    shot = pydicom.dcmread(first)
    shot.BurnedInAnnotation = "YES"
    shot.save_as(root / "shot")
    (root / "out").symlink_to(tmp_path)
    return root


def test_good_files_are_written_and_bad_ones_told(studies: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    counts = Deidentifier(KEY).files(studies, tmp_path / "o", told=lambda *step: told.append(step))
    assert (counts.files, counts.written, counts.patients, counts.studies, counts.series) == (16, 12, 2, 2, 2)
    assert counts.reasons == {"not_dicom": 1, "truncated_file": 1, "burned_in": 1, "outside_link": 1}
    assert len(counts.refused) == 4 and told[-1] == (16, 16)
    names = sorted(str(p.relative_to(tmp_path / "o")) for p in (tmp_path / "o").rglob("*.dcm"))
    assert names[0] == "study-0001/series-0001/000001.dcm" and len(names) == 12
    assert json.loads(json.dumps(counts.as_dict()))["written"] == 12


def test_the_volumes_are_the_same(studies: Path, tmp_path: Path) -> None:
    Deidentifier(KEY).files(studies / "Meier 0", tmp_path / "o")
    before, after = scan(studies / "Meier 0").series[0], scan(tmp_path / "o").series[0]
    assert np.array_equal(read(before).hu, read(after).hu)
    assert after.geometry == before.geometry and after.key != before.key
    assert after.facts["kernel"] == before.facts["kernel"]


def test_two_runs_of_one_key_agree(studies: Path, tmp_path: Path) -> None:
    uids = []
    for name in ("a", "b"):
        Deidentifier(KEY).files(studies / "Meier 1", tmp_path / name)
        uids.append([pydicom.dcmread(p).SOPInstanceUID for p in sorted((tmp_path / name).rglob("*.dcm"))])
    assert uids[0] == uids[1] and len(set(uids[0])) == 6


def test_images_that_may_show_text_go_apart(studies: Path, tmp_path: Path) -> None:
    apart = Deidentifier(KEY).files(studies, tmp_path / "q", burned="quarantine")
    assert apart.quarantined == 1 and len(list((tmp_path / "q" / "quarantine").rglob("*.dcm"))) == 1
    kept = Deidentifier(KEY).files(studies, tmp_path / "k", burned="keep")
    assert kept.written == 13 and "burned_in" not in kept.reasons


def test_archives_are_read_without_unpacking(studies: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in sorted((studies / "Meier 0").iterdir()):
            archive.write(path, f"Meier/{path.name}")
    assert Deidentifier(KEY).files(tmp_path / "x.zip", tmp_path / "o").written == 6


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_encodings_keep_their_pixels(studies: Path, tmp_path: Path, syntax: str) -> None:
    folder = tmp_path / "encoded"
    folder.mkdir()
    for path in sorted((studies / "Meier 0").iterdir()):
        ds = pydicom.dcmread(path)
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        fresh = pydicom.Dataset()
        for element in ds:
            fresh.add(element)
        fresh.file_meta = ds.file_meta
        fresh.file_meta.TransferSyntaxUID = syntax
        fresh.save_as(folder / path.name, enforce_file_format=True)
    assert Deidentifier(KEY).files(folder, tmp_path / "o").written == 6
    assert np.array_equal(read(scan(tmp_path / "o").series[0]).hu, read(scan(studies / "Meier 0").series[0]).hu)


def test_an_output_that_holds_something_is_refused(studies: Path, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "old.dcm").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        Deidentifier(KEY).files(studies, tmp_path / "o")
    with pytest.raises(ConfigError, match="within the input"):
        Deidentifier(KEY).files(studies, studies / "deep" / "o")


def test_the_command(studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(studies, out=tmp_path / "one" / "o", as_json=True, dates="shift") == 3
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert report["written"] == 12 and report["options"]["dates"] == "shift" and report["profile"] == ["113100", "113107"]
    assert "Meier" not in told.out + told.err and str(tmp_path) not in told.out + told.err
    key = tmp_path / "one" / command.KEY_NAME
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_text()) == 64
    assert command.run(studies / "Meier 0", out=tmp_path / "one" / "p") == 0
    assert "6 of 6 files" in capsys.readouterr().out
    assert command.run(tmp_path / "nowhere", out=tmp_path / "n") == 2


def test_a_key_that_others_may_read_is_refused(studies: Path, tmp_path: Path) -> None:
    key = tmp_path / "k"
    key.write_text("ab" * 32)
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="0644"):
        command.run(studies, out=tmp_path / "o", key_file=key)
    key.chmod(0o600)
    key.write_text("Meier")
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        command.run(studies, out=tmp_path / "o", key_file=key)
    assert "Meier" not in str(caught.value)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("options", [Deidentify(), Deidentify(True, "shift", True, True, True)])
def test_an_outside_validator_finds_nothing_new(studies: Path, tmp_path: Path, options: Deidentify) -> None:
    Deidentifier(KEY, options).files(studies / "Meier 0", tmp_path / "o")
    before, after = (_complaints(min(folder.rglob("*0001.dcm"))) for folder in (studies / "Meier 0", tmp_path / "o"))
    assert after <= before


def _complaints(path: Path) -> set[str]:
    ended = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    return {line for line in ended.stderr.splitlines() if line.startswith("Error")}
