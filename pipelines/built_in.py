"""Names of what ships with medvl: bundles, recipes, findings lists."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from medvl.errors import BundleError, ConfigError, did_you_mean


def _root() -> Path:
    return Path(str(files("medvl_configs")))


def bundles() -> dict[str, Path]:
    """Built-in bundles by name."""
    folder = _root() / "bundles"
    return {p.name: p for p in sorted(folder.iterdir()) if (p / "bundle.json").is_file()} if folder.is_dir() else {}


def bundle_folder(name: str) -> Path:
    """The folder of a bundle given by name or path.

    Raises:
        BundleError: neither.
    """
    if name in bundles():
        return bundles()[name]
    path = Path(name)
    if path.is_dir():
        return path
    raise BundleError(f"no bundle called {name} and no such folder; built in: {', '.join(bundles()) or 'none'}")


def recipes() -> dict[str, str]:
    """Built-in recipes by name, each with its summary."""
    return _summaries("recipes")


def recipe_file(name: str) -> Path:
    """The file of a recipe given by name or path.

    Raises:
        ConfigError: neither.
    """
    return _file("recipe", name)


def protocols() -> dict[str, str]:
    """Built-in protocols by name, each with its summary."""
    return _summaries("protocols")


def protocol_file(name: str) -> Path:
    """The file of a protocol given by name or path.

    Raises:
        ConfigError: neither.
    """
    return _file("protocol", name)


def findings_file(name: str) -> Path:
    """The built-in findings list called `name`.

    Raises:
        ConfigError: there is none.
    """
    path = _root() / "findings" / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"no findings list called {name}; built in: {', '.join(sorted(p.stem for p in path.parent.glob('*.yaml')))}"
        )
    return path


def _summaries(folder: str) -> dict[str, str]:
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted((_root() / folder).glob("*.yaml"))}
    return {name: next(line[9:] for line in text.splitlines() if line.startswith("summary: ")) for name, text in found.items()}


def _file(what: str, name: str) -> Path:
    path, built = Path(name), _root() / f"{what}s" / f"{name}.yaml"
    for found in (path, built):
        if found.is_file():
            return found
    known = sorted(p.stem for p in built.parent.glob("*.yaml"))
    raise ConfigError(f"no {what} called {name} and no such file; {did_you_mean(name, known)}")
