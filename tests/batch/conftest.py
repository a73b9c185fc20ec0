"""A predictor from the tiny bundle, and a patient for it."""

from __future__ import annotations

import pytest
from tiny import Tiny, patient

from medvl.imaging.phantom.truth import Patient
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle


@pytest.fixture(scope="session")
def predictor(tiny_run: Tiny) -> Predictor:
    """The tiny bundle, loaded once."""
    return Predictor(open_bundle(tiny_run.bundle))


@pytest.fixture(scope="session")
def who() -> Patient:
    """A phantom scanned from chest to pelvis."""
    return patient(3)
