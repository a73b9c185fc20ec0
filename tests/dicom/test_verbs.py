"""`medvl inspect` and `medvl convert`, and the one loader behind them: the two agree, and say what they did."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from synthetic import SHAPE, Plan, hu_volume, oblique, write

from medvl.errors import InputError
from medvl.geometry import Geometry
from medvl.imaging.load import load
from medvl.imaging.nifti import write_nifti
from medvl_pipelines import convert, inspect

ENTRY = {"key", "modality", "n_files", "verdict", "reasons", "shape_dhw", "spacing_mm", "affine_lps", "why"}


def study(folder: Path) -> Plan:
    """A mixed study: an oblique volume, an MR, a series with a gap, and a text file."""
    good = Plan(orientation=oblique())
    write(folder / "s1", good)
    write(folder / "s2", Plan(study_uid=good.study_uid, change=lambda ds, k: setattr(ds, "Modality", "MR")))
    write(folder / "s3", Plan(study_uid=good.study_uid, hu=hu_volume((8, 7, 11))), slices=[0, 1, 2, 4, 5, 6, 7])
    (folder / "notes.txt").write_text("hello")
    return good


def report(capsys: pytest.CaptureFixture[str], source: Path, code: int = 0) -> dict:
    capsys.readouterr()
    assert inspect.run(source, as_json=True) == code
    return json.loads(capsys.readouterr().out)


def test_json_of_a_mixed_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = study(tmp_path)
    found = report(capsys, tmp_path)
    assert all(set(entry) >= ENTRY for entry in found["series"])
    assert [e["verdict"] for e in found["series"]] == ["volume", "refused", "refused"]
    assert {r["code"] for e in found["series"] for r in e["reasons"]} == {"not_ct", "missing_slice"}
    first = found["series"][0]
    assert found["chosen"] == first["key"]
    assert first["shape_dhw"] == list(SHAPE)
    assert np.allclose(first["spacing_mm"], (2.5, 0.8, 0.7), atol=1e-4)
    assert np.allclose(np.array(first["affine_lps"])[:3, 3], good.origin, atol=1e-4)
    assert found["rejected"] == [{"path": "notes.txt", "code": "not_dicom", "message": "the file is not DICOM; it is left out"}]


def test_convert_writes_what_inspect_calls_a_volume_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = study(tmp_path / "in")
    found = report(capsys, tmp_path / "in")
    assert convert.run(tmp_path / "in", tmp_path / "out") == 0
    volumes = [entry for entry in found["series"] if entry["verdict"] == "volume"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{entry['key']}.nii.gz" for entry in volumes]
    image = nib.load(tmp_path / "out" / f"{volumes[0]['key']}.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), good.hu)
    geometry = Geometry.from_ras_ijk(image.shape, image.affine)
    assert np.allclose(geometry.affine_lps, volumes[0]["affine_lps"], atol=1e-4)
    shown = capsys.readouterr().err
    assert "not_ct" in shown
    assert "missing_slice" in shown


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "mr", Plan(change=lambda ds, k: setattr(ds, "Modality", "MR")))
    assert report(capsys, tmp_path / "mr", code=3)["chosen"] is None
    assert convert.run(tmp_path / "mr", tmp_path / "out") == 3
    assert not list((tmp_path / "out").iterdir())
    assert inspect.run(tmp_path / "nowhere", as_json=False) == 2
    assert convert.run(tmp_path / "nowhere", tmp_path / "out") == 2


def test_an_evil_archive_ends_with_its_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../evil", b"1")
    found = report(capsys, tmp_path / "x.zip", code=3)
    assert [one["code"] for one in found["rejected"]] == ["unsafe_archive"]
    assert convert.run(tmp_path / "x.zip", tmp_path / "out") == 3


def test_the_page_for_people_names_reasons_and_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path)
    assert inspect.run(tmp_path, as_json=False) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("would use", "missing_slice", "notes.txt", "the only volume", "modality MR"):
        assert words in shown
    assert "Secret" not in shown and "SECRET" not in shown


def test_nifti_is_a_study_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hu = hu_volume((9, 12, 14))
    hu[hu > 400] = 40
    geometry = Geometry.centered((4, 5, 6), hu.shape, (2.5, 0.8, 0.7))
    path = tmp_path / "deep" / "ct.nii.gz"
    path.parent.mkdir()
    write_nifti(hu, geometry, path)
    study(tmp_path)
    found = report(capsys, tmp_path)
    assert sorted(e["modality"] for e in found["series"]) == ["CT", "CT", "MR", "NIfTI"]
    assert [one["path"] for one in found["rejected"]] == ["notes.txt"]
    alone = load(path)
    assert len(alone) == 1
    volume = next(iter(alone)).read()
    assert np.array_equal(volume.hu, hu)
    assert volume.geometry == geometry


def test_a_study_without_a_volume_says_so(tmp_path: Path) -> None:
    write(tmp_path, Plan(change=lambda ds, k: setattr(ds, "Modality", "MR")))
    (one,) = load(tmp_path)
    with pytest.raises(InputError, match=r"no_volume.*not_ct"):
        one.read()


def test_loading_dicom_imports_neither_torch_nor_the_slow_readers() -> None:
    heavy = "('torch', 'monai', 'pydicom', 'nibabel', 'gdcm')"
    code = f"import sys, medvl.imaging.load, medvl.dicom.workers; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
