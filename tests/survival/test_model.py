"""The survival head: weights and baseline against scikit-survival, missing regions and ages, JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lifelines.utils import concordance_index
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from medvl.survival.model import HORIZONS_DAYS, SurvivalModel, features, fit_survival

REGIONS = ("kidney_left", "kidney_right", "chest")
WIDTH = 2


def _cohort(n: int = 240) -> tuple[list[dict[str, np.ndarray]], list[float | None], np.ndarray, np.ndarray]:
    """Hazard depends on the first value of the left kidney and on age; every region and some ages are missing somewhere."""
    rng = np.random.default_rng(0)
    embeddings, ages, risks = [], [], []
    for i in range(n):
        rows = {name: rng.normal(size=WIDTH) for name in REGIONS}
        age = float(rng.normal(60, 10))
        risks.append(1.2 * rows["kidney_left"][0] + 0.05 * (age - 60))
        for k, name in enumerate(REGIONS):
            if i % 10 == k:
                del rows[name]
        embeddings.append(rows)
        ages.append(None if i % 17 == 3 else age)
    death = 2000 * rng.exponential(size=n) / np.exp(risks)
    censor = rng.uniform(300, 3000, n)
    return embeddings, ages, np.minimum(death, censor).round(), death <= censor


@pytest.fixture(scope="module")
def model() -> SurvivalModel:
    return fit_survival("overall_survival", *_cohort(), REGIONS, 0.05)


def _estimate(model: SurvivalModel, *names: str, age: float | None = 60.0) -> dict:
    values = {"kidney_left": [1.5, 0.1], "kidney_right": [0.2, -0.4], "chest": [0.3, 0.3]}
    return model.estimate({n: torch.tensor(values[n]) for n in names}, age)


def test_old_bundles_answer_as_before() -> None:
    """Values that the bundle's `survival.json` gave when it was made."""
    values = json.loads((Path(__file__).parents[2] / "configs" / "bundles" / "phantom-demo" / "survival.json").read_text())
    old = SurvivalModel.from_json(values)
    rows = {name: torch.linspace(-0.2, 0.2, old.width) * (k + 1) for k, name in enumerate(old.regions)}
    x = np.concatenate([*(rows[n].numpy() for n in old.regions), np.ones(len(old.regions)), [64.0]])
    risk = float((x - np.array(values["center"])) / np.array(values["scale"]) @ np.array(values["weights"]))
    found = old.estimate(rows, 64.0)
    assert found["value"] == pytest.approx(risk, abs=1e-4)
    assert list(found["survival"].values()) == pytest.approx(np.exp(-np.array(values["baseline"]) * np.exp(risk)), abs=1e-4)


def test_baseline_belongs_to_the_risks_it_is_told_with() -> None:
    embeddings, ages, time, event = _cohort()
    whole = [e for e in embeddings if len(e) == 3]
    rows = [i for i, e in enumerate(embeddings) if len(e) == 3]
    x = np.array([[*e["kidney_left"], *e["kidney_right"], *e["chest"], ages[i] or 0.0] for i, e in zip(rows, whole, strict=True)])
    known = [i for i, r in enumerate(rows) if ages[r] is not None]
    x, t, e = x[known], time[rows][known], event[rows][known]
    x = (x - x.mean(0)) / x.std(0)
    fitted = fit_survival("x", [whole[i] for i in known], [ages[rows[i]] for i in known], t, e, REGIONS, 0.05)
    theirs = CoxPHSurvivalAnalysis(alpha=0.05 * e.sum(), ties="efron", tol=1e-12).fit(x, Surv.from_arrays(e, t))
    assert np.allclose(fitted.weights[[0, 1, 2, 3, 4, 5, -1]], theirs.coef_, atol=1e-7)
    assert np.allclose(fitted.baseline, [theirs.cum_baseline_hazard_(h) for h in HORIZONS_DAYS], rtol=0.02)  # theirs is Breslow's


def test_features_have_a_place_for_everything() -> None:
    rows = features([{"chest": [5, 6]}, {"kidney_left": [1, 2]}], [None, 70.0], REGIONS, WIDTH)
    nan = np.nan
    expected = [[nan, nan, nan, nan, 5, 6, 0, 0, 1, nan], [1, 2, nan, nan, nan, nan, 1, 0, 0, 70]]
    np.testing.assert_array_equal(rows, expected)
    filled = features([{"chest": [5, 6]}], [None], REGIONS, WIDTH, np.arange(10.0) + 100)
    np.testing.assert_array_equal(filled, [[100, 101, 102, 103, 5, 6, 0, 0, 1, 109]])


def test_it_learns_the_hazard_it_was_given(model: SurvivalModel) -> None:
    embeddings, ages, time, event = _cohort()
    risk = np.array([model.risk(e, a) for e, a in zip(embeddings, ages, strict=True)])
    assert concordance_index(time, -risk, event) > 0.72
    assert np.allclose(np.sort(risk), model.reference)
    assert int(np.abs(model.weights).argmax()) == 0
    assert model.weights[0] > 0.5
    assert model.weights[-1] > 0.2


def test_estimate_speaks_in_percentiles_and_falling_survival(model: SurvivalModel) -> None:
    low, high = ({n: torch.full((WIDTH,), v) for n in REGIONS} for v in (-9.0, 9.0))
    best, worst = model.estimate(low, 30.0), model.estimate(high, 90.0)
    assert (best["percentile"], worst["percentile"]) == (0.0, 100.0)
    usual = _estimate(model, *REGIONS)
    assert 50 < usual["percentile"] < 100
    assert usual["reasons"] == []
    assert list(usual["survival"]) == [str(int(t)) for t in HORIZONS_DAYS]
    curve = list(usual["survival"].values())
    assert 1 > curve[0] > curve[1] > curve[2] > 0
    for day, value in usual["survival"].items():
        at = model.baseline[HORIZONS_DAYS.index(float(day))]
        assert value == pytest.approx(np.exp(-at * np.exp(usual["value"])), abs=2e-4)


def test_survival_is_calibrated_against_kaplan_meier(model: SurvivalModel) -> None:
    embeddings, ages, time, event = _cohort()
    from lifelines import KaplanMeierFitter

    seen = KaplanMeierFitter().fit(time, event)
    told = [
        model.estimate({k: torch.tensor(v) for k, v in e.items()}, a)["survival"] for e, a in zip(embeddings, ages, strict=True)
    ]
    for day in HORIZONS_DAYS:
        assert np.mean([t[str(int(day))] for t in told]) == pytest.approx(float(seen.predict(day)), abs=0.04)


def test_a_missing_region_counts_as_average_and_is_named(model: SurvivalModel) -> None:
    without = _estimate(model, "kidney_right", "chest")
    assert [r["code"] for r in without["reasons"]] == ["region_missing"]
    assert "kidney_left" in without["reasons"][0]["message"]
    assert "chest" not in without["reasons"][0]["message"]
    x = np.array([*model.center[:2], 0.2, -0.4, 0.3, 0.3, 0, 1, 1, 60.0])
    assert without["value"] == pytest.approx(float((x - model.center) / model.scale @ model.weights), abs=1e-3)
    assert without["value"] < _estimate(model, *REGIONS)["value"]


def test_a_missing_age_counts_as_average_and_is_said(model: SurvivalModel) -> None:
    without = _estimate(model, *REGIONS, age=None)
    assert [r["code"] for r in without["reasons"]] == ["age_missing"]
    assert without["value"] == _estimate(model, *REGIONS, age=float(model.center[-1]))["value"]


def test_without_any_region_there_is_no_number(model: SurvivalModel) -> None:
    nothing = _estimate(model)
    assert (nothing["value"], nothing["percentile"], nothing["survival"]) == (None, None, None)
    assert [r["code"] for r in nothing["reasons"]] == ["no_usable_region"]
    assert nothing["endpoint"] == "overall_survival"


def test_json_round_trip_gives_the_same_estimates(model: SurvivalModel) -> None:
    again = SurvivalModel.from_json(json.loads(json.dumps(model.to_json())))
    assert (again.endpoint, again.regions, again.width) == (model.endpoint, model.regions, model.width)
    for names in (REGIONS, REGIONS[:1], ()):
        ours, theirs = _estimate(model, *names), _estimate(again, *names)
        assert theirs["reasons"] == ours["reasons"]
        if names:
            assert theirs["value"] == pytest.approx(ours["value"], abs=3e-4)
            assert theirs["survival"] == pytest.approx(ours["survival"], abs=3e-4)


def test_a_region_always_present_in_training_does_not_explode_when_missing() -> None:
    embeddings, ages, time, event = _cohort()
    rng = np.random.default_rng(3)
    whole = [{n: e.get(n, rng.normal(size=WIDTH)) for n in REGIONS} for e in embeddings]
    model = fit_survival("x", whole, ages, time, event, REGIONS, 0.05)
    assert abs(_estimate(model, "chest")["value"]) < 3


def test_too_few_events_are_refused() -> None:
    embeddings, ages, time, event = _cohort()
    rare = event & (np.cumsum(event) <= 9)
    with pytest.raises(ValueError, match="at least 10 events, found 9"):
        fit_survival("x", embeddings, ages, time, rare, REGIONS, 0.05)


@pytest.mark.parametrize("lost", ["chest", "age"])
def test_what_nobody_has_weighs_nothing(lost: str) -> None:
    embeddings, ages, time, event = _cohort()
    if lost == "age":
        ages = [None] * len(ages)
    else:
        embeddings = [{k: v for k, v in rows.items() if k != lost} for rows in embeddings]
    fitted = fit_survival("overall_survival", embeddings, ages, time, event, REGIONS, 0.05)
    assert all(np.isfinite(getattr(fitted, k)).all() for k in ("center", "scale", "weights", "reference", "baseline"))
    both = [_estimate(fitted, *REGIONS)["value"], _estimate(fitted, *REGIONS[:2])["value"]]
    both = [_estimate(fitted, *REGIONS, age=a)["value"] for a in (30.0, 90.0)] if lost == "age" else both
    assert both[0] == both[1] != 0
    if lost == "chest":
        without = fit_survival("overall_survival", embeddings, ages, time, event, REGIONS[:2], 0.05)
        assert both[0] == pytest.approx(_estimate(without, *REGIONS[:2])["value"], abs=1e-3)


def test_nobody_with_a_region_is_refused() -> None:
    with pytest.raises(ValueError, match="no patient has any"):
        fit_survival("overall_survival", [{}, {}], [60.0, 50.0], [1, 2], [True, True], REGIONS, 0.05)
