"""Names of what ships with medvl: bundles, recipes, findings lists; and of bundles in the store."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import BundleError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from medvl.models.store import BundleStore, Entry
    from medvl.recipe import Recipe

PROMOTED = "promoted"


def _root() -> Path:
    return Path(str(files("medvl_configs")))


def bundles() -> dict[str, Path]:
    """Built-in bundles by name."""
    folder = _root() / "bundles"
    return {p.name: p for p in sorted(folder.iterdir()) if (p / "bundle.json").is_file()} if folder.is_dir() else {}


def bundle_folder(name: str, store: Path | None = None) -> Path:
    """The folder of a bundle.

    Args:
        name: `promoted` for the one in use in the store; else a built-in one, a folder, or what the store knows by name, key or
            beginning of a SHA-256, looked up in this order.
        store: folder of the store; None takes the default one.

    Raises:
        BundleError: none of these, or nothing is promoted.
    """
    from medvl.models.store import BundleStore

    kept = BundleStore(store)
    if name == PROMOTED:
        folder = kept.current()
        if folder is None:
            raise BundleError(f"no bundle is promoted in the store at {kept.folder}; see medvl bundles list")
        return folder
    if name in bundles():
        return bundles()[name]
    if Path(name).is_dir():
        return Path(name)
    return kept.folder_of(_stored(kept, name))


def _stored(kept: BundleStore, name: str) -> Entry:
    """The entry of a store by its name.

    Raises:
        BundleError: none, or several.
    """
    found = kept.entries()
    if not any(name in (e.key, e.name) or e.sha256.startswith(name.lower()) for e in found):
        known = [PROMOTED, *bundles(), *(e.name for e in found)]
        raise BundleError(f"no bundle called {name}, no such folder, and none in the store; {did_you_mean(name, known)}")
    return kept.find(name)


def recipes() -> dict[str, str]:
    """Built-in recipes by name, each with its summary."""
    return _summaries("recipes")


def recipe_file(name: str) -> Path:
    """The file of a recipe given by name or path.

    Raises:
        ConfigError: neither.
    """
    return _file("recipe", name)


def recipe_called(name: str) -> Recipe | None:
    """The built-in recipe of that name, which made the built-in bundle of that name; None where there is none."""
    from medvl.recipe import load_recipe

    return load_recipe(recipe_file(name)) if name in recipes() else None


def protocols() -> dict[str, str]:
    """Built-in protocols by name, each with its summary."""
    return _summaries("protocols")


def protocol_file(name: str) -> Path:
    """The file of a protocol given by name or path.

    Raises:
        ConfigError: neither.
    """
    return _file("protocol", name)


def gates() -> dict[str, str]:
    """Built-in policies of a gate by name, each with its summary."""
    return _summaries("gates")


def gate_file(name: str) -> Path:
    """The file of a gate's policy given by name or path.

    Raises:
        ConfigError: neither.
    """
    return _file("gate", name)


def plan_file(name: str) -> Path:
    """The file of a retraining plan given by name or path.

    Raises:
        ConfigError: neither.
    """
    return _file("plan", name)


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
