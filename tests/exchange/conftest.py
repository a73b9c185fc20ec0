"""The built-in bundle, a scan of a phantom, and its regions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import patient, places, scan_of
from torch import Tensor

from medvl.models.bundle import Bundle, open_bundle
from medvl.models.localiser import Place
from medvl.records import Volume


@pytest.fixture(scope="session")
def demo() -> Bundle:
    return open_bundle(Path(__file__).parents[2] / "configs" / "bundles" / "phantom-demo")


@pytest.fixture(scope="session")
def scan() -> Volume:
    return scan_of(patient(5))


@pytest.fixture(scope="session")
def middles() -> dict[str, Place]:
    return places(patient(5))


@pytest.fixture(scope="session")
def crops(demo: Bundle, scan: Volume, middles: dict[str, Place]) -> tuple[Tensor, Tensor]:
    """Pixels (3, C, D, H, W) and kinds (3,) of the scan's regions, by the contract itself."""
    pixels = [demo.contract.apply(scan, middles[name].center_lps, name).pixels for name in demo.contract.names]
    return torch.stack([torch.from_numpy(each) for each in pixels]), torch.tensor([0, 0, 1])
