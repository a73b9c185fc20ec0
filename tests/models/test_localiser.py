"""Where the localiser says a region is, in millimetres of the patient."""

import numpy as np
import pytest
import torch
from torch import Tensor

from medvl.geometry import Geometry
from medvl.models.config import LocaliserConfig
from medvl.models.localiser import Localiser, coarse_geometry
from medvl.records import Volume


def oblique(shape: tuple[int, int, int] = (31, 57, 71)) -> Geometry:
    """A scan of 2.5/0.8/0.7 mm, turned about two axes and stored feet first, far from the origin."""
    a, b = np.radians(17), np.radians(-9)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    upright = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ upright * np.array([2.5, 0.8, 0.7])
    affine[:3, 3] = (-310.0, 45.0, -900.0)
    return Geometry(shape, affine)


@pytest.mark.parametrize("spacing", [6.0, 3.7])
def test_coarse_grid_covers_the_scan_to_its_borders(spacing: float) -> None:
    scan = oblique()
    grid = coarse_geometry(scan, spacing)
    d, h, w = (n - 0.5 for n in scan.shape_dhw)
    corners = scan.to_lps([(i, j, k) for i in (-0.5, d) for j in (-0.5, h) for k in (-0.5, w)])
    assert grid.contains(corners).all()
    assert grid.axes == "SPL"
    np.testing.assert_allclose(grid.spacing_mm, spacing)
    assert all(n % 4 == 0 for n in grid.shape_dhw)
    assert len(set(grid.shape_dhw)) > 1, "a cube would hide exchanged axes"
    spare = np.array(grid.extent_mm) - np.ptp(corners, axis=0)[::-1]
    assert (spare < 8 * spacing).all()


def test_coarse_grid_of_an_absurd_scan_stays_small() -> None:
    grid = coarse_geometry(Geometry.centered((0, 0, 0), (900, 10, 12), (10.0, 1.0, 1.0)), 6.0)
    assert grid.extent_mm[0] <= 2400 + 24


class Marked(Localiser):
    """A localiser whose network always marks the same two places, as fractional indices of the coarse grid."""

    truth = ((4.3, 13.6, 6.2), (9.7, 3.1, 11.4))

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen = pixels
        axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in pixels.shape[2:]), indexing="ij")
        squares = [sum((axis - c) ** 2 for axis, c in zip(axes, center, strict=True)) for center in self.truth]
        heat = torch.stack([torch.exp(-square / 8) * 0.8 for square in squares]).clamp(1e-6)
        return torch.logit(heat)[None]


def test_locate_finds_the_peak_in_patient_millimetres() -> None:
    config = LocaliserConfig(regions=("kidney_left", "chest"), spacing_mm=5.0, channels=(4, 4))
    scan = oblique()
    hu = np.full(scan.shape_dhw, 40, np.int16)
    model = Marked(config)
    found = model.locate(Volume(hu, scan))
    grid = coarse_geometry(scan, 5.0)
    assert tuple(model.seen.shape) == (1, 2, *grid.shape_dhw)
    for name, center in zip(config.regions, Marked.truth, strict=True):
        assert np.abs(found[name].center_lps - grid.to_lps(center)).max() < 2.5
        assert 0.7 < found[name].confidence <= 0.8


def test_windows_map_hounsfield_units_to_unit_range() -> None:
    config = LocaliserConfig(windows_hu=((-1000.0, 500.0), (-150.0, 250.0)))
    seen = Localiser(config).windows(np.array([[[-2000, -1000, 50, 500, 3000]]], np.int16))
    np.testing.assert_allclose(seen[0, 0, 0, 0], [0, 0, 0.7, 1, 1], atol=1e-6)
    np.testing.assert_allclose(seen[0, 1, 0, 0], [0, 0, 0.5, 1, 1], atol=1e-6)
