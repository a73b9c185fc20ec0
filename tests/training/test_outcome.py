"""Which survival model a retrained bundle gets: the parent's, the parent's times a slope, or one of its own."""

import numpy as np
import pytest

from medvl.survival.model import SurvivalModel, fit_survival
from medvl.training.outcome import Patients, _inherited, _rebased

REGIONS, WIDTH = ("a",), 16


def patients(n: int, seed: int, weights: np.ndarray) -> Patients:
    """Exponential times with hazards of `weights` on the embeddings, a fifth censored early."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, WIDTH))
    time = rng.exponential(1000 / np.exp(x @ weights))
    censored = np.where(rng.random(n) < 0.2, rng.uniform(0, 1000, n), np.inf)
    event = time <= censored
    return Patients([{"a": row} for row in x], [60.0] * n, np.minimum(time, censored), event)


def model_of(weights: np.ndarray) -> SurvivalModel:
    """A parent with those weights on raw embeddings; flag and age weigh nothing."""
    full = np.concatenate([weights, [0.0, 0.0]])
    center = np.array([0.0] * WIDTH + [1.0, 60.0])
    return SurvivalModel("e", REGIONS, WIDTH, center, np.ones(WIDTH + 2), full, np.zeros(1), np.array([1.0, 2.0, 3.0]))


TRUE = np.concatenate([[1.0, -0.8, 0.5], np.zeros(13)])


def test_a_good_parent_stands_where_patients_are_few() -> None:
    _, model, told = _inherited(model_of(TRUE), patients(40, 1, TRUE))
    assert told["taken"] in ("parent", "parent_rescaled") and model is not None
    np.testing.assert_allclose(model.weights, told["slope"] * np.concatenate([TRUE, [0, 0]]), atol=1e-3)


def test_a_parent_whose_risks_are_too_far_apart_is_rescaled() -> None:
    _, model, told = _inherited(model_of(4 * TRUE), patients(200, 2, TRUE))
    assert told["taken"] in ("parent_rescaled", "own")
    assert told["gain_per_event"]["parent_rescaled"] > told["gain_per_event"]["parent"]
    if model is not None:
        assert told["slope"] == pytest.approx(0.25, abs=0.08)


def test_a_useless_parent_gives_way_to_an_own_fit() -> None:
    useless = np.eye(16)[15]
    penalty, model, told = _inherited(model_of(useless), patients(300, 3, TRUE))
    assert (told["taken"], model) == ("own", None)
    assert penalty == told["penalty"]


def test_the_baseline_is_that_of_the_patients() -> None:
    found = patients(120, 4, TRUE)
    risk = np.stack([row["a"] for row in found.embeddings]) @ TRUE
    model = _rebased(model_of(TRUE), 1.0, risk, found)
    order = np.argsort(found.time)
    time, event, size = found.time[order], found.event[order], np.exp(risk[order])
    at_risk = np.cumsum(size[::-1])[::-1]  # Breslow's estimate by hand: no two times are equal
    by_hand = [float((event / at_risk)[time <= t].sum()) for t in (365.0, 1095.0, 1825.0)]
    np.testing.assert_allclose(model.baseline, by_hand, rtol=1e-9)


def test_parents_numbers_are_on_the_scale_of_an_own_fit() -> None:
    found = patients(300, 5, TRUE)
    own = fit_survival("e", found.embeddings, found.ages, found.time, found.event, REGIONS, 0.0001)
    assert own.risk(found.embeddings[0], 60.0) == pytest.approx(model_of(TRUE).risk(found.embeddings[0], 60.0), abs=0.6)
