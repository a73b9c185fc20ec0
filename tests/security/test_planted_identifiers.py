"""Nothing that identifies a patient leaves through a log, an error, a name, a table, a cache or a picture."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from identifiers import CHARSETS, Planted, contents, everything, leaks, plant_file
from test_no_pickle import pickles

from medvl.geometry import Geometry
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.sample import sample_patient
from medvl.records import Volume

CARRIES_PATHS = ("sources.json", "ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm")  # mode 0600, and nothing but paths
PATH_WORDS = (" file", " folder", "nifti", "zip", "target", "dangling")
# inspect and convert tell the person who gave a folder which of its files were left out, on the screen and nowhere else
ON_SCREEN = {
    f"{what} in {where}" for what in ("cut file", "header file", "letter", "zip", "dangling") for where in ("stdout", "stderr")
}
MEDVL = [sys.executable, "-c", "from medvl_pipelines.cli import main; raise SystemExit(main())"]


@pytest.fixture(scope="module")
def planted_studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Planted]:
    """One small study in each charset, under telling names, with a damaged file, a text, a nested zip and a bad NIfTI."""
    root, made = tmp_path_factory.mktemp("planted"), tmp_path_factory.mktemp("made")
    planted = Planted()
    rng = np.random.default_rng(2)
    hu = rng.integers(-1000, 900, (5, 9, 8)).astype(np.int16)
    hu[:, 0] = -1000
    paths = write_dicom(
        Volume(hu, Geometry((5, 9, 8), np.diag([2.0, 1.5, 1.5, 1.0])[:, [2, 1, 0, 3]])), sample_patient(5, 0), made
    )
    source = root / "in"
    for charset in CHARSETS:
        folder = source / f"{planted.word(f'{charset} folder')} 1937-05-19"
        for k, path in enumerate(paths):
            plant_file(path, folder / f"{planted.word(f'{charset} file {k}')}.dcm", planted, charset, charset)
    whole = sorted(source.rglob("*.dcm"))
    (source / f"{planted.word('cut file')}.dcm").write_bytes(whole[0].read_bytes()[:-40])
    (source / f"{planted.word('header file')}.dcm").write_bytes(whole[1].read_bytes()[:700])
    (source / f"{planted.word('letter')}.txt").write_text(f"Dear {planted.word('letter text')}, " * 30)
    (source / f"{planted.word('nifti')}.nii.gz").write_bytes(gzip.compress(planted.word("nifti text").encode() * 90))
    with zipfile.ZipFile(source / f"{planted.word('zip')}.zip", "w") as archive:
        archive.writestr(f"{planted.word('member')}/I1", whole[2].read_bytes())
    (source / planted.word("dangling")).symlink_to(root / planted.word("link target"))
    return source, planted


def medvl(*words: object, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """One command, in a folder and with a home of its own."""
    told = {**os.environ, "HOME": str(cwd), "XDG_CACHE_HOME": str(cwd / "cache"), "COLUMNS": "200"}
    return subprocess.run([*MEDVL, *map(str, words)], capture_output=True, check=False, cwd=cwd, env=told, timeout=600)


def streams(ended: subprocess.CompletedProcess[bytes]) -> list[tuple[str, bytes]]:
    return [("stdout", ended.stdout), ("stderr", ended.stderr)]


def test_the_search_finds_what_is_there(planted_studies: tuple[Path, Planted]) -> None:
    """Looking at the inputs themselves, every planted string is found: the search below can fail."""
    source, planted = planted_studies
    found = leaks(planted, everything(source))
    missing = [what for what in planted.texts if not any(line.startswith(f"{what} in ") for line in found)]
    assert [what for what in missing if what not in ("letter text", "link target")] == []


def test_deidentify_leaves_nothing(planted_studies: tuple[Path, Planted], tmp_path: Path) -> None:
    from medvl_pipelines import deidentify as command

    source, planted = planted_studies
    code = """
import sys
from pathlib import Path
from medvl_pipelines import deidentify as command
kept = {"clean_descriptors": True, "retain_patient_characteristics": True}
raise SystemExit(command.run(Path(sys.argv[1]), out=Path("o/x"), dates=sys.argv[2], as_json=True, **kept))
"""
    for dates in ("remove", "shift"):
        here = tmp_path / dates
        here.mkdir()
        ended = subprocess.run(
            [sys.executable, "-c", code, str(source), dates], capture_output=True, check=False, cwd=here, timeout=120
        )
        assert ended.returncode == 3
        assert json.loads(ended.stdout)["written"] == 5 * len(CHARSETS)
        assert leaks(planted, [*everything(here), *streams(ended)]) == []
    assert stat.S_IMODE((tmp_path / "shift" / "o" / command.KEY_NAME).stat().st_mode) == 0o600


def test_convert_leaves_nothing(planted_studies: tuple[Path, Planted], tmp_path: Path) -> None:
    source, planted = planted_studies
    ended = medvl("convert", source, "--out", "o", cwd=tmp_path)
    assert len(list((tmp_path / "o").glob("*.nii.gz"))) == len(CHARSETS)
    assert leaks(planted, everything(tmp_path)) == []
    assert set(leaks(planted, streams(ended))) <= ON_SCREEN


@pytest.mark.parametrize("form", ["--json", "table"])
def test_inspect_tells_nobody(planted_studies: tuple[Path, Planted], tmp_path: Path, form: str) -> None:
    source, planted = planted_studies
    ended = medvl("inspect", source, *([form] if form == "--json" else []), cwd=tmp_path)
    assert ended.returncode == 0 and b"volume" in ended.stdout
    assert leaks(planted, everything(tmp_path)) == []
    assert set(leaks(planted, streams(ended))) <= ON_SCREEN


@pytest.mark.slow
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_infer_leaves_nothing(planted_studies: tuple[Path, Planted], tmp_path: Path, form: list[str]) -> None:
    source, planted = planted_studies
    found = [path for path in sorted(source.iterdir()) if path.suffix != ".txt"]  # a .txt would be a list of inputs
    listed = source.parent / "gone.txt"  # what leads nowhere is a study with a reason only where a list names it
    listed.write_text("\n".join(str(path) for path in found if not path.exists()), encoding="utf-8")
    assert listed.stat().st_size > 0
    inputs = [*(path for path in found if path.exists()), listed]
    ended = medvl("infer", *inputs, "--bundle", "phantom-demo", "--out", "o", *form, cwd=tmp_path)
    assert ended.returncode in (0, 3), ended.stderr.decode()
    assert leaks(planted, [*everything(tmp_path, CARRIES_PATHS), *streams(ended)]) == []
    for path in [path for path in tmp_path.rglob("*") if path.name in CARRIES_PATHS]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        found = {line.partition(" in ")[0] for line in leaks(planted, [("it", data) for data in contents(path)])}
        assert {what for what in found if not any(word in what for word in PATH_WORDS)} <= {
            f"{c} PatientBirthDate" for c in CHARSETS
        }
    assert [name for path in tmp_path.rglob("*") if path.is_file() for name in pickles(path)] == []
