"""The tests of `station_inner.py`, in a network namespace of their own, for Orthanc listens on every interface."""

from __future__ import annotations

from pathlib import Path

import pytest
from orthanc import in_namespace

INNER = Path(__file__).with_name("station_inner.py")
PROGRAMS = ("dciodvfy", "pdftotext")


@pytest.mark.slow
def test_a_night_against_a_real_orthanc(tmp_path: Path) -> None:
    in_namespace(INNER, tmp_path, "-m", "not data", programs=PROGRAMS, timeout_s=900)


@pytest.mark.slow
@pytest.mark.data
def test_a_real_scan_against_a_real_orthanc(tmp_path: Path, shared_data: Path) -> None:
    in_namespace(INNER, tmp_path, "-m", "data", programs=PROGRAMS, timeout_s=600)
