"""Small phantom studies, and the many ways in which a study can be bad."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.render import render, scanner_geometry
from medvl.imaging.phantom.sample import sample_patient

SEED = 4
SPACING_MM = (10.0, 5.0, 5.0)
Spoil = Callable[[Path, random.Random], None]


def good(folder: Path, number: int) -> Path:
    """A study of a phantom on a small grid: about 30 to 50 slices of 50 x 65."""
    patient = sample_patient(SEED, number)
    write_dicom(render(patient, scanner_geometry(patient, SPACING_MM)), patient, folder)
    return folder


def _files(folder: Path, rng: random.Random, share: float) -> list[Path]:
    paths = sorted(folder.glob("*.dcm"))
    return rng.sample(paths, max(1, round(share * len(paths))))


def _flip(path: Path, rng: random.Random, low: int, high: int, n: int) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(n):
        data[rng.randrange(low, min(high, len(data)))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def header_bits(folder: Path, rng: random.Random) -> None:
    """Bits flipped in the headers of every file."""
    for path in _files(folder, rng, 1.0):
        _flip(path, rng, 128, 1400, 40)


def pixel_bits(folder: Path, rng: random.Random) -> None:
    """Bits flipped in the pixels of a third of the files: nobody can tell them from pixels."""
    for path in _files(folder, rng, 0.3):
        _flip(path, rng, 2000, 1 << 30, 20)


def cut(folder: Path, rng: random.Random) -> None:
    """Half of the files end early, somewhere."""
    for path in _files(folder, rng, 0.5):
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(1, len(data) - 1)])


def cut_one(folder: Path, rng: random.Random) -> None:
    """One file, not the first or last, ends in the middle of its pixels."""
    path = sorted(folder.glob("*.dcm"))[rng.randrange(5, 20)]
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(2000, len(data) - 100)])


def empty(folder: Path, rng: random.Random) -> None:
    """Files of no bytes."""
    for path in _files(folder, rng, 1.0):
        path.write_bytes(b"")


def garbage(folder: Path, rng: random.Random) -> None:
    """Random bytes in place of each file, half of them after a DICOM preamble."""
    for k, path in enumerate(_files(folder, rng, 1.0)):
        path.write_bytes((b"\0" * 128 + b"DICM" if k % 2 else b"") + rng.randbytes(3000))


def gone(folder: Path, rng: random.Random) -> None:
    """A third of the slices is missing."""
    for path in _files(folder, rng, 0.33):
        path.unlink()


def letters(folder: Path, _rng: random.Random) -> None:
    """No images at all."""
    for path in folder.glob("*.dcm"):
        path.unlink()
    (folder / "letter.txt").write_text("Dear colleague")


def a_zip(folder: Path, rng: random.Random) -> None:
    """A zip archive with its end cut off, in place of the folder."""
    made = Path(shutil.make_archive(str(folder), "zip", folder))
    shutil.rmtree(folder)
    data = made.read_bytes()
    made.write_bytes(data[: rng.randrange(len(data) // 3, len(data) - 200)])


def a_nifti(folder: Path, rng: random.Random) -> None:
    """Noise under the name of a NIfTI file, in place of the folder."""
    shutil.rmtree(folder)
    folder.with_suffix(".nii.gz").write_bytes(rng.randbytes(5000))


BAD: dict[str, Spoil] = {
    "header bits": header_bits,
    "files cut": cut,
    "one slice cut": cut_one,
    "empty files": empty,
    "garbage": garbage,
    "slices missing": gone,
    "no images": letters,
    "zip cut": a_zip,
    "no NIfTI": a_nifti,
    "pixel bits": pixel_bits,
}


def cohort(
    folder: Path, n_good: int, n_bad: int, seed: int, kinds: Sequence[str] = tuple(BAD)
) -> tuple[list[Path], dict[Path, str]]:
    """Good studies with bad ones spread among them.

    Returns:
        All inputs in their order, and for the bad ones of which kind they are. What lies there from an earlier call is used.
    """
    rng = random.Random(seed)
    places = set(rng.sample(range(n_good + n_bad), n_bad))
    inputs, bad, n_spoilt = [], {}, 0
    for number in range(n_good + n_bad):
        study = folder / f"{number:03d}"
        kind = kinds[n_spoilt % len(kinds)] if number in places else ""
        n_spoilt += bool(kind)
        made = next((p for p in (study, study.with_suffix(".zip"), study.with_suffix(".nii.gz")) if p.exists()), None)
        if made is None:
            part = folder / f".{number:03d}"
            good(part, number)
            part.rename(study)
            if kind:
                BAD[kind](study, random.Random(f"{seed} {number}"))
            made = next(p for p in (study, study.with_suffix(".zip"), study.with_suffix(".nii.gz")) if p.exists())
        inputs.append(made)
        if kind:
            bad[made] = kind
    return inputs, bad
