"""A folder of bundles under their own hashes, with where each came from and what its gates said.

`bundles/NAME-SHA12` holds a bundle, `entries/NAME-SHA12.json` its provenance, `gates/SHA256.json` a gate's record. Whatever is
written is there whole or not at all, and one process writes at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medvl.errors import BundleError, ConfigError, did_you_mean
from medvl.files import replace_text, settle
from medvl.models.bundle import Bundle, open_bundle

SHORT = 12
LEAST_PREFIX = 6


def default_folder() -> Path:
    """MEDVL_STORE, else `medvl/store` in the folder where the platform keeps a user's data."""
    if given := os.environ.get("MEDVL_STORE"):
        return Path(given)
    home = Path.home()
    usual = home / "Library" / "Application Support" if sys.platform == "darwin" else home / ".local" / "share"
    return Path(os.environ.get("XDG_DATA_HOME") or usual) / "medvl" / "store"


def _made_from(bundle: Bundle) -> str | None:
    """SHA-256 of the bundle that a bundle was retrained from or is a part of, as its provenance says."""
    told = bundle.values("provenance.json") if "provenance.json" in bundle else {}
    above = told.get("parent") or told.get("narrowed_from") or {}
    return above.get("sha256")


@dataclass(frozen=True)
class Entry:
    """One bundle of a store and where it came from.

    Args:
        key: NAME-SHA12; name, sha256: of the bundle; added: UTC, ISO 8601.
        parent: SHA-256 of the bundle it was made from, None where there was none or it is not known.
        data_sha256: of the data set it learned from; recipe: how; code_version: by which software. None where not told.
        gates: SHA-256 of each gate's record, oldest first.
    """

    key: str
    name: str
    sha256: str
    added: str
    parent: str | None = None
    data_sha256: str | None = None
    recipe: Mapping[str, Any] | str | None = None
    code_version: str | None = None
    gates: tuple[str, ...] = ()


class Shelf:
    """The bundles in `folder`, which is made on the first write; None takes `default_folder`."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder

    def entries(self) -> tuple[Entry, ...]:
        """Every bundle, in the order in which they came."""
        found = [self._entry(path) for path in (self.folder / "entries").glob("*.json")]
        return tuple(sorted(found, key=lambda entry: (entry.added, entry.key)))

    def find(self, name: str) -> Entry:
        """The entry of a key, a bundle's name that only one has, or the beginning of a SHA-256 (six signs or more).

        Raises:
            BundleError: none, or several.
        """
        known = self.entries()
        told = name.lower()
        sha = len(told) >= LEAST_PREFIX and re.fullmatch("[0-9a-f]+", told) is not None
        fits = [e for e in known if name == e.key] or [e for e in known if name == e.name]
        fits = fits or [e for e in known if sha and e.sha256.startswith(told)]
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise BundleError(f"{name} may be any of {', '.join(e.key for e in fits)}; give the whole name")
        hint = did_you_mean(name, [e.key for e in known] + [e.name for e in known]) if known else "the store is empty"
        raise BundleError(f"no bundle called {name} in the store; {hint}")

    def folder_of(self, entry: Entry) -> Path:
        """Where its bundle lies."""
        return self.folder / "bundles" / entry.key

    def gates_of(self, entry: Entry) -> tuple[dict[str, Any], ...]:
        """The records of its gates, oldest first."""
        paths = (self.folder / "gates" / f"{sha}.json" for sha in entry.gates)
        return tuple(plain_values(path) for path in paths)

    def lineage(self, entry: Entry) -> tuple[str, ...]:
        """SHA-256 of its parent, the parent's parent and so on, as far as the store knows."""
        known = {e.sha256: e.parent for e in self.entries()}
        found: list[str] = []
        above = entry.parent
        while above is not None and above not in found:
            found.append(above)
            above = known.get(above)
        return tuple(found)

    def verify(self, entry: Entry) -> Bundle:
        """Its bundle, after every file was checked.

        Raises:
            BundleError: a file is missing or altered, or the bundle is another one than was added.
        """
        bundle = open_bundle(self.folder_of(entry))
        if bundle.sha256 != entry.sha256:
            raise BundleError(f"the bundle under {entry.key} is another one ({bundle.sha256[:SHORT]}); add the right one again")
        return bundle

    def add(
        self,
        bundle_folder: Path,
        *,
        parent: Path | str | None = None,
        data_sha256: str | None = None,
        recipe: Mapping[str, Any] | str | None = None,
        code_version: str | None = None,
        gate: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Copy a bundle into the store; one that is there already stays, and is told what it was not told before.

        Args:
            bundle_folder: of the bundle.
            parent: SHA-256 of the bundle it was made from, or its folder, which is then added too, so that one can go back to it.
                None for what the bundle itself says.
            data_sha256: of the data set it learned from.
            recipe: how, as plain values or text.
            code_version: by which software.
            gate: the record of a gate that judged it, as `gate.json` holds it.

        Raises:
            BundleError: a bundle is not whole.
            ConfigError: the gate judged another bundle.
        """
        opened = open_bundle(bundle_folder)
        above = self.add(parent).sha256 if isinstance(parent, Path) else parent or _made_from(opened)
        with self.locked():
            entry = self._take_in(opened)
            entry = replace(
                entry,
                parent=above if entry.parent is None else entry.parent,
                data_sha256=data_sha256 if entry.data_sha256 is None else entry.data_sha256,
                recipe=recipe if entry.recipe is None else entry.recipe,
                code_version=code_version if entry.code_version is None else entry.code_version,
            )
            if gate is not None:
                entry = self._with_gate(entry, gate)
            self._write(entry)
        return entry

    def add_gate(self, name: str, gate: Mapping[str, Any]) -> Entry:
        """Keep the record of a gate with the bundle that it judged.

        Raises:
            BundleError: no such bundle. ConfigError: the gate judged another one.
        """
        with self.locked():
            entry = self._with_gate(self.find(name), gate)
            self._write(entry)
        return entry

    def _take_in(self, opened: Bundle) -> Entry:
        """The entry of a bundle that now lies in the store, whole."""
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", opened.name).strip("-.") or "bundle"
        key = f"{safe}-{opened.sha256[:SHORT]}"
        path, place = self.folder / "entries" / f"{key}.json", self.folder / "bundles" / key
        for folder in (path.parent, place.parent, self.folder / "gates"):
            folder.mkdir(exist_ok=True)
        for left in place.parent.glob(".*.part"):
            shutil.rmtree(left)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = self._entry(path) if path.exists() else Entry(key, opened.name, opened.sha256, now)
        try:
            self.verify(entry)
        except BundleError:
            self._copy(opened, place)
            self.verify(entry)
        return entry

    def _copy(self, opened: Bundle, place: Path) -> None:
        part = place.with_name(f".{uuid.uuid4().hex}.part")
        shutil.copytree(opened.folder, part)
        settle(part)
        if place.exists():
            place.rename(place.with_name(f".{uuid.uuid4().hex}.part"))  # what was altered
        part.rename(place)
        settle(place)

    def _with_gate(self, entry: Entry, gate: Mapping[str, Any]) -> Entry:
        try:
            judged, against, passed = gate["after"]["sha256"], gate["before"]["sha256"], gate["passed"]
        except (KeyError, TypeError) as error:
            raise ConfigError("this is no record of a gate; give the gate.json that medvl gate wrote") from error
        if judged != entry.sha256 or not isinstance(against, str) or not isinstance(passed, bool):
            raise ConfigError(f"this gate judged bundle {str(judged)[:SHORT]}, not {entry.key}")
        text = json.dumps(gate, indent=1, sort_keys=True, allow_nan=False) + "\n"
        sha = hashlib.sha256(text.encode()).hexdigest()
        replace_text(self.folder / "gates" / f"{sha}.json", text)
        return replace(entry, gates=(*(g for g in entry.gates if g != sha), sha))

    def _entry(self, path: Path) -> Entry:
        values = plain_values(path)
        try:
            return Entry(**{f.name: values[f.name] for f in fields(Entry)} | {"gates": tuple(values["gates"])})
        except (KeyError, TypeError) as error:
            raise BundleError(
                f"{path.name} in the store is no entry; restore it, or delete it and add the bundle again"
            ) from error

    def _write(self, entry: Entry) -> None:
        text = json.dumps(asdict(entry), indent=1, sort_keys=True) + "\n"
        replace_text(self.folder / "entries" / f"{entry.key}.json", text)
        settle(self.folder / "entries")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time, in whatever process; the lock goes with its holder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def plain_values(path: Path) -> dict[str, Any]:
    """Keys and values of a JSON file of the store.

    Raises:
        BundleError: it is not there, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path.name} in the store cannot be read; restore it from a backup") from error
    if not isinstance(found, dict):
        raise BundleError(f"{path.name} in the store holds no keys and values; restore it from a backup")
    return found
