"""The archive: what lies where, what it says of itself, checksums, and the same bytes for the same content."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from medvl.records import RESEARCH_USE

from .pack_wheels import licence_of

SUMS = "SHA256SUMS"
INSTALL = """#!/bin/sh
# Installs medvl from this folder, without any network: sh install.sh [FOLDER OF THE ENVIRONMENT]
# Another Python: PYTHON=python{python} sh install.sh
set -eu
from=$(cd "$(dirname "$0")" && pwd)
venv=${{1:-medvl-venv}}
python=${{PYTHON:-python3}}

if command -v sha256sum >/dev/null 2>&1; then check="sha256sum -c"
elif command -v shasum >/dev/null 2>&1; then check="shasum -a 256 -c"
else echo "neither sha256sum nor shasum is there, so the files cannot be checked" >&2; exit 1
fi
(cd "$from" && $check {sums} >/dev/null) || {{ echo "a file is damaged: copy the archive again" >&2; exit 1; }}

have=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$have" != "{python}" ]; then
  echo "these wheels are for Python {python}, and $python is $have; name another one: PYTHON=python{python} sh $0" >&2
  exit 1
fi
"$python" -m venv "$venv" || {{ echo "no virtual environment was made; on Debian: apt-get install python3-venv" >&2; exit 1; }}
PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_EXTRA_INDEX_URL= PIP_CONSTRAINT= PIP_FIND_LINKS= \\
  "$venv/bin/python" -m pip install --quiet --no-index --find-links "$from/wheels" "{asked}"
echo "Installed. Check this machine: $venv/bin/medvl doctor"
"""
README = """# medvl {version} for a machine without network

For Python {python}. Install with `sh install.sh FOLDER`: it checks every file against {sums}, makes a virtual environment in
FOLDER and installs from `wheels/` alone. Then: `FOLDER/bin/medvl doctor`.

{use}

Bundles: {bundles}. Give the folder to `--bundle`, such as `--bundle bundles/NAME`.
Configs: {configs}. Versions: constraints.txt.

## Licences of the packages, as their metadata says

| package | version | licence |
|---|---|---|
{licences}
"""


def lay_out(top: Path, bundles: Mapping[str, Path], configs: Sequence[Path], constraints: Path | None) -> None:
    """Copy bundles, configs and constraints below `top`."""
    for name, folder in bundles.items():
        shutil.copytree(folder, top / "bundles" / name)
    for path in configs:
        (top / "configs").mkdir(exist_ok=True)
        shutil.copyfile(path, top / "configs" / path.name)
    if constraints:
        shutil.copyfile(constraints, top / "constraints.txt")


def write_texts(top: Path, version: str, python: str, extras: Sequence[str]) -> None:
    """install.sh and README.md, with the licence of every wheel."""
    asked = f"medvl[{','.join(extras)}]=={version}" if extras else f"medvl=={version}"
    (top / "install.sh").write_text(INSTALL.format(python=python, sums=SUMS, asked=asked), encoding="utf-8")
    held = sorted((licence_of(path) for path in (top / "wheels").glob("*.whl")), key=lambda one: one[0].lower())
    cells = "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in held)
    listed = {name: ", ".join(sorted(p.name for p in (top / name).glob("*"))) or "none" for name in ("bundles", "configs")}
    text = README.format(version=version, python=python, sums=SUMS, use=RESEARCH_USE, licences=cells, **listed)
    (top / "README.md").write_text(text, encoding="utf-8")


def write_sums(top: Path) -> int:
    """SHA256SUMS of every file below `top`; returns how many."""
    files = [path for path in sorted(top.rglob("*")) if path.is_file() and path.name != SUMS]
    lines = [f"{_sha256(path)}  {path.relative_to(top).as_posix()}\n" for path in files]
    (top / SUMS).write_text("".join(lines), encoding="utf-8")
    return len(files) + 1


def write_tar(top: Path, path: Path) -> None:
    """An archive whose bytes depend on names and contents only: sorted, no times, no owners."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for file in sorted(p for p in top.rglob("*") if p.is_file()):
            info = tarfile.TarInfo(f"{top.name}/{file.relative_to(top).as_posix()}")
            info.size, info.mode, info.mtime = file.stat().st_size, 0o755 if file.suffix == ".sh" else 0o644, 0
            with file.open("rb") as raw:
                archive.addfile(info, raw)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
