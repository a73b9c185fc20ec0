"""Vectors of texts on disk by content: a text is encoded once, by any number of runs. The texts themselves are never written.

A cache folder holds a folder for each fingerprint of a tower, with shards in it: safetensors files with `keys` (n, 32) uint8,
which are SHA-256 of fingerprint and text, `vectors` (n, H) float32, and a checksum of both. A shard is written under a name of
its own and renamed when whole, so a process that is killed or runs beside another leaves nothing half done.
"""

from __future__ import annotations

import hashlib
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from medvl.errors import ConfigError
from medvl.files import whole
from medvl.models.towers.base import TextTower

SHARD = 1024


def embed_cached(
    tower: TextTower,
    texts: Sequence[str],
    folder: Path,
    batch: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """(N, H) float32 on the CPU: the pooled vector of each text, from the cache where it holds it.

    Which texts share a batch moves a vector by rounding only. A damaged shard is set aside as `.broken` with a warning, and its
    texts are encoded again.

    Args:
        tower: read as it is, without dropout; its fingerprint is taken once.
        texts: N, in any order; repeats are encoded once.
        folder: of the cache; made if need be. Vectors can tell about the texts: guard it like the reports.
        batch: texts at a time, of similar length.
        progress: called with (encoded, to encode) after each shard.

    Raises:
        ConfigError: a vector is not finite.
    """
    fingerprint = tower.fingerprint()
    place = folder / fingerprint[:32]
    keys = [_key(fingerprint, text) for text in texts]
    found = np.zeros((len(texts), tower.width), np.float32)
    rows: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    missing = dict.fromkeys(rows)
    for shard_keys, vectors in _shards(place, tower.width):
        for key, vector in zip(shard_keys, vectors, strict=True):
            if key in missing:
                found[rows[key]] = vector
                del missing[key]
    todo = sorted(missing, key=lambda key: len(texts[rows[key][0]]))
    for start in range(0, len(todo), SHARD):
        part = todo[start : start + SHARD]
        vectors = tower.embed([texts[rows[key][0]] for key in part], batch=batch).numpy()
        if not np.isfinite(vectors).all():
            raise ConfigError("the text tower gave a vector that is not finite; load it in bfloat16 or float32")
        _write(place, part, vectors)
        for key, vector in zip(part, vectors, strict=True):
            found[rows[key]] = vector
        if progress:
            progress(start + len(part), len(todo))
    return torch.from_numpy(found)


def _key(fingerprint: str, text: str) -> bytes:
    return hashlib.sha256(f"{fingerprint}\n{text}".encode()).digest()


def _checksum(keys: NDArray[Any], vectors: NDArray[Any]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(keys).data)
    digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()


def _shards(place: Path, width: int) -> Iterator[tuple[list[bytes], NDArray[Any]]]:
    """Keys and vectors (n, H) of every whole shard."""
    for path in sorted(place.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                keys, vectors = file.get_tensor("keys"), file.get_tensor("vectors")
                whole = (file.metadata() or {}).get("sha256") == _checksum(keys, vectors)
        except FileNotFoundError:
            continue
        except SafetensorError:
            whole, keys, vectors = False, np.zeros((0, 32)), np.zeros((0, width))
        if not whole or keys.shape != (len(vectors), 32) or vectors.shape[1:] != (width,):
            path.replace(path.with_suffix(".broken"))
            warnings.warn(f"text cache: {path.name} is damaged; set aside, its texts are encoded again", stacklevel=3)
            continue
        yield [row.tobytes() for row in keys], vectors


def _write(place: Path, keys: list[bytes], vectors: NDArray[Any]) -> None:
    """One shard, whole or not at all."""
    place.mkdir(parents=True, exist_ok=True)
    packed = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
    with whole(place / f"{os.getpid()}-{uuid.uuid4().hex}.safetensors") as part:
        save_file({"keys": packed, "vectors": vectors}, part, metadata={"sha256": _checksum(packed, vectors)})
