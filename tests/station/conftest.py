"""Fixtures of the station tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle
from medvl_pipelines import phantom
from medvl_pipelines.built_in import bundle_folder


@pytest.fixture(scope="session")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """DICOM folders of four phantom patients."""
    folder = tmp_path_factory.mktemp("cohort")
    phantom.run(folder, n=4, seed=7)
    return sorted((folder / "dicom").iterdir())


@pytest.fixture(scope="session")
def demo() -> Predictor:
    """The demo bundle, loaded once."""
    return Predictor(open_bundle(bundle_folder("phantom-demo")), "cpu")
