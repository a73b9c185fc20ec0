"""Numbers on the look of a crop: right values on drawn images, and a phantom is told from the same phantom with real texture."""

from __future__ import annotations

import numpy as np
import pytest

from medvl.evaluation.outliers import fit
from medvl.imaging.appearance import BANDS_HU, QUANTILES, SCALES, appearance


def _drawn(seed: int, grain: float = 0.0) -> np.ndarray:
    """Soft tissue with fat around it, noise, and with `grain` slow unevenness that no noise makes."""
    rng = np.random.default_rng(seed)
    d, h, w = np.ogrid[:24, :24, :24]
    body = (d - 12) ** 2 + (h - 12) ** 2 + (w - 12) ** 2 < rng.uniform(60, 110)
    hu = np.where(body, rng.uniform(30, 120), -100.0) + rng.normal(0, 12, body.shape)
    slow = rng.normal(0, grain, (6, 6, 6)) if grain else np.zeros((6, 6, 6))
    return np.rint(hu + np.kron(slow, np.ones((4, 4, 4)))).astype(np.int16)


def test_a_flat_image_has_no_steps_and_one_band() -> None:
    found = appearance(np.full((16, 16, 16), 40, np.int16))
    n = len(QUANTILES)
    np.testing.assert_allclose(found[:n], 0.4)
    shares = found[n : n + len(BANDS_HU) + 1]
    assert shares.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    assert not found[n + len(shares) :].any()
    assert len(found) == n + len(shares) + 2 + 5 * len(SCALES)


def test_a_slope_has_the_same_steepness_everywhere_and_more_of_it_when_coarse() -> None:
    z, y, x = np.meshgrid(*[np.arange(16)] * 3, indexing="ij")
    found = appearance((2 * z + 3 * y + 6 * x - 50).astype(np.int16))
    steep = np.expm1(found[-15:].reshape(3, 5))
    np.testing.assert_allclose(steep, np.array([7.0, 14.0, 28.0])[:, None] * np.ones((3, 5)), rtol=1e-4)


def test_texture_that_training_never_had_is_unfamiliar() -> None:
    training, validation = (np.stack([appearance(_drawn(s)) for s in seeds]) for seeds in (range(300), range(300, 400)))
    usual = fit(training, validation, least_spread=0.001)
    alike = usual.distance(np.stack([appearance(_drawn(s)) for s in range(400, 440)]))
    grainy = usual.distance(np.stack([appearance(_drawn(s, grain=25)) for s in range(400, 440)]))
    assert (alike <= usual.limit).mean() > 0.95
    assert (grainy > usual.limit).all()


@pytest.mark.parametrize("shape", [(16, 20, 24), (9, 8, 31)])
def test_any_grid_will_do(shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(0).integers(-1000, 2000, shape).astype(np.int16)
    assert np.isfinite(appearance(noise)).all()
