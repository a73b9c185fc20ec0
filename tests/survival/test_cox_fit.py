"""Cox regression against R's survival package, lifelines and scikit-survival."""

import json

import numpy as np
import pandas as pd
import pytest
from cohorts import draw, reference
from lifelines import CoxPHFitter
from scipy.optimize import minimize
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from medvl.errors import ConfigError
from medvl.survival.cox import CoxFit, fit_cox
from medvl.survival.partial import information, likelihood, prepare

COLUMNS = ["a", "b", "c"]
TIES = ("efron", "breslow")


@pytest.mark.parametrize("ties", TIES)
def test_coefficients_errors_likelihood_and_baseline_equal_r(ties: str) -> None:
    d, r = reference()
    fit = fit_cox(d[COLUMNS], d.time, d.event, ties=ties)
    assert np.allclose(fit.coefficients, r[f"{ties}_coef"], rtol=1e-9, atol=0)
    assert np.allclose(fit.standard_errors, r[f"{ties}_se"], rtol=1e-9, atol=0)
    assert fit.log_likelihood == pytest.approx(r[f"{ties}_loglik"][0], abs=1e-9)
    assert np.allclose(fit.baselines["all"].at(r["at"]), r[f"{ties}_hazard"], rtol=1e-8, atol=0)


@pytest.mark.parametrize("ties", TIES)
def test_strata_and_case_weights_equal_r(ties: str) -> None:
    d, r = reference()
    strata = fit_cox(d[COLUMNS], d.time, d.event, ties=ties, strata=d.site)
    weighted = fit_cox(d[COLUMNS], d.time, d.event, ties=ties, weights=d.weight)
    for name, fit in (("strata", strata), ("weight", weighted)):
        assert np.allclose(fit.coefficients, r[f"{ties}_{name}_coef"], rtol=1e-8, atol=0)
        assert np.allclose(fit.standard_errors, r[f"{ties}_{name}_se"], rtol=1e-8, atol=0)
        assert fit.log_likelihood == pytest.approx(r[f"{ties}_{name}_loglik"][0], abs=1e-9)
    assert sorted(strata.baselines) == ["east", "north", "west"]


@pytest.mark.parametrize("ties", TIES)
def test_ridge_equals_r_and_scikit_survival(ties: str) -> None:
    d, r = reference()
    fit = fit_cox(d[COLUMNS], d.time, d.event, ties=ties, penalty=5 / d.event.sum())
    assert np.allclose(fit.coefficients, r[f"{ties}_ridge_coef"], rtol=1e-6)
    y = Surv.from_arrays(d.event.astype(bool), d.time)
    theirs = CoxPHSurvivalAnalysis(alpha=5, ties=ties, tol=1e-13, n_iter=200).fit(d[COLUMNS].to_numpy(), y)
    assert np.allclose(fit.coefficients, theirs.coef_, rtol=1e-8)
    mixed = fit_cox(d[COLUMNS], d.time, d.event, ties=ties, penalty=np.array([1.0, 0.0, 1.0]))
    alpha = np.array([1.0, 0.0, 1.0]) * d.event.sum()
    theirs = CoxPHSurvivalAnalysis(alpha=alpha, ties=ties, tol=1e-13, n_iter=200).fit(d[COLUMNS].to_numpy(), y)
    assert np.allclose(mixed.coefficients, theirs.coef_, rtol=1e-8)


def test_lifelines_agrees_with_strata_ridge_and_survival_curves() -> None:
    d, _ = reference()
    frame = d[[*COLUMNS, "time", "event", "site"]]
    precise = {"precision": 1e-12}
    theirs = CoxPHFitter().fit(frame, "time", "event", strata=["site"], fit_options=precise)
    ours = fit_cox(d[COLUMNS], d.time, d.event, strata=d.site)
    assert np.allclose(ours.coefficients, theirs.params_, atol=1e-6)
    assert np.allclose(ours.standard_errors, theirs.standard_errors_, atol=1e-6)
    # lifelines divides by patients and standardises by the sample's deviation; its "ridge" is a smooth one
    scaled = (frame[COLUMNS] - frame[COLUMNS].mean()) / frame[COLUMNS].std()
    ridge = fit_cox(scaled, d.time, d.event, penalty=0.1 / d.event.mean()).coefficients / frame[COLUMNS].std()
    penalised = CoxPHFitter(penalizer=0.1).fit(frame.drop(columns="site"), "time", "event", fit_options=precise)
    assert np.allclose(ridge, penalised.params_, atol=1e-6)


def test_survival_curves_equal_scikit_survival_and_lifelines_without_ties() -> None:
    x, time, event = draw(90)
    at = np.quantile(time[event], [0.1, 0.5, 0.9], method="nearest")  # between events lifelines interpolates
    fit = fit_cox(x, time, event)
    theirs = CoxPHSurvivalAnalysis(ties="efron", tol=1e-13).fit(x, Surv.from_arrays(event, time)).predict_survival_function(x[:7])
    assert np.allclose(fit.survival(x[:7], at), [[f(t) for t in at] for f in theirs], atol=1e-8)
    frame = pd.DataFrame(x, columns=COLUMNS).assign(t=time, e=event)
    other = CoxPHFitter().fit(frame, "t", "e", fit_options={"precision": 1e-12}).predict_survival_function(frame[:7], times=at)
    assert np.allclose(fit.survival(x[:7], at), other.T, atol=1e-6)


@pytest.mark.parametrize("ties", TIES)
def test_gradient_and_information_are_the_likelihoods_derivatives(ties: str) -> None:
    d, _ = reference()
    data = prepare(d[COLUMNS] / d[COLUMNS].std(), d.time, d.event, d.site, d.weight, ties)
    parts, beta, h = data.strata_rows(data.x), np.array([0.3, -0.2, 0.5]), 1e-5
    gradient, curvature = information(parts, beta)
    steps = np.eye(3) * h
    value = [sum(likelihood(p, beta + s) - likelihood(p, beta - s) for p in parts) / (2 * h) for s in steps]
    assert np.allclose(gradient, value, rtol=1e-6)
    numeric = [(information(parts, beta - s)[0] - information(parts, beta + s)[0]) / (2 * h) for s in steps]
    assert np.allclose(curvature, numeric, rtol=1e-6)


def test_more_features_than_patients_reach_the_minimum_of_the_loss() -> None:
    _, time, event = draw(40)
    x = np.random.default_rng(2).normal(size=(40, 90))
    fit = fit_cox(x, time, event, penalty=0.1)
    data = prepare(x, time, event, None, None, "efron")
    (part,) = data.strata_rows(data.x)

    def loss(b: np.ndarray) -> float:
        return -likelihood(part, b) / event.sum() + 0.05 * b @ b

    assert loss(fit.coefficients) <= minimize(loss, fit.coefficients).fun + 1e-9


def test_the_coefficients_do_not_depend_on_units_order_or_doubling() -> None:
    x, time, event = draw(120, decimals=0)
    fit = fit_cox(x, time, event, ties="breslow")
    turned = fit_cox(x[::-1] * [1e6, 1.0, 1e-6] + [1e6, 0, 0], time[::-1] * 30, event[::-1], ties="breslow")
    assert np.allclose(turned.coefficients * [1e6, 1.0, 1e-6], fit.coefficients, rtol=1e-6)
    doubled = fit_cox(np.tile(x, (2, 1)), np.tile(time, 2), np.tile(event, 2), ties="breslow")
    assert np.allclose(doubled.coefficients, fit.coefficients, rtol=1e-9)
    assert np.allclose(doubled.standard_errors, fit.standard_errors / np.sqrt(2), rtol=1e-9)


def test_separation_is_said_and_a_penalty_holds_it() -> None:
    time, event = np.arange(40) + 1.0, np.arange(40) < 20
    noise = np.random.default_rng(0).normal(size=40)
    x = np.stack([noise, event.astype(float)], 1)
    with pytest.raises(ConfigError, match=r"rises without end along columns \[1\]"):
        fit_cox(x, time, event)
    assert fit_cox(x, time, event, penalty=0.1).coefficients[1] > 0.5
    with pytest.raises(ConfigError, match=r"rises without end along columns \[0\]"):
        fit_cox(-time[:, None], time, event)


def test_columns_that_say_the_same_or_nothing() -> None:
    x, time, event = draw(80)
    with pytest.raises(ConfigError, match=r"columns \[0, 3\] tell the same"):
        fit_cox(np.c_[x, 2 * x[:, 0]], time, event)
    assert np.isfinite(fit_cox(np.c_[x, 2 * x[:, 0]], time, event, penalty=0.1).coefficients).all()
    fit = fit_cox(np.c_[x, np.full(80, 7.0)], time, event)
    assert fit.constant == (3,)
    assert fit.coefficients[3] == 0
    assert np.isnan(fit.standard_errors[3])
    assert np.allclose(fit.coefficients[:3], fit_cox(x, time, event).coefficients, rtol=1e-12)


@pytest.mark.parametrize("ties", TIES)
def test_edge_cases(ties: str) -> None:
    one = fit_cox([[1.0, 2.0]], [3.0], [True], ties=ties)
    assert (one.coefficients == 0).all()
    assert one.survival([[1.0, 2.0]], [2, 3]) == pytest.approx(np.exp([[0.0, -1.0]]))
    x, time, event = draw(60, decimals=0)
    tied = fit_cox(x, np.full(60, 5.0), event, ties=ties, penalty=0.1)
    assert np.isfinite(tied.coefficients).all()
    with pytest.raises(ConfigError, match="none of 60 patients has an event"):
        fit_cox(x, time, np.zeros(60, dtype=bool), ties=ties)
    time[0], event[0] = 0, True
    zero = np.r_[time, np.zeros(3)], np.r_[event, np.zeros(3, dtype=bool)]
    with_censored = fit_cox(np.r_[x, np.ones((3, 3))], *zero, ties=ties)
    assert not np.allclose(with_censored.coefficients, fit_cox(x, time, event, ties=ties).coefficients, rtol=1e-6)
    time = time + 1  # nobody dies at 0 any more, so who is censored there is in no risk set
    late = np.r_[time, np.zeros(3)], np.r_[event, np.zeros(3, dtype=bool)]
    with_censored = fit_cox(np.r_[x, np.ones((3, 3))], *late, ties=ties)
    assert np.allclose(with_censored.coefficients, fit_cox(x, time, event, ties=ties).coefficients, rtol=1e-9)


def test_survival_refuses_what_is_not_known() -> None:
    x, time, event = draw(60)
    fit = fit_cox(x, time, event, strata=np.where(np.arange(60) % 2, "w", "e"))
    late = fit.baselines["w"].follow_up + 1
    with pytest.raises(ConfigError, match="followed to"):
        fit.survival(x[:1], [1, late], ["w"])
    with pytest.raises(ConfigError, match="known: \\['e', 'w'\\]"):
        fit.survival(x[:1], [1], ["north"])
    with pytest.raises(ConfigError, match="known: \\['e', 'w'\\]"):
        fit.survival(x[:1], [1])
    with pytest.raises(ConfigError, match="finite rows of 3"):
        fit.log_hazard(x[:, :2])
    curves = fit.survival(np.r_[x, [[2000.0, 0, 0]]], [0.0, 1, 5], ["w"] * 61)
    assert (np.diff(curves, axis=1) <= 0).all()
    assert (curves[:, 0] == 1).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"time": [-1.0, 2, 3]}, "times must be 0 or more"),
        ({"time": [np.nan, 2, 3]}, "leave unknown ones out"),
        ({"event": [0, 1, 2]}, "true or false, found \\[2\\]"),
        ({"x": [[np.nan], [1], [2]]}, "fill in what is missing"),
        ({"weights": [0, 1, 1]}, "positive"),
        ({"penalty": -1.0}, "0 or more"),
        ({"ties": "exact"}, "efron, not exact"),
        ({"strata": ["a"]}, "strata for 3"),
    ],
)
def test_unfit_values_are_refused(change: dict, match: str) -> None:
    given = {"x": [[0.0], [1.0], [0.5]], "time": [1, 2, 3], "event": [True, True, False], "penalty": 0.1} | change
    with pytest.raises(ConfigError, match=match):
        fit_cox(given.pop("x"), given.pop("time"), given.pop("event"), **given)


def test_json_round_trip() -> None:
    x, time, event = draw(60)
    fit = fit_cox(np.c_[x, np.ones(60)], time, event, penalty=0.1)
    again = CoxFit.from_json(json.loads(json.dumps(fit.to_json())))
    at = [1.0, 5.0]
    assert (again.survival(np.c_[x, np.ones(60)], at) == fit.survival(np.c_[x, np.ones(60)], at)).all()
    assert np.array_equal(again.standard_errors, fit.standard_errors, equal_nan=True)


def test_risks_too_far_apart_for_a_float_are_no_improvement() -> None:
    """A whole risk set that counts for nothing once read as an infinite likelihood, and the fit went there."""
    data = prepare([[1.0], [0.0], [0.0]], [1.0, 2.0, 3.0], [True, True, True], None, None, "efron")
    (part,) = data.strata_rows(data.x)
    assert likelihood(part, np.array([2000.0])) == -np.inf
    assert likelihood(part, np.array([2.0])) == pytest.approx(2 - np.log(np.exp(2) + 2) - np.log(2))
