"""Counts as weights are repeated rows: against our plain measures, scikit-survival and lifelines, censoring fitted anew."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from lifelines.utils import concordance_index
from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc, integrated_brier_score
from sksurv.util import Surv

from medvl.survival.measures import brier, censoring, dynamic_auc, harrell, integrated_brier, uno
from medvl.survival.steps import kaplan_meier
from medvl.survival.weighted import (
    integrated,
    mean_auc,
    weighted_auc,
    weighted_brier,
    weighted_brier_of_curve,
    weighted_harrell,
    weighted_kaplan_meier,
    weighted_uno,
)

N = 70
AT = np.array([3.0, 5.5, 8.0])


def _cohort(decimals: int, seed: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Follow-up, events, risks with ties, predicted survival at AT; with few decimals times tie as well."""
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=N), 1)
    death, censor = rng.exponential(10, N) / np.exp(risk), rng.uniform(2, 30, N)
    survival = np.sort(rng.random((N, 3)), axis=1)[:, ::-1]
    return np.round(np.minimum(death, censor), decimals) + 1, death <= censor, risk, survival


def _counts() -> np.ndarray:
    drawn = np.random.default_rng(1).multinomial(N, np.full(N, 1 / N), size=20).astype(float)
    return np.concatenate([np.ones((1, N)), drawn])


def _repeated(counts: np.ndarray) -> Iterator[np.ndarray]:
    yield from (np.repeat(np.arange(N), c.astype(int)) for c in counts)


@pytest.mark.parametrize("decimals", [6, 0])
def test_every_measure_is_that_of_repeated_rows(decimals: int) -> None:
    t, e, r, s = _cohort(decimals)
    counts = _counts()
    known = weighted_kaplan_meier(t, e, counts, censoring=True)
    level = weighted_kaplan_meier(t, e, counts).at(AT)
    found = {
        "harrell": weighted_harrell(t, e, r, counts),
        "uno": weighted_uno(t, e, r, counts, known),
        "uno to 8": weighted_uno(t, e, r, counts, known, 8.0),
        "auc": weighted_auc(t, e, r, counts, known, AT),
        "brier": weighted_brier(t, e, s, counts, known, AT),
        "curve": weighted_brier_of_curve(t, e, level, counts, known, AT),
    }
    found["mean auc"] = mean_auc(t, e, counts, AT, found["auc"])
    found["ibs"] = integrated(found["brier"], AT)
    for line, i in enumerate(_repeated(counts)):
        fitted = censoring(t[i], e[i])
        areas, mean = dynamic_auc(t[i], e[i], r[i], AT, fitted)
        plain = np.tile(kaplan_meier(t[i], e[i]).at(AT), (len(i), 1))
        wanted = {
            "harrell": harrell(t[i], e[i], r[i]),
            "uno": uno(t[i], e[i], r[i], fitted),
            "uno to 8": uno(t[i], e[i], r[i], fitted, 8.0),
            "auc": areas,
            "mean auc": mean,
            "brier": brier(t[i], e[i], s[i], AT, fitted),
            "curve": brier(t[i], e[i], plain, AT, fitted),
            "ibs": integrated_brier(t[i], e[i], s[i], AT, fitted),
        }
        for name, value in wanted.items():
            assert found[name][line] == pytest.approx(value, abs=1e-12), name


def test_against_scikit_survival_and_lifelines_on_repeated_rows() -> None:
    t, e, r, s = _cohort(6)
    counts = _counts()[:6]
    known = weighted_kaplan_meier(t, e, counts, censoring=True)
    level = weighted_kaplan_meier(t, e, counts)
    mine = [f(t, e, r, counts, known, AT) for f in (weighted_auc,)] + [weighted_brier(t, e, s, counts, known, AT)]
    c = weighted_uno(t, e, r, counts, known, 8.0)
    for line, i in enumerate(_repeated(counts)):
        y = Surv.from_arrays(e[i], t[i])
        assert weighted_harrell(t, e, r, counts)[line] == pytest.approx(concordance_index(t[i], -r[i], e[i]), abs=1e-12)
        assert c[line] == pytest.approx(concordance_index_ipcw(y, y, r[i], 8.0)[0], abs=1e-12)
        assert mine[0][line] == pytest.approx(cumulative_dynamic_auc(y, y, r[i], AT)[0], abs=1e-12)
        assert mine[1][line] == pytest.approx(brier_score(y, y, s[i], AT)[1], abs=1e-12)
        assert integrated(mine[1], AT)[line] == pytest.approx(integrated_brier_score(y, y, s[i], AT), abs=1e-12)
        curve = KaplanMeierFitter().fit(t[i], e[i]).survival_function_at_times(AT).to_numpy()
        assert level.at(AT)[line] == pytest.approx(curve, abs=1e-12)


def test_censoring_of_other_patients_and_where_it_ends() -> None:
    t, e, r, s = _cohort(0)
    counts = _counts()[:3]
    train = np.minimum(_cohort(0, 8)[0], 9.0)
    train_e = np.random.default_rng(2).random(N) < 0.6
    known = weighted_kaplan_meier(train, train_e, counts, censoring=True)
    for line, (i, j) in enumerate(zip(_repeated(counts), _repeated(counts), strict=True)):
        fitted = censoring(train[j], train_e[j])
        assert weighted_uno(t, e, r, counts, known, 8.0)[line] == pytest.approx(uno(t[i], e[i], r[i], fitted, 8.0), abs=1e-12)
        wanted = brier(t[i], e[i], s[i], AT, fitted)
        assert weighted_brier(t, e, s, counts, known, AT)[line] == pytest.approx(wanted, abs=1e-12)
        with pytest.raises(ValueError, match="nobody was watched at time"):
            brier(t[i], e[i], s[i][:, :1], [12.0], fitted)
    assert np.isnan(weighted_brier(t, e, s[:, :1], counts, known, [12.0])).all()
    assert np.isnan(weighted_uno(t, e, r, counts, known)).all()


def test_what_is_not_defined_is_nan() -> None:
    t, e, r, s = _cohort(6)
    one = np.eye(N)[[int(np.flatnonzero(e)[0])]]
    known = weighted_kaplan_meier(t, e, one, censoring=True)
    assert np.isnan(weighted_harrell(t, e, r, one)).all()
    assert np.isnan(weighted_uno(t, e, r, one, known)).all()
    assert np.isnan(weighted_auc(t, e, r, one, known, [100.0])).all()
    none = np.zeros((1, N))
    assert np.isnan(weighted_brier(t, e, s, none, weighted_kaplan_meier(t, e, none, censoring=True), AT)).all()
    for times in ([3.0], [5.0, 4.0]):
        with pytest.raises(ValueError, match="two or more rising times"):
            integrated(np.zeros((1, len(times))), times)
