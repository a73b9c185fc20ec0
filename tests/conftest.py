"""Fixtures for every test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny import Tiny


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Whatever a test asks of torch, the next one computes with as many threads as before: sums depend on it to the last bit."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real series and volumes that no clone holds: beside the checkout, or where MEDVL_SHARED_DATA says."""
    folder = Path(os.environ.get("MEDVL_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no shared data: put it at {folder}, or set MEDVL_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A finished training run of seconds, with its bundle; not to be changed by a test."""
    from tiny import train

    return train(tmp_path_factory.mktemp("tiny"))
