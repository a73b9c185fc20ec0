"""Volumes in the dataset cache: int16 HU in blocks that unpack alone, with their place, and nothing that names a patient.

A file is 8 bytes of magic, the length of the header (8 bytes, little endian), the header (JSON) and the blocks. A block of
(32, 64, 64) voxels is stored as differences along W, folded so that small ones of either sign are small numbers, its low bytes
before its high bytes, packed by Zstandard. `docs/explanation/dataset-cache.md` says what else was measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medvl.errors import InputError
from medvl.files import whole
from medvl.geometry import Geometry
from medvl.records import Reason, Volume

SUFFIX = ".mvol"
MAGIC = b"MEDVLCT1"
BLOCK = (32, 64, 64)
LEVEL = 1
MAX_HEADER = 64 << 20
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, IndexError)
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class VolumeHeader:
    """What a file says of itself before its blocks.

    Args:
        geometry: of the volume; facts: plain values; reasons: warnings of when it was read from its source.
        sha256: of the voxels and their place, see `content_hash`.
        block: shape of the blocks; places: (first byte, length, CRC-32) of each, rows of blocks last axis fastest.
    """

    geometry: Geometry
    facts: Mapping[str, Any]
    reasons: tuple[Reason, ...]
    sha256: str
    block: Triple
    places: tuple[tuple[int, int, int], ...] = field(repr=False)


def content_hash(hu: NDArray[np.int16], geometry: Geometry) -> str:
    """SHA-256 of shape, affine to 1e-4 mm and voxels; the same however they are packed."""
    affine = (np.round(geometry.affine_lps, 4) + 0.0).tolist()
    digest = hashlib.sha256(json.dumps([list(geometry.shape_dhw), affine]).encode())
    digest.update(np.ascontiguousarray(hu, "<i2").tobytes())
    return digest.hexdigest()


def as_int16(hu: NDArray[Any]) -> NDArray[np.int16]:
    """Rounded HU, cut at the ends of int16."""
    if hu.dtype == np.int16:
        return hu
    return np.asarray(np.clip(np.rint(hu), -32768, 32767), np.int16)


def write_volume(volume: Volume, path: Path, facts: Mapping[str, Any] | None = None) -> str:
    """Write a file that is there whole, on the disk, or not at all; equal volumes give equal bytes.

    Args:
        volume: (D, H, W) HU; values that are no whole numbers are rounded.
        path: ends in `SUFFIX`.
        facts: kept in the header, JSON values; None keeps none.

    Returns:
        Its `content_hash`.
    """
    hu = as_int16(volume.hu)
    packer, places, start = _codec(), [], 0
    packed = []
    for part in _parts(volume.geometry.shape_dhw, BLOCK):
        data = packer.compress(_folded(hu[part]), asbytes=True)
        packed.append(data)
        places.append((start, len(data), zlib.crc32(data)))
        start += len(data)
    sha256 = content_hash(hu, volume.geometry)
    header = {
        "shape_dhw": list(volume.geometry.shape_dhw),
        "affine_lps": volume.geometry.affine_lps.tolist(),
        "facts": dict(facts or {}),
        "reasons": [[r.code, r.message] for r in volume.reasons],
        "sha256": sha256,
        "block": list(BLOCK),
        "places": places,
    }
    head = json.dumps(header, separators=(",", ":")).encode()
    with whole(path) as part_path, part_path.open("xb") as file:
        file.write(MAGIC + len(head).to_bytes(8, "little") + head)
        file.writelines(packed)
        file.flush()
        os.fsync(file.fileno())
    return sha256


def read_header(path: Path) -> VolumeHeader:
    """The header of a file.

    Raises:
        InputError: ``unreadable_file``.
    """
    try:
        with path.open("rb") as file:
            return _header(file)[0]
    except _DAMAGED as error:
        raise _unreadable(error) from error


def read_volume(path: Path) -> Volume:
    """The whole volume, int16.

    Raises:
        InputError: ``unreadable_file`` where it is not there, damaged, or cut short.
    """
    return read_crop(path)


def read_crop(path: Path, start_dhw: Triple = (0, 0, 0), shape_dhw: Triple | None = None) -> Volume:
    """The voxels from `start_dhw`, `shape_dhw` of them, which must lie inside; only the blocks that they touch are read.

    Raises:
        InputError: ``unreadable_file`` where the file is not there, damaged, or cut short.
        ValueError: the crop reaches outside.
    """
    try:
        with path.open("rb") as file:
            header, base = _header(file)
            shape = header.geometry.shape_dhw if shape_dhw is None else shape_dhw
            ends = tuple(s + n for s, n in zip(start_dhw, shape, strict=True))
            inside = min(start_dhw) >= 0 and min(shape) > 0 and all(np.less_equal(ends, header.geometry.shape_dhw))
            hu = _fill(file, base, header, start_dhw, shape) if inside else None
    except _DAMAGED as error:
        raise _unreadable(error) from error
    if hu is None:
        raise ValueError(f"the crop {start_dhw} + {shape} lies outside of {header.geometry.shape_dhw}")
    return Volume(hu, header.geometry.crop(start_dhw, shape), header.reasons, dict(header.facts))


def _fill(file: IO[bytes], base: int, header: VolumeHeader, start: Triple, shape: Triple) -> NDArray[np.int16]:
    hu, packer = np.empty(shape, np.int16), _codec()
    for part, (first, length, crc) in zip(_parts(header.geometry.shape_dhw, header.block), header.places, strict=True):
        low = [max(p.start, s) for p, s in zip(part, start, strict=True)]
        high = [min(p.stop, s + n) for p, s, n in zip(part, start, shape, strict=True)]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            continue
        file.seek(base + first)
        data = file.read(length)
        if zlib.crc32(data) != crc:
            raise ValueError("a block is damaged")
        block = tuple(p.stop - p.start for p in part)
        voxels = _unfolded(packer.decompress(data, 2 * int(np.prod(block)), asbytes=True), block)
        here = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
        there = tuple(slice(a - p.start, b - p.start) for a, b, p in zip(low, high, part, strict=True))
        hu[here] = voxels[there]
    return hu


def _header(file: IO[bytes]) -> tuple[VolumeHeader, int]:
    """The header, and where the blocks begin."""
    first = file.read(16)
    length = int.from_bytes(first[8:], "little")
    if first[:8] != MAGIC or length > MAX_HEADER:
        raise ValueError("not a volume of a medvl dataset")
    said = json.loads(file.read(length))
    d, h, w = said["shape_dhw"]
    a, b, c = said["block"]
    geometry = Geometry((d, h, w), np.asarray(said["affine_lps"]))
    reasons = tuple(Reason(code, message) for code, message in said["reasons"])
    places = tuple((int(x), int(y), int(z)) for x, y, z in said["places"])
    return VolumeHeader(geometry, said["facts"], reasons, said["sha256"], (a, b, c), places), 16 + length


def _parts(shape: Triple, block: Triple) -> Iterator[tuple[slice, slice, slice]]:
    starts = [range(0, n, b) for n, b in zip(shape, block, strict=True)]
    for corner in product(*starts):
        d, h, w = (slice(s, min(s + b, n)) for s, b, n in zip(corner, block, shape, strict=True))
        yield d, h, w


def _folded(block: NDArray[np.int16]) -> bytes:
    """Differences along W (modulo 2^16), zigzag, low bytes then high bytes."""
    steps = np.array(block)
    steps[..., 1:] -= block[..., :-1]
    folded = ((steps << 1) ^ (steps >> 15)).astype("<i2", copy=False)
    return folded.reshape(-1).view(np.uint8).reshape(-1, 2).T.tobytes()


def _unfolded(data: bytes, shape: tuple[int, ...]) -> NDArray[np.int16]:
    pairs = np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(2, -1).T)
    folded = pairs.view("<u2").reshape(shape)
    steps = (folded >> 1).astype(np.int16) ^ -(folded & 1).astype(np.int16)
    return np.asarray(np.cumsum(steps, axis=-1, dtype=np.int16))


def _codec() -> Any:
    import pyarrow as pa

    return pa.Codec("zstd", compression_level=LEVEL)


def _unreadable(error: Exception) -> InputError:
    return InputError(
        "unreadable_file",
        f"the cached volume is not there, damaged or cut short ({type(error).__name__}); run medvl ingest again",
    )
