"""The interval of one patient's survival: against lifelines, by coverage, in what is stored, and where there is none."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from medvl.errors import ConfigError
from medvl.survival import interval
from medvl.survival.cox import fit_cox
from medvl.survival.interval import Uncertainty, uncertainty_of
from medvl.survival.model import HORIZONS_DAYS, SurvivalModel, fit_survival

TRUE = np.array([0.8, -0.5, 0.0, 0.3])


def _drawn(seed: int, n: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(TRUE)))
    death = rng.exponential(size=n) * np.exp(-x @ TRUE)
    censor = rng.uniform(0.5, 3, n)
    return x, np.minimum(death, censor), death <= censor


def test_covariance_is_that_of_lifelines() -> None:
    x, time, event = _drawn(0)
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    found = uncertainty_of(fit_cox(x, time, event, penalty=0.1), x, time, event, (1.0,))
    table = pd.DataFrame(x).assign(t=time, e=event)
    # lifelines: mean log likelihood over patients, less penalizer / 2 times the squares; ours is a penalty per event
    theirs = CoxPHFitter(penalizer=0.1 * event.mean()).fit(table, "t", "e").variance_matrix_.to_numpy()
    assert np.allclose(found.root.T @ found.root / len(found.root), theirs, rtol=1e-4, atol=1e-7)


def test_baseline_gradient_and_noise_are_those_worked_out_by_hand() -> None:
    x, time, event = _drawn(1)
    fit = fit_cox(x, time, event, penalty=0.1, ties="breslow")
    found = uncertainty_of(fit, x, time, event, (0.4, 1.0))
    beta = fit.coefficients

    def hazard(weights: np.ndarray, until: float, power: int = 1) -> float:
        size = np.exp((x - x.mean(0)) @ weights)
        return sum(1 / size[time >= t].sum() ** power for t in time[event & (time <= until)])

    for k, until in enumerate((0.4, 1.0)):
        slope = [(np.log(hazard(beta + h, until)) - np.log(hazard(beta - h, until))) / 2e-5 for h in 1e-5 * np.eye(len(beta))]
        assert np.allclose(found.shift[:, k], found.root @ np.array(slope), atol=1e-5)
        assert found.noise[k] == pytest.approx(hazard(beta, until, 2) / hazard(beta, until) ** 2)


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    inside = []
    for seed in range(150):
        x, time, event = _drawn(seed + 10)
        fit = fit_cox(x, time, event, penalty=0.01)
        unsure = uncertainty_of(fit, x, time, event, (0.5, 1.0))
        rows = np.random.default_rng(seed).normal(size=(4, len(TRUE)))
        for row in rows:
            hazard = fit.baselines["all"].at([0.5, 1.0]) * np.exp((row - fit.center) @ fit.coefficients)
            low, high = unsure.band(row - fit.center, hazard)
            truth = np.exp(-np.array([0.5, 1.0]) * np.exp(row @ TRUE))
            inside.append((low <= truth) & (truth <= high))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.025)


def test_many_features_are_kept_small_and_nearly_right(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 120))
    time, event = rng.exponential(size=200), rng.random(200) < 0.7
    fit = fit_cox(x, time, event, penalty=0.1)
    exact = uncertainty_of(fit, x, time, event, (0.5,))
    monkeypatch.setattr(interval, "BUDGET", 60 * 120)
    small = uncertainty_of(fit, x, time, event, (0.5,))
    assert (len(exact.root), len(small.root)) == (120, 60)
    ratio = np.sqrt([small.variance(row)[0] / exact.variance(row)[0] for row in x])
    assert 0.9 < np.median(ratio) < 1.1
    assert ratio.std() < 0.12


def _model() -> SurvivalModel:
    x, time, event = _drawn(2)
    found = [{"a": row[:2], "b": row[2:]} for row in x]
    return fit_survival("death", found, [60.0 + k % 9 for k in range(len(x))], 1000 * time, event, ("a", "b"), 0.02)


def test_estimate_tells_limits_on_both_sides_that_survive_json() -> None:
    model = _model()
    rows = {"a": np.array([1.0, 0.5]), "b": np.array([0.0, -1.0])}
    told = model.estimate(rows, 64.0)
    assert list(told["interval"]) == [str(int(t)) for t in HORIZONS_DAYS]
    assert all(told["interval"][day][0] < share < told["interval"][day][1] for day, share in told["survival"].items())
    again = SurvivalModel.from_json(json.loads(json.dumps(model.to_json()))).estimate(rows, 64.0)
    for day, limits in told["interval"].items():
        assert again["interval"][day] == pytest.approx(limits, abs=2e-3)


def test_a_region_never_missing_in_training_does_not_blow_the_interval_up() -> None:
    limits = _model().estimate({"a": np.array([1.0, 0.5])}, 64.0)["interval"]["365"]
    assert 0.05 < limits[1] - limits[0] < 0.9


def test_without_uncertainty_there_is_no_interval() -> None:
    old = replace(_model(), uncertainty=None)
    assert "interval" not in old.estimate({"a": np.zeros(2)}, 64.0)
    assert "uncertainty" not in old.to_json()
    assert SurvivalModel.from_json(old.to_json()).uncertainty is None


def test_numbers_that_do_not_fit_are_refused() -> None:
    values = Uncertainty(np.ones((3, 4)), np.zeros((3, 1)), np.zeros(1)).to_json()
    with pytest.raises(ConfigError, match="12 numbers"):
        Uncertainty.from_json(values, 5)
