"""Fixtures of the viewer's tests."""

from pathlib import Path

import pytest
from results_folder import write_results


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with a read, a skipped, a failed, a hostile, a sourceless and a corrupt study."""
    return write_results(tmp_path / "results")
