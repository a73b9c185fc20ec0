"""`medvl deidentify`: the images of a folder or archive without identifiers, under names that are running numbers."""

from __future__ import annotations

import stat
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medvl.errors import ConfigError, InputError

from .console import emit_json, err, say, warn

if TYPE_CHECKING:
    from medvl.delivery.deidentify import Deidentifier
    from medvl.delivery.deidentify_files import Counts

KEY_NAME = "medvl-deidentify.key"


def run(
    source: Path,
    *,
    out: Path,
    key_file: Path | None = None,
    retain_uids: bool = False,
    dates: Literal["remove", "shift", "keep"] = "remove",
    retain_device: bool = False,
    retain_patient_characteristics: bool = False,
    clean_descriptors: bool = False,
    burned_in: Literal["refuse", "quarantine", "keep"] = "refuse",
    as_json: bool = False,
) -> int:
    """Exit code 0 when every file was written, 2 for a path that does not exist, 3 when some were refused or quarantined.

    Raises:
        ConfigError: an output folder that holds something, or a key that others may read or that can be guessed.
    """
    if not source.exists():
        warn("there is no such file or folder; check the input's spelling")
        return 2
    from medvl.delivery.deidentify import Deidentifier, Deidentify

    options = Deidentify(retain_uids, dates, retain_device, retain_patient_characteristics, clean_descriptors)
    place = key_file or out.resolve().parent / KEY_NAME
    deidentifier = Deidentifier(key_of(place), options)
    try:
        counts = _with_progress(deidentifier, source, out, burned_in)
    except InputError as error:
        if as_json:
            emit_json({"error": {"code": error.code, "message": error.message}})
        else:
            warn(f"{error.code}: {error.message}")
        return 3
    if as_json:
        emit_json(counts.as_dict() | {"options": asdict(options), "profile": list(options.codes)})
    else:
        _print(counts)
    return 3 if counts.refused else 0


def key_of(path: Path, option: str = "--key-file") -> bytes:
    """The key in `path`, made at first use; refused where others may read it."""
    from medvl.data.identity import folder_key

    try:
        key = folder_key(path)
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OSError, ValueError) as error:
        message = f"the key file cannot be used ({type(error).__name__}); give {option} a file of hex digits, or a new name"
        raise ConfigError(message) from error
    if mode & 0o077:
        raise ConfigError(f"the key file has mode {mode:04o} and others may read it; chmod 600, or take a new key if they did")
    return key


def _with_progress(
    deidentifier: Deidentifier, source: Path, out: Path, burned: Literal["refuse", "quarantine", "keep"]
) -> Counts:
    """The run, with a bar where stderr is a terminal."""
    from rich.progress import Progress

    console = err()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("files", total=None)
        return deidentifier.files(
            source, out, burned=burned, told=lambda done, total: progress.update(task, completed=done, total=total)
        )


def _print(counts: Counts) -> None:
    say(
        f"{counts.written} of {counts.files} files written: {counts.patients} patients, {counts.studies} studies, "
        f"{counts.series} series"
    )
    if counts.quarantined:
        say(f"{counts.quarantined} images in the folder quarantine: look at each before it leaves the house")
    for code, n in sorted(counts.reasons.items()):
        say(f"  {n} x {code}")
    if counts.faces:
        warn(f"{counts.faces} images show a head: a face can be rebuilt from them, and medvl removes none")
    warn("no pixel was looked at: text burned into an image that its header does not tell of is still there")
