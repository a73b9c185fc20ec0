"""How a bundle lies in the folders of other software: the weights where that software looks for them, the rest beside, unchanged.

In a folder FOLDER of another layout `weights.safetensors` is `FOLDER/model.safetensors`, byte by byte; every other file is below
`FOLDER/medvl/`, or in FOLDER itself where that software reads the very same file (`tokenizer.json`). So nothing is lost on the
way, and `gather` gives back a bundle of the same hash.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from medvl.errors import BundleError, ConfigError
from medvl.models.bundle import SCHEMA, Bundle, open_bundle, sha256_of

REST = "medvl"
WEIGHTS = "weights.safetensors"
MODEL = "model.safetensors"
MANIFEST = "bundle.json"


class LaidOut(Bundle):
    """A bundle whose files lie as above; `folder` is that of the other layout. Used like any other bundle."""

    def path(self, file: str) -> Path:
        """Where a file of the bundle lies."""
        if file == WEIGHTS:
            return self.folder / MODEL
        kept = self.folder / REST / file
        return kept if kept.is_file() else self.folder / file


@contextmanager
def growing(out: Path) -> Iterator[Path]:
    """A folder to write to that becomes `out` when all went well, and leaves nothing behind when not.

    Raises:
        ConfigError: something is in `out`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there and not empty; name another folder, nothing is overwritten")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        part = Path(scratch) / out.name
        part.mkdir()
        yield part
        if out.is_dir():
            out.rmdir()
        part.replace(out)


def lay_out(bundle: Bundle, folder: Path, shared: Collection[str] = ()) -> LaidOut:
    """Copy a bundle into `folder`.

    Args:
        bundle: opened.
        folder: exists.
        shared: files that the other software reads too, kept in `folder` itself.
    """
    (folder / REST).mkdir()
    shutil.copyfile(bundle.path(MANIFEST), folder / REST / MANIFEST)
    for name in bundle.manifest["files"]:
        to = folder / MODEL if name == WEIGHTS else folder / name if name in shared else folder / REST / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path(name), to)
    return open_laid_out(folder)


def open_laid_out(folder: Path) -> LaidOut:
    """The bundle that lies in `folder`, after checking every file.

    Raises:
        BundleError: no export of medvl, a file missing, or altered since; altered weights no longer fit their calibration.
    """
    try:
        manifest = json.loads((folder / REST / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"no {REST}/{MANIFEST} in {folder}; give a folder that `medvl export` wrote") from error
    except ValueError as error:
        raise BundleError(f"{REST}/{MANIFEST} in {folder} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise BundleError(f"{REST}/{MANIFEST} in {folder} has not the schema {SCHEMA}; this medvl cannot read it")
    bundle = LaidOut(folder, manifest)
    for name, expected in manifest["files"].items():
        _check(bundle, name, expected)
    return bundle


def _check(bundle: LaidOut, name: str, expected: str) -> None:
    path = bundle.path(name)
    if not path.resolve().is_relative_to(bundle.folder.resolve()):
        raise BundleError(f"{MANIFEST} names a file outside the folder: {name}")
    if not path.is_file():
        raise BundleError(f"{name} of the bundle is missing from {bundle.folder}; export it again")
    if sha256_of(path) == expected:
        return
    if name == WEIGHTS:
        raise BundleError(
            f"{MODEL} was altered since the export: calibration and limits were fitted to other weights; "
            "fit them anew by training on from the bundle (`medvl train`), or copy the export again"
        )
    raise BundleError(f"{name} was altered since the export; copy it again")


def gather(folder: Path, out: Path) -> Bundle:
    """The bundle in `folder` as a folder of its own at `out`, with the hash it had before it was exported.

    Raises:
        BundleError: as `open_laid_out`; ConfigError: `out` is there.
    """
    held = open_laid_out(folder)
    with growing(out) as part:
        shutil.copyfile(folder / REST / MANIFEST, part / MANIFEST)
        for name in held.manifest["files"]:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(held.path(name), part / name)
    return open_bundle(out)
