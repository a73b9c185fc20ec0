"""Proportional odds against plain likelihoods, against logistic regression, and against the odds that made the data."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize
from sklearn.linear_model import LogisticRegression

from medvl.errors import ConfigError
from medvl.heads.ordinal import _loss, fit_ordinal


def _made(n: int, seed: int, cuts: tuple[float, ...] = (-1.0, 1.5)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (n, 4)) * [1, 20, 0.1, 1] + 3
    latent = (x - 3) @ [1.2, -0.05, 4.0, 0.0] + rng.logistic(size=n)
    return x, (latent[:, None] > np.array(cuts)).sum(1)


def _plain(theta: np.ndarray, x: np.ndarray, y: np.ndarray, penalty: float) -> float:
    """The likelihood as the textbook writes it, cuts as they are."""
    edges = np.concatenate([[-np.inf], theta[4:], [np.inf]])
    below = [1 / (1 + np.exp(-(edge - x @ theta[:4]))) for edge in edges]
    chance = np.stack([b - a for a, b in pairwise(below)], 1)
    return float(-np.log(chance[np.arange(len(y)), y]).mean() + penalty / 2 * (theta[:4] ** 2).sum())


def test_equals_the_textbook_likelihood_minimised_without_gradients() -> None:
    x, y = _made(150, 0)
    probe = fit_ordinal((x, y), (x, y), 3, penalties=[0.02])
    rows = (x - x.mean(0)) / x.std(0)
    start = np.array([0, 0, 0, 0, -1.0, 1.0])
    found = minimize(_plain, start, (rows, y, 0.02), "Nelder-Mead", options={"maxiter": 20000, "xatol": 1e-8, "fatol": 1e-13}).x
    np.testing.assert_allclose([*probe.weights, *probe.cuts], found, atol=2e-4)


def test_two_grades_are_logistic_regression() -> None:
    x, y = _made(200, 1, (0.3,))
    probe = fit_ordinal((x, y), (x, y), 2, penalties=[0.05])
    model = LogisticRegression(C=1 / (0.05 * len(y)), tol=1e-10).fit((x - x.mean(0)) / x.std(0), y)
    np.testing.assert_allclose(probe.weights, model.coef_[0], atol=1e-4)
    np.testing.assert_allclose(probe.cuts, -model.intercept_, atol=1e-4)


def test_gradient() -> None:
    x, y = _made(60, 2, (-1.0, 0.2, 1.0))
    rows = (x - x.mean(0)) / x.std(0)
    for theta in np.random.default_rng(0).normal(0, 0.3, (3, 7)):
        assert check_grad(lambda t: _loss(t, rows, y, 0.1)[0], lambda t: _loss(t, rows, y, 0.1)[1], theta) < 1e-6


def test_probabilities_are_those_of_the_data_and_grades_their_median() -> None:
    (x, y), held = _made(6000, 3), _made(6000, 4)
    probe = fit_ordinal((x, y), held, 3)
    score = probe.score(held[0])
    chance = probe.probabilities(score)
    np.testing.assert_allclose(chance.sum(1), 1)
    np.testing.assert_allclose(chance.mean(0), np.bincount(held[1]) / len(held[1]), atol=0.02)
    median = (np.cumsum(chance, 1)[:, :-1] < 0.5).sum(1)
    np.testing.assert_array_equal(probe.grades(score), median)
    np.testing.assert_allclose(probe.weights, [1.2, -1.0, 0.4, 0.0], atol=0.1)


def test_grades_that_are_not_known_are_silent() -> None:
    x, y = _made(120, 5)
    some = np.where(np.arange(120) % 4 == 0, -1, y)
    a = fit_ordinal((x, some), (x, y), 3, penalties=[0.1])
    b = fit_ordinal((x[some >= 0], y[some >= 0]), (x, y), 3, penalties=[0.1])
    np.testing.assert_array_equal(a.weights, b.weights)


@pytest.mark.parametrize(
    ("y", "held", "n", "says"),
    [
        ([0, 0, 2, 2], [0, 1, 2, 0], 3, r"\[2, 0, 2\]"),
        ([0, 1, 2, 2], [-1, -1, -1, -1], 3, "0 validation rows"),
        ([0, 1, 3, 2], [0, 1, 2, 0], 3, "reach 3"),
    ],
)
def test_what_cannot_be_fitted_is_refused(y: list[int], held: list[int], n: int, says: str) -> None:
    x = np.arange(8.0).reshape(4, 2)
    with pytest.raises(ConfigError, match=says):
        fit_ordinal((x, y), (x, held), n)
