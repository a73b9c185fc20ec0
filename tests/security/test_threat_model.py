"""The limits that the threat model tells are constants of the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "threat-model.md"
MODULES = {
    "archive": "medvl.dicom.archive",
    "header": "medvl.dicom.header",
    "frames": "medvl.dicom.frames",
    "nifti": "medvl.imaging.nifti",
    "deidentify_files": "medvl.delivery.deidentify_files",
}
UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "bytes": 1}


def test_every_limit_of_the_page_is_a_constant_of_that_value() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| `(\w+)\.(\w+)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 15
    for told, module, name in rows:
        value = getattr(importlib.import_module(MODULES[module]), name)
        if not isinstance(value, int):
            continue
        first = re.match(r"([\d ]*\d)(?:\^(\d+))?(?: x (\d+))? ?(?:(GiB|MiB|KiB|bytes))?", told)
        assert first is not None, told
        number = int(first[1].replace(" ", ""))
        number = number ** int(first[2]) if first[2] else number * int(first[3] or 1) * UNITS.get(first[4] or "", 1)
        assert number == value, f"{module}.{name} is {value}, the page says {told}"
