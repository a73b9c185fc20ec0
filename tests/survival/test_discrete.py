"""The discrete-time model against logistic regression on one row per patient and interval."""

import json

import numpy as np
import pytest
from cohorts import draw
from sklearn.linear_model import LogisticRegression

from medvl.errors import ConfigError
from medvl.survival.cox import fit_cox
from medvl.survival.discrete import DiscreteFit, fit_discrete
from medvl.survival.measures import harrell
from medvl.survival.steps import kaplan_meier


def _person_periods(x: np.ndarray, time: np.ndarray, event: np.ndarray, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    rows, labels, patients = [], [], 0
    for xi, t, e in zip(x, time, event, strict=True):
        told = 0
        for k in range(len(cuts) - 1):
            died = e and t <= cuts[k + 1]
            if died or (e and t > cuts[k + 1]) or (not e and t >= (cuts[k] + cuts[k + 1]) / 2):
                rows.append(np.r_[np.eye(len(cuts) - 1)[k], xi])
                labels.append(int(died))
                told += 1
            if died:
                break
        patients += told > 0
    return np.array(rows), np.array(labels), patients


def test_it_equals_logistic_regression_on_person_periods() -> None:
    x, time, event = draw(300, decimals=1)
    fit = fit_discrete(x, time, event, penalty=0.0, n_intervals=6)
    rows, labels, _ = _person_periods(x - x.mean(0), time, event, fit.cuts)
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=5000).fit(rows, labels).coef_[0]
    assert np.allclose(np.r_[fit.bias, fit.weights[:, 0]], theirs, atol=1e-5)


def test_with_no_features_it_follows_kaplan_meier() -> None:
    _, time, event = draw(4000)
    fit = fit_discrete(np.zeros((len(time), 0)), time, event, penalty=0.0, n_intervals=25)
    at = np.quantile(time, [0.2, 0.5, 0.8])
    assert fit.survival(np.zeros((1, 0)), at)[0] == pytest.approx(kaplan_meier(time, event).at(at), abs=0.01)


def test_it_ranks_and_predicts_like_cox_where_hazards_are_proportional() -> None:
    x, time, event = draw(1500)
    held, held_time, held_event = draw(800, seed=1)
    ours, cox = fit_discrete(x, time, event, penalty=1e-4, n_intervals=12), fit_cox(x, time, event)
    at = [2.0, 5.0, 12.0]
    assert np.abs(ours.survival(held, at) - cox.survival(held, at)).mean() < 0.02
    assert harrell(held_time, held_event, ours.log_hazard(held)) == pytest.approx(
        harrell(held_time, held_event, cox.log_hazard(held)), abs=0.003
    )
    assert ours.log_hazard(x.mean(0)[None])[0] == 0


def test_weights_in_every_interval_see_curves_that_cross() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 3000).astype(float)
    time = np.where(group == 1, rng.weibull(0.6, 3000), rng.weibull(2.5, 3000)) * 10
    event = np.ones(3000, dtype=bool)
    apart = fit_discrete(group[:, None], time, event, penalty=0.0, proportional=False).survival([[0.0], [1.0]], [4.0, 20.0])
    one = fit_discrete(group[:, None], time, event, penalty=0.0).survival([[0.0], [1.0]], [4.0, 20.0])
    assert apart[0, 0] > apart[1, 0]
    assert apart[0, 1] < apart[1, 1]
    assert np.sign(one[0] - one[1]).prod() == 1


def test_curves_fall_from_one_and_refuse_times_beyond() -> None:
    x, time, event = draw(200)
    fit = fit_discrete(x, time, event, penalty=0.01)
    curves = fit.survival(x, np.linspace(0, fit.follow_up, 50))
    assert (curves[:, 0] == 1).all()
    assert (np.diff(curves, axis=1) <= 1e-15).all()
    with pytest.raises(ConfigError, match="followed to"):
        fit.survival(x, [fit.follow_up * 1.01])


def test_penalty_shrinks_and_edges_are_refused() -> None:
    x, time, event = draw(100)
    sizes = [np.abs(fit_discrete(x, time, event, penalty=p).weights).sum() for p in (0.0, 0.1, 10.0)]
    assert sizes[0] > sizes[1] > sizes[2]
    with pytest.raises(ConfigError, match="from 0 events"):
        fit_discrete(x, time, np.zeros(100, dtype=bool), penalty=0.1)
    with pytest.raises(ConfigError, match="0 or more, found -1"):
        fit_discrete(x, time, event, penalty=-1)
    with pytest.raises(ConfigError, match="finite rows for 100"):
        fit_discrete(x[:50], time, event, penalty=1)


def test_json_round_trip() -> None:
    x, time, event = draw(100)
    fit = fit_discrete(x, time, event, penalty=0.1)
    again = DiscreteFit.from_json(json.loads(json.dumps(fit.to_json())))
    assert (again.survival(x, [1.0, 5.0]) == fit.survival(x, [1.0, 5.0])).all()
