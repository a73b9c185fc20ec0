"""The wheel holds what a working `medvl` needs, and nothing that would get in another package's way."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = {"medvl": "medvl", "medvl_pipelines": "pipelines", "medvl_ui": "ui", "medvl_configs": "configs"}
MAX_MB = 40

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of what git would commit: built from a copy, so that leftovers of an earlier build cannot enter it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder / "dist", folder / "source"]
    subprocess.run(build, check=True, timeout=600)
    (made,) = (folder / "dist").iterdir()
    return zipfile.ZipFile(made)


def tracked() -> list[str]:
    """Paths of all files that git tracks and that are there, relative to the root."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_every_shipped_file_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    wanted = {
        f"{package}/{name.removeprefix(folder + '/')}"
        for package, folder in SHIPPED.items()
        for name in tracked()
        if name.startswith(folder + "/")
    }
    assert wanted - held == set(), "add the pattern to package-data in pyproject.toml"
    assert {name for name in held - wanted if ".dist-info/" not in name} == set()


def test_site_packages_gets_only_our_names(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(SHIPPED)


def test_licence_and_command_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    info = next(name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()
    assert "medvl = medvl_pipelines.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "License-Expression: Apache-2.0" in wheel.read(f"{info}/METADATA").decode()


def test_wheel_is_small(wheel: zipfile.ZipFile) -> None:
    assert sum(entry.compress_size for entry in wheel.infolist()) < MAX_MB * 1e6
