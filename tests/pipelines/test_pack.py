"""The archive for machines without network: from a folder of made wheels, and installed by its own script."""

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from medvl.errors import BundleError, ConfigError
from medvl_pipelines import pack, pack_wheels

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


def made_wheel(folder: Path, name: str, version: str, *, needs: str = "", licence: str = "License-Expression: MIT") -> Path:
    """A wheel with one module that says its version."""
    folder.mkdir(exist_ok=True)
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    asked = f"Requires-Dist: {needs}\n" if needs else ""
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{licence}\n{asked}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in files.items():
            wheel.writestr(zipfile.ZipInfo(member), text)
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "".join(f"{m},,\n" for m in [*files, f"{info}/RECORD"]))
    return path


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel called medvl that needs one package, and a package index that is a folder."""
    made_wheel(tmp_path / "index", "needed", "1.2", licence="Classifier: License :: OSI Approved :: BSD License")
    made_wheel(tmp_path / "index", "needed", "9.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return made_wheel(tmp_path / "built", "medvl", "0.0.1", needs="needed<2")


def packed(own: Path, out: Path, **options: object) -> Path:
    assert pack.run(out, own=own, **options) == 0
    with tarfile.open(out) as archive:
        archive.extractall(out.parent, filter="data")
    return out.parent / "medvl-offline"


def test_the_archive_holds_what_is_needed_with_sums_and_licences(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "site.yaml"
    config.write_text("a: 1\n")
    top = packed(own, tmp_path / "out" / "x.tar", bundles=["phantom-demo"], configs=[config])
    assert {p.name for p in (top / "wheels").iterdir()} == {"medvl-0.0.1-py3-none-any.whl", "needed-1.2-py3-none-any.whl"}
    assert (top / "bundles" / "phantom-demo" / "bundle.json").is_file()
    assert (top / "configs" / "site.yaml").read_text() == "a: 1\n"
    assert "torch==" in (top / "constraints.txt").read_text()
    listed = dict(reversed(line.split("  ")) for line in (top / "SHA256SUMS").read_text().splitlines())
    there = {p.relative_to(top).as_posix() for p in top.rglob("*") if p.is_file()}
    assert set(listed) == there - {"SHA256SUMS"}
    assert all(hashlib.sha256((top / name).read_bytes()).hexdigest() == told for name, told in listed.items())
    readme = (top / "README.md").read_text()
    assert "| needed | 1.2 | BSD License |" in readme and "| medvl | 0.0.1 | MIT |" in readme
    assert "not for diagnosis" in readme
    told = capsys.readouterr()
    assert told.err.index("1 packages") < told.err.index("[1/1]")
    assert [p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".")] == []


def test_the_same_content_gives_the_same_bytes(own: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        pack.run(tmp_path / name / "x.tar", own=own)
    assert (tmp_path / "a" / "x.tar").read_bytes() == (tmp_path / "b" / "x.tar").read_bytes()
    with tarfile.open(tmp_path / "a" / "x.tar") as archive:
        members = archive.getmembers()
    assert [m.name for m in members] == sorted(m.name for m in members)
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}


@pytest.mark.slow
def test_the_script_installs_it_and_refuses_damage_and_another_python(own: Path, tmp_path: Path) -> None:
    top, venv = packed(own, tmp_path / "out" / "x.tar"), tmp_path / "venv"
    environment = {**os.environ, "PYTHON": sys.executable, "PIP_FIND_LINKS": "https://index.invalid/simple"}

    def install(**more: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", top / "install.sh", venv]
        return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, check=False, timeout=120)

    told = install()
    assert told.returncode == 0, told.stderr
    shown = subprocess.run(
        [venv / "bin" / "python", "-c", "import needed; print(needed.VERSION)"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "1.2"
    script = (top / "install.sh").read_text()
    (top / "install.sh").write_text(script.replace(f'"{VERSION}"', '"2.7"'))
    sums = (top / "SHA256SUMS").read_text().splitlines()
    (top / "SHA256SUMS").write_text("\n".join(line for line in sums if "install.sh" not in line) + "\n")
    told = install()
    assert told.returncode == 1 and "these wheels are for" in told.stderr
    (top / "wheels" / "needed-1.2-py3-none-any.whl").write_bytes(b"other")
    told = install()
    assert told.returncode == 1 and "damaged" in told.stderr


def test_what_cannot_be_found_is_an_error_that_names_it(tmp_path: Path, own: Path) -> None:
    lost = made_wheel(tmp_path / "built", "medvl", "0.0.2", needs="nowhere>=1")
    with pytest.raises(ConfigError, match="nowhere"):
        pack.run(tmp_path / "x.tar", own=lost)
    with pytest.raises(BundleError):
        pack.run(tmp_path / "x.tar", own=own, bundles=["no-such-bundle"])
    assert not (tmp_path / "x.tar").exists()


def test_a_full_disk_stops_before_anything_is_fetched(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    monkeypatch.setattr(pack_wheels, "fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(ConfigError, match="are free"):
        pack.run(tmp_path / "x.tar", own=own)


def test_another_python_takes_ready_wheels(own: Path, tmp_path: Path) -> None:
    top = packed(own, tmp_path / "out" / "x.tar", python="3.13")
    assert "python3.13" in (top / "install.sh").read_text()
    assert (top / "wheels" / "needed-1.2-py3-none-any.whl").is_file()


def test_extras_are_asked_for(tmp_path: Path, own: Path) -> None:
    wanted = made_wheel(tmp_path / "built", "medvl", "0.0.3", needs='needed; extra == "more"\nProvides-Extra: more')
    top = packed(wanted, tmp_path / "out" / "x.tar", extras=["more"])
    assert '"medvl[more]==0.0.3"' in (top / "install.sh").read_text()
    assert len(list((top / "wheels").iterdir())) == 2


def test_two_configs_of_one_name_are_refused(own: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "site.yaml").write_text(name)
    with pytest.raises(ConfigError, match="one name"):
        pack.run(tmp_path / "x.tar", own=own, configs=[tmp_path / "a" / "site.yaml", tmp_path / "b" / "site.yaml"])
