"""Fixtures of the reviews' tests."""

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from reviewed import CASE, write

from medvl.delivery.objects import make_objects
from medvl.imaging.load import load
from medvl.review.desk import Reviews
from medvl.text.prompts import load_findings

sys.path.append(str(Path(__file__).parents[1] / "delivery"))
from finished import finished, series


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Reviews]:
    """The reviews of a folder with one study."""
    with Reviews(write(tmp_path / "results")) as desk:
        yield desk


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder about a real DICOM series with an accented patient name; not to be changed by a test."""
    root = tmp_path_factory.mktemp("real")
    ct = series(root / "ct", "ISO_IR 100", PatientName="Müller^Jörg".encode("latin-1"))
    entry = load(ct).chosen
    assert entry is not None
    assert entry.geometry is not None
    study = finished(root / "results", entry.geometry.center_lps)
    findings = load_findings(Path(__file__).parents[2] / "configs" / "findings" / "phantom.yaml")
    make_objects(study, entry, study / "dicom", kinds=("sr", "seg"), made_at=datetime(2026, 3, 4, 5, 6, 7), findings=findings)
    (root / "results" / "sources.json").write_text(json.dumps({CASE: {"path": str(ct), "series_key": entry.key}}))
    return root / "results"
