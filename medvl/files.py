"""Files that are there whole or not at all, however many processes write them and wherever one is stopped."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def private(folder: Path) -> Path:
    """A folder that its owner alone may enter, whatever the process's mask; made when missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


@contextmanager
def whole(path: Path, mode: int | None = None) -> Iterator[Path]:
    """A hidden neighbour to write to, which takes the place of `path` when the block ends and goes when it fails.

    Args:
        path: to be written.
        mode: the permissions that the file has from its beginning, whatever the process's mask; the mask's own without it.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        if mode is not None:
            part.touch(mode, exist_ok=False)
            part.chmod(mode)
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def replace_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a UTF-8 text file in one move, with the permissions `mode` less the process's mask."""
    with whole(path) as part, os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)


def write_json(path: Path, values: Any, mode: int = 0o666) -> None:
    """Write values as indented JSON, as `replace_text` writes."""
    replace_text(path, json.dumps(values, indent=1) + "\n", mode)


def settle(folder: Path) -> None:
    """Have everything in a folder on the disk itself, so that it outlives a loss of power."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
