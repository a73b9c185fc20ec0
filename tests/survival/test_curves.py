"""Kaplan-Meier, log-rank and cumulative incidence against R; calibration; the figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohorts import draw, reference
from lifelines import CoxPHFitter, KaplanMeierFitter
from PIL import Image

from medvl.errors import ConfigError
from medvl.survival.calibration import _spline, calibration_groups, integrated_calibration
from medvl.survival.cox import fit_cox
from medvl.survival.curves import cumulative_incidence, curve, draw_groups, log_rank, risk_groups
from medvl.survival.steps import kaplan_meier


def test_kaplan_meier_interval_and_numbers_at_risk_equal_r() -> None:
    d, r = reference()
    found = curve(d.time, d.event)
    for ours, theirs in zip(found.at(r["at"]), (r["km"], r["km_low"], r["km_high"]), strict=True):
        assert np.allclose(ours, theirs, atol=1e-9)
    assert found.at_risk(r["at"]).tolist() == r["km_at_risk"].tolist()
    assert (found.n, found.n_events, len(found.censored)) == (120, d.event.sum(), 120 - d.event.sum())
    assert found.median == d.time[d.event == 1][[found.at([t])[0][0] <= 0.5 for t in d.time[d.event == 1]]].min()


def test_log_rank_and_cumulative_incidence_equal_r() -> None:
    d, r = reference()
    assert log_rank(d.time, d.event, d.site)[0] == pytest.approx(r["logrank"][0], abs=1e-9)
    for cause, name in ((1, "incidence_one"), (2, "incidence_two")):
        assert np.allclose(cumulative_incidence(d.time, d.cause, cause, r["at"]), r[name], atol=1e-12)
    alone = 1 - kaplan_meier(d.time, d.cause == 1).at(r["at"])
    assert (alone >= cumulative_incidence(d.time, d.cause, 1, r["at"])).all()


@pytest.mark.parametrize("decimals", [6, 0])
def test_our_kaplan_meier_equals_lifelines(decimals: int) -> None:
    _, time, event = draw(80, decimals=decimals)
    at = np.linspace(0, time.max(), 37)
    assert np.allclose(kaplan_meier(time, event).at(at), KaplanMeierFitter().fit(time, event).predict(at), atol=1e-12)
    if decimals:
        reverse = KaplanMeierFitter().fit(time, ~event).predict(at)
        assert np.allclose(kaplan_meier(time, event, censoring=True).at(at), reverse, atol=1e-12)
    before = kaplan_meier(time, event).before(time)
    assert np.allclose(before, kaplan_meier(time, event).at(time - 1e-9))


def test_cuts_come_from_the_risks_they_are_given() -> None:
    cuts = risk_groups(np.arange(9.0), 3)
    assert cuts.names == ("low", "medium", "high")
    assert cuts.assign([-5, 2.5, 3, 100]).tolist() == ["low", "low", "medium", "high"]
    assert risk_groups([0.0, 1, 2, 3], 2).cuts == (1.5,)
    for risk, n in (([1.0, 1.0, 1.0], 3), ([], 2), ([1.0, 2.0], 1)):
        with pytest.raises(ConfigError, match="different risks"):
            risk_groups(risk, n)


def test_what_has_no_curve_is_refused() -> None:
    with pytest.raises(ConfigError, match="one patient or more"):
        curve([], [])
    with pytest.raises(ValueError, match="found 1 and 2"):
        log_rank([1, 2], [True, True], ["a", "a"])
    with pytest.raises(ValueError, match="found 2 and 0"):
        log_rank([1, 2], [False, False], ["a", "b"])
    one = curve([5.0], [False])
    assert one.at([5.0])[0][0] == 1
    assert one.median == np.inf


def test_calibration_groups_say_what_kaplan_meier_says() -> None:
    x, time, event = draw(900)
    fit = fit_cox(x, time, event)
    s = fit.survival(x, [5.0])[:, 0]
    groups = calibration_groups(time, event, s, 5.0, 4)
    assert sum(g.n for g in groups) == 900
    order = np.argsort(s)
    lowest = order[: groups[0].n]
    assert groups[0].observed == pytest.approx(KaplanMeierFitter().fit(time[lowest], event[lowest]).predict(5.0))
    assert groups[0].n_events == (event & (time <= 5))[lowest].sum()
    for g in groups:
        assert g.low < g.observed < g.high
        assert g.observed == pytest.approx(g.predicted, abs=0.06)
    off = calibration_groups(time, event, s**3, 5.0, 4)
    assert all(g.observed > g.predicted + 0.05 for g in off)
    with pytest.raises(ValueError, match="followed to 400"):
        calibration_groups(time, event, s, 400.0)
    with pytest.raises(ValueError, match="a probability for each"):
        calibration_groups(time, event, s * 2, 5.0)


def test_integrated_calibration_is_small_for_the_truth_and_equals_lifelines_cox_on_the_same_spline() -> None:
    x, time, event = draw(900)
    s = fit_cox(x, time, event).survival(x, [5.0])[:, 0]
    index, seen = integrated_calibration(time, event, s, 5.0)
    assert index < 0.02
    assert integrated_calibration(time, event, s**3, 5.0)[0] > 0.1
    score = np.log(-np.log(s))
    frame = pd.DataFrame({"a": score, "b": _spline(score, np.quantile(score, [0.1, 0.5, 0.9])), "t": time, "e": event})
    theirs = CoxPHFitter().fit(frame, "t", "e", fit_options={"precision": 1e-12})
    moment = time[event & (time <= 5)].max()
    assert np.allclose(seen, theirs.predict_survival_function(frame, times=[moment]).iloc[0], atol=1e-6)
    with pytest.raises(ValueError, match="hardly differ"):
        integrated_calibration(time, event, np.full(900, 0.5), 5.0)


def test_spline_is_linear_beyond_its_outer_knots() -> None:
    knots = np.array([-1.0, 0.5, 2.0])
    below, above = _spline(np.linspace(-9, -1, 9), knots), _spline(np.linspace(2, 9, 9), knots)
    assert (below == 0).all()
    assert np.allclose(np.diff(above, 2), 0, atol=1e-12)
    assert np.abs(np.diff(_spline(np.linspace(-1, 2, 9), knots), 2)).max() > 0.01


def test_figure_is_drawn(tmp_path: Path) -> None:
    x, time, event = draw(300)
    names = risk_groups(x[:, 0]).assign(x[:, 0])
    curves = {n: curve(time[names == n], event[names == n]) for n in ("low", "medium", "high")}
    draw_groups(tmp_path / "a.png", curves, title="t", p=1e-9, unit="months")
    with Image.open(tmp_path / "a.png") as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50
