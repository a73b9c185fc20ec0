"""Wheels for the archive: medvl's own, what it needs, and how large that is."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from medvl.errors import ConfigError

SOURCES = ("medvl", "pipelines", "ui", "configs")
FILES = ("pyproject.toml", "README.md", "LICENSE")
OF_INSTALLER = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
EPOCH = (1980, 1, 1, 0, 0, 0)


def own_wheel(folder: Path) -> Path:
    """The wheel of medvl in `folder`, from the checkout that runs, or put together again from what is installed.

    Raises:
        ConfigError: it cannot be built.
    """
    root = Path(__file__).resolve().parents[1]
    folder.mkdir(parents=True)
    if not (root / "pyproject.toml").is_file():
        return _rebuilt(folder)
    source = folder / "source"
    for name in SOURCES:
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for name in FILES:
        shutil.copyfile(root / name, source / name)
    pip(["wheel", "--no-deps", "--wheel-dir", str(folder), str(source)], environment={"SOURCE_DATE_EPOCH": "315532800"})
    return next(folder.glob("medvl-*.whl"))


def _rebuilt(folder: Path) -> Path:
    """The installed files in a wheel again, with a record of their hashes."""
    found = metadata.distribution("medvl")
    files = [f for f in found.files or () if ".." not in f.parts and "__pycache__" not in f.parts and f.name not in OF_INSTALLER]
    info = next(f.parts[0] for f in files if f.parts[0].endswith(".dist-info"))
    path = folder / f"medvl-{found.version}-py3-none-any.whl"
    lines = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in sorted(files, key=str):
            raw = Path(str(file.locate())).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()
            lines.append(f"{file.as_posix()},sha256={digest},{len(raw)}")
            wheel.writestr(zipfile.ZipInfo(file.as_posix(), EPOCH), raw, zipfile.ZIP_DEFLATED)
        lines.append(f"{info}/RECORD,,")
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD", EPOCH), "\n".join(lines) + "\n")
    return path


def resolve(
    own: Path, extras: Sequence[str], constraints: Path | None, python: str, work: Path
) -> list[tuple[str, str, int | None]]:
    """What medvl needs: (name, version, bytes or None), without downloading it.

    Raises:
        ConfigError: pip finds no versions that fit.
    """
    report = work / "report.json"
    asked = f"{own}[{','.join(extras)}]" if extras else str(own)
    args = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report), *_bounds(constraints)]
    if not _is_ours(python):
        args += ["--target", str(work / "target"), "--python-version", python, "--only-binary", ":all:"]
    pip([*args, asked])
    items = json.loads(report.read_text(encoding="utf-8"))["install"]
    told = [(item["metadata"]["name"], item["metadata"]["version"], item["download_info"]["url"]) for item in items]
    return [(name, version, _bytes_at(url)) for name, version, url in sorted(told) if name != "medvl"]


def fetch(
    needed: Sequence[tuple[str, str, int | None]],
    constraints: Path | None,
    python: str,
    folder: Path,
    told: Callable[[str], None],
) -> None:
    """Put a wheel of every package into `folder`; those that come as source are built, for this Python only.

    Raises:
        ConfigError: one cannot be fetched or built.
    """
    if not needed:
        return
    pins = [f"{name}=={version}" for name, version, _ in needed]
    if _is_ours(python):
        args = ["wheel", "--wheel-dir", str(folder)]
    else:
        args = ["download", "--dest", str(folder), "--python-version", python, "--only-binary", ":all:"]
    count = 0

    def line(text: str) -> None:
        nonlocal count
        if text.startswith(("Collecting ", "Processing ")):
            count += 1
            told(f"[{count}/{len(pins)}] {text.split()[1].rpartition('/')[2]}")

    pip([*args, "--no-deps", "--progress-bar", "off", *_bounds(constraints), *pins], line)


def pip(args: Sequence[str], told: Callable[[str], None] | None = None, *, environment: dict[str, str] | None = None) -> None:
    """Run pip, hand its lines on.

    Raises:
        ConfigError: it fails; with its last words.
    """
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", *args]
    last: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(environment or {})}
    ) as process:
        for text in process.stdout or ():
            last = [*last, text.rstrip()][-6:]
            if told:
                told(text.strip())
    if process.returncode:
        words = " | ".join(text.strip() for text in last if text.strip())
        raise ConfigError(f"pip {args[0]} failed: {words}; check that the package index can be reached from here")


def version_of(wheel: Path) -> str:
    """The version in a wheel's file name."""
    return wheel.name.split("-")[1]


def licence_of(wheel: Path) -> tuple[str, str, str]:
    """(name, version, licence) as a wheel's metadata says."""
    with zipfile.ZipFile(wheel) as held:
        name = next(n for n in held.namelist() if n.endswith(".dist-info/METADATA") and n.count("/") == 1)
        told = HeaderParser().parsestr(held.read(name).decode("utf-8", errors="replace"))
    kinds = [c.rpartition(" :: ")[2] for c in told.get_all("Classifier", []) if c.startswith("License :: ")]
    stated = told.get("License-Expression") or ", ".join(kinds) or (told.get("License") or "").strip().partition("\n")[0]
    return str(told["Name"]), str(told["Version"]), stated[:80] or "not stated in its metadata"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def _bounds(constraints: Path | None) -> list[str]:
    return ["-c", str(constraints)] if constraints else []


def _is_ours(python: str) -> bool:
    return python == f"{sys.version_info[0]}.{sys.version_info[1]}"


def _bytes_at(url: str) -> int | None:
    """How large a file is, without fetching it; None where its server does not say."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path)).stat().st_size
    import requests

    try:
        told = requests.head(url, allow_redirects=True, timeout=20).headers.get("Content-Length")
    except requests.RequestException:
        return None
    return int(told) if told and told.isdigit() else None
