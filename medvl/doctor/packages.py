"""Python and packages: is everything there, does it load, and is it the version that medvl is tested with?"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from medvl.doctor.check import Check

LEAST_PYTHON = (3, 11)
MODULES = {
    "pyyaml": "yaml",
    "pillow": "PIL",
    "python-gdcm": "gdcm",
    "pyjpegls": "jpeg_ls",
    "pylibjpeg-openjpeg": "openjpeg",
    "pylibjpeg-rle": "rle",
    "dicom-anonymizer": "dicomanonymizer",
    "sqlalchemy": "sqlalchemy",
}
EXTRAS = {"cluster": "medvl infer --engine ray", "server": "a ledger in PostgreSQL", "scale": "LanceDB indexes"}


@dataclass(frozen=True)
class Need:
    """One requirement: name as the index compares it, (sign, version) bounds, and the extra that asks for it, if any."""

    name: str
    bounds: tuple[tuple[str, str], ...]
    extra: str = ""


def normal(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needs(lines: Sequence[str]) -> list[Need]:
    """Requirements as a wheel's metadata writes them, such as ``pandas<3,>=2.2`` or ``ray; extra == "cluster"``."""
    out = []
    for line in lines:
        asked, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", asked.strip())
        if name is None:
            continue
        extra = re.search(r"extra\s*==\s*[\"']([\w-]+)", marker)
        bounds = re.findall(r"(>=|<=|==|!=|<|>|~=)\s*([\w.]+)", asked)
        out.append(Need(normal(name.group()), tuple(bounds), extra.group(1) if extra else ""))
    return out


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without what stands behind them: 2.6.0+cpu is (2, 6); zeros at the end do not count."""
    numbers = [int(n) for n in re.match(r"\d+(?:\.\d+)*", version).group().split(".")] if version[:1].isdigit() else [0]  # type: ignore[union-attr]
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def fits(version: str, bounds: Sequence[tuple[str, str]]) -> bool:
    """Whether a version keeps every bound; ``~=`` is read as at least."""
    have = release(version)
    tests = {"<": have.__lt__, "<=": have.__le__, ">": have.__gt__, ">=": have.__ge__, "==": have.__eq__, "!=": have.__ne__}
    return all(bool(tests.get(sign, have.__ge__)(release(bound))) for sign, bound in bounds)


def constraints_file() -> Path | None:
    """The tested versions: shipped beside the configs, or at the root of a checkout; None where neither is there."""
    shipped = Path(str(resources.files("medvl_configs")))
    found = [shipped / "constraints.txt", shipped.parent / "constraints.txt"]
    return next((path for path in found if path.is_file()), None)


def tested(path: Path | None) -> dict[str, str]:
    """Tested version by name."""
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    pairs = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {normal(name): version.strip() for name, _, version in pairs}


def check_packages() -> Iterator[Check]:
    """Python, then every package that medvl requires: there, loadable, within bounds, and as tested."""
    yield check_python(sys.version_info[:3])
    listed = needs(metadata.requires("medvl") or [])
    versions = {need.name: _version(need.name) for need in listed}
    wanted = [need for need in listed if not need.extra]
    yield check_present(wanted, versions)
    broken = {need.name: error for need in wanted if versions[need.name] and (error := _load_error(need.name))}
    yield check_loads(broken, len(wanted))
    yield check_tested(wanted, versions, tested(constraints_file()))
    yield check_extras(listed, versions)


def check_python(found: Sequence[int]) -> Check:
    """The interpreter's version, three numbers."""
    said = ".".join(map(str, found))
    if tuple(found[:2]) < LEAST_PYTHON:
        return Check(
            "packages", "Python", "problem", f"Python {said}.", "Install Python 3.11 or newer and make a new environment."
        )
    return Check("packages", "Python", "ok", f"Python {said}.", facts={"version": said})


def check_present(wanted: Sequence[Need], versions: Mapping[str, str | None]) -> Check:
    """Every required package is installed, within its bounds."""
    missing = [need for need in wanted if not versions[need.name]]
    outside = [need for need in wanted if (have := versions[need.name]) and not fits(have, need.bounds)]
    if not missing and not outside:
        return Check("packages", "required packages", "ok", f"All {len(wanted)} are installed.")
    said = [f"missing: {', '.join(need.name for need in missing)}"] if missing else []
    said += [f"outside the bounds: {', '.join(f'{n.name} {versions[n.name]}' for n in outside)}"] if outside else []
    command = " ".join(f"'{_asked(need)}'" for need in [*missing, *outside])
    return Check("packages", "required packages", "problem", f"{'; '.join(said)}.", f"Run: pip install {command}")


def check_loads(broken: Mapping[str, str], n: int) -> Check:
    """Every installed package can be imported: a missing system library shows here."""
    if not broken:
        return Check("packages", "packages load", "ok", f"All of {n} that are installed can be imported.")
    told = "; ".join(f"{name}: {error}" for name, error in broken.items())
    fix = f"Install the library that the message names, or run: pip install --force-reinstall {' '.join(broken)}"
    return Check("packages", "packages load", "problem", f"{told}.", fix)


def check_tested(wanted: Sequence[Need], versions: Mapping[str, str | None], pins: Mapping[str, str]) -> Check:
    """Versions are those that medvl is tested with."""
    if not pins:
        fix = "Take constraints.txt from the release and compare with: pip freeze"
        return Check("packages", "tested versions", "warning", "This installation holds no list of tested versions.", fix)
    other = {
        need.name: (have, pins[need.name])
        for need in wanted
        if (have := versions[need.name]) and need.name in pins and release(have) != release(pins[need.name])
    }
    if not other:
        return Check("packages", "tested versions", "ok", "Every package has the version that medvl is tested with.")
    told = ", ".join(f"{name} {have} (tested: {pin})" for name, (have, pin) in other.items())
    command = " ".join(f"{name}=={pin}" for name, (_, pin) in other.items())
    return Check("packages", "tested versions", "warning", f"{told}.", f"If results look odd, run: pip install {command}")


def check_extras(listed: Sequence[Need], versions: Mapping[str, str | None]) -> Check:
    """Which optional parts are there; none is needed."""
    held = {extra: all(versions[n.name] for n in listed if n.extra == extra) for extra in EXTRAS}
    said = ", ".join(f"{EXTRAS[extra]}: {'yes' if there else f'no (extra {extra})'}" for extra, there in held.items())
    return Check("packages", "optional parts", "ok", f"Extras: {said}.", facts=held)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _load_error(name: str) -> str:
    """Empty, or why the import fails; only the last line, which names the library and no place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(MODULES.get(name, name.replace("-", "_")))
    except Exception as error:
        said = re.sub(r"\S*/(?=\S)", "", str(error).strip().splitlines()[-1] if str(error).strip() else "")
        return f"{type(error).__name__} {said}".strip()
    return ""


def _asked(need: Need) -> str:
    return need.name + ",".join(sign + bound for sign, bound in need.bounds)
