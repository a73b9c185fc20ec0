"""A predictor from the tiny bundle, and studies for it."""

from __future__ import annotations

import pytest
from tiny import Tiny, patient, places

from medvl.imaging.phantom.truth import Patient
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle


@pytest.fixture(scope="session")
def loaded(tiny_run: Tiny) -> Predictor:
    """The tiny bundle, loaded once."""
    return Predictor(open_bundle(tiny_run.bundle))


@pytest.fixture(scope="session")
def who() -> Patient:
    """A phantom scanned from chest to pelvis."""
    return patient(3)


@pytest.fixture
def predictor(loaded: Predictor, who: Patient, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """The tiny bundle with a localiser that is right about `who`, so that every region is usable."""
    monkeypatch.setattr(loaded.prepare.localiser, "locate", lambda _volume: places(who))
    return loaded
