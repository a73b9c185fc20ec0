"""Images that come from a PACS, on disk."""

from __future__ import annotations

import os
from pathlib import Path

from medvl.network.fetched import Fetched


def test_images_are_for_their_owner_alone_whatever_the_mask(tmp_path: Path) -> None:
    folder = tmp_path / "spool" / "case"
    before = os.umask(0)
    try:
        folder.mkdir(parents=True)  # as versions of before left it
        fetched = Fetched(folder, {"1.2": 1}, 1 << 20)
        for kind, data in (("start", b""), ("data", bytes(128) + b"DICM" + bytes(10)), ("end", b"")):
            fetched.take(kind, data)  # type: ignore[arg-type]
        fetched.finish("1.2", 1)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {"000001.dcm": 0o600, ".fetched.json": 0o600}
