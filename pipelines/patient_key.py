"""The site's patient key: a file that `infer`, `listen`, `ingest` and `embed` are given, so that they link the same patient."""

from __future__ import annotations

import os
from pathlib import Path

from medvl.errors import ConfigError

from .console import warn

VARIABLE = "MEDVL_PATIENT_KEY"
_LEAST = 16


def patient_key(given: Path | None, out: Path) -> bytes:
    """The key in the file `given`, else in that of the variable `MEDVL_PATIENT_KEY`, made at first use; empty without either.

    Args:
        given: file of the key.
        out: folder that the command writes, in which the key must not lie.

    Raises:
        ConfigError: the key lies in `out`, others may read it, or it is no key.
    """
    named = os.environ.get(VARIABLE, "")
    path = given or (Path(named) if named else None)
    if path is None:
        return b""
    if path.resolve().is_relative_to(out.resolve()):
        raise ConfigError("the patient key lies in the folder that is written and would go wherever that goes; keep it elsewhere")
    from .deidentify import key_of

    fresh = not path.exists()
    key = key_of(path, "--patient-key")
    if len(key) < _LEAST:
        raise ConfigError(f"the patient key has {len(key)} bytes, not {_LEAST} or more; give a new name, and one is made")
    if fresh:
        warn(
            f"made a new patient key: {path}. Give it to infer, listen, ingest and embed, keep a copy, and never pass it on: "
            "whoever has it can try patient numbers against the links"
        )
    return key
