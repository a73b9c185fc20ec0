"""What a child remembers between finding a study and reading it changes its speed and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Tiny, places, scan_of

from medvl.batch import child as children
from medvl.batch.child import Child, answer
from medvl.batch.last_found import LastFound
from medvl.imaging.load import load
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.truth import Patient


@pytest.fixture
def study(who: Patient, tmp_path: Path) -> Path:
    """A study with a slice that is there twice."""
    files = write_dicom(scan_of(who), who, tmp_path / "study")
    shutil.copy(files[3], files[3].with_name("again.dcm"))
    return tmp_path / "study"


@pytest.fixture
def greeting(tiny_run: Tiny, who: Patient) -> dict[str, Any]:
    """What children of these tests are told."""
    given = {name: [[*map(float, place.center_lps)], 1.0] for name, place in places(who).items()}
    return {"bundle": str(tiny_run.bundle), "key": bytes(32).hex(), "given": given}


def read(child: Child, found: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The answer of a child that reads what was found, without times."""
    job = {"op": "read", "source": found["source"], "series": found["series"], "spool": "", "study_bytes": 0}
    text, arrays = answer(child, json.loads(json.dumps(job)))
    return {k: v for k, v in text.items() if k != "timings"}, arrays


def test_read_at_once_or_by_another_child_is_the_same(
    study: Path, greeting: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    finder, other, looked = Child(greeting), Child(greeting), []
    monkeypatch.setattr(children, "_entry", lambda source, whole=children._entry: looked.append(source) or whole(source))
    found = answer(finder, {"op": "find", "path": str(study)})[0]["studies"][0]
    at_once, grids = read(finder, found)
    assert not looked
    later, same = read(other, found)
    assert len(looked) == 1
    assert at_once == later and "duplicate_slices" in [code for code, _ in at_once["reasons"]]
    assert grids and all(np.array_equal(a, b) for a, b in zip(grids, same, strict=True))
    assert read(finder, found)[0] == later and len(looked) == 2, "it is given back once"


def test_files_that_changed_are_looked_at_again(study: Path) -> None:
    last, entry = LastFound(), load(study).studies[0].entries[0]
    place, first = str(study), study / entry.names[0]
    last.keep(place, entry)
    assert last.take(place, entry.names) is entry
    last.keep(place, entry)
    os.utime(first, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns + 1))
    assert last.take(place, entry.names) is None
    last.keep(place, entry)
    first.unlink()
    assert last.take(place, entry.names) is None
    last.keep(place, entry)
    assert last.take(place, entry.names) is None, "what is gone already is not remembered"
