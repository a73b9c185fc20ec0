"""Fixtures for every test."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real series and volumes that no clone holds: beside the checkout, or where MEDVL_SHARED_DATA says."""
    folder = Path(os.environ.get("MEDVL_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no shared data: put it at {folder}, or set MEDVL_SHARED_DATA")
    return folder
