"""Bundles of a few hundred bytes: whole as far as hashes go, and able to answer nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import medvl_configs
from medvl.models.bundle import REQUIRED, Bundle, seal

SHIPPED = Path(medvl_configs.__path__[0]) / "bundles" / "phantom-demo"


def make(folder: Path, text: str, name: str = "made") -> Bundle:
    """A bundle whose card says `text`."""
    folder.mkdir(parents=True)
    for file in REQUIRED:
        (folder / file).write_text(f"{text} {file}\n")
    shutil.copyfile(SHIPPED / "contract.json", folder / "contract.json")
    return seal(folder, name, "medvl test")


def gate(before: str, after: str, *, passed: bool = True, **more: Any) -> dict[str, Any]:
    """What a gate's record must hold for a store."""
    return {"schema": "medvl.gate/1", "passed": passed, "before": {"sha256": before}, "after": {"sha256": after}, **more}
