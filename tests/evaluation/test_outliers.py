"""Familiarity: far features are flagged, features like the training ones pass."""

import numpy as np
import pytest

from medvl.evaluation.outliers import Familiarity, fit

WIDTH = 30


def _features(n: int, seed: int) -> np.ndarray:
    """Correlated features: six strong directions, little elsewhere, far from the origin."""
    mixing = np.random.default_rng(99).normal(size=(6, WIDTH)) * np.array([9, 5, 3, 2, 1, 0.7])[:, None]
    rng = np.random.default_rng(seed)
    return (40 + rng.normal(size=(n, 6)) @ mixing + rng.normal(0, 0.2, (n, WIDTH))).astype(np.float32)


@pytest.fixture(scope="module")
def familiar() -> Familiarity:
    return fit(_features(1500, 0), _features(1500, 1), n_directions=8)


def test_about_the_stated_share_of_new_familiar_regions_passes(familiar: Familiarity) -> None:
    distance = familiar.distance(_features(8000, 2))
    assert np.median(distance) == pytest.approx(1, abs=0.2)
    limit = familiar.limit / 1.1
    assert (distance <= limit).mean() == pytest.approx(0.995, abs=0.004)
    assert (distance <= familiar.limit).mean() > 0.995


def test_far_features_are_flagged_along_strong_and_along_unused_directions(familiar: Familiarity) -> None:
    usual = _features(200, 3)
    rng = np.random.default_rng(4)
    unused = rng.normal(size=WIDTH)
    strong = np.linalg.svd(_features(1500, 0) - 40, full_matrices=False)[2][0]
    basis = np.linalg.svd(_features(1500, 0) - _features(1500, 0).mean(0), full_matrices=False)[2][:8]
    unused -= basis.T @ (basis @ unused)
    unused /= np.linalg.norm(unused)
    for shift in (500 * strong, 30 * unused):
        assert (familiar.distance((usual + shift).astype(np.float32)) > familiar.limit).all()
    # The same step is far where training features hardly vary, and nothing where they vary a lot.
    assert (familiar.distance((usual + 10 * strong).astype(np.float32)) < familiar.limit).mean() > 0.9
    assert (familiar.distance((usual + 10 * unused).astype(np.float32)) > familiar.limit).mean() > 0.9


def test_with_all_directions_but_one_it_is_the_mahalanobis_distance_plus_one_term() -> None:
    training, new = _features(400, 5), _features(40, 6)
    covariance = np.cov(training.T.astype(np.float64), bias=True)
    values, vectors = np.linalg.eigh(covariance)
    centred = new - training.mean(0, dtype=np.float64)
    terms = (centred @ vectors) ** 2 / values
    expected = np.sqrt(terms.sum(1) / WIDTH)
    found = fit(training, new, n_directions=WIDTH, least_spread=1e-4).distance(new)
    assert np.allclose(found, expected, rtol=5e-3)


def test_the_limit_is_validations_quantile_and_a_tenth() -> None:
    training, validation = _features(300, 7), _features(200, 8)
    found = fit(training, validation, n_directions=5, share=0.8)
    assert (found.distance(validation) > found.limit / 1.1).mean() == pytest.approx(0.2, abs=0.01)
    assert found.limit < fit(training, validation, n_directions=5).limit


def test_fewer_training_rows_than_directions_still_give_finite_distances() -> None:
    found = fit(_features(12, 9), _features(20, 10))
    assert np.isfinite(found.distance(_features(5, 11))).all()
    assert np.isfinite(found.limit)


def test_features_that_never_vary_in_training_do_not_swamp_the_rest() -> None:
    """Rectified features can be dead in a small training set; validation that differs there by rounding stays near 1."""
    training, validation, far = (_features(24, seed) for seed in (12, 13, 14))
    for part in (training, validation, far):
        part[:, ::2] = 3.0
    validation[:, ::2] += np.random.default_rng(15).normal(0, 1e-4, validation[:, ::2].shape).astype(np.float32)
    found = fit(training, validation)
    assert found.limit < 10
    far[:, ::2] += 60
    assert (found.distance(far) > found.limit).all()
