"""Ridges chosen on held-out patients, folds, and fusion of images with covariates."""

import json

import numpy as np
import pytest
from cohorts import draw

from medvl.errors import ConfigError
from medvl.survival.cox import fit_cox
from medvl.survival.fusion import LateFusion, concatenate, fit_late
from medvl.survival.measures import harrell
from medvl.survival.penalty import choose_penalty, event_folds, partial_likelihood


def test_folds_are_even_seeded_and_keep_patients_whole() -> None:
    event = np.arange(103) % 4 == 0
    fold = event_folds(event, 5, 0)
    assert sorted(np.bincount(fold).tolist()) == [20, 20, 21, 21, 21]
    assert set(np.bincount(fold[event]).tolist()) <= {5, 6}
    assert (fold == event_folds(event, 5, 0)).all()
    assert (fold != event_folds(event, 5, 1)).any()
    patients = np.repeat(np.arange(40), 2)
    by_patient = event_folds(np.arange(80) % 6 == 0, 4, 0, patients).reshape(40, 2)
    assert (by_patient[:, 0] == by_patient[:, 1]).all()
    with pytest.raises(ConfigError, match="2 patients have one"):
        event_folds(np.arange(20) < 2, 3, 0)


def _noisy(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One signal, 60 columns of noise around another."""
    x, time, event = draw(n, seed=seed)
    noise = np.random.default_rng(seed + 50).normal(size=(n, 60))
    noise[:, 0] = x[:, 1]
    return x[:, :1], noise, time, event


def test_the_chosen_ridge_predicts_new_patients_better_than_none() -> None:
    a, b, time, event = _noisy(150, 0)
    x = np.c_[a, b]
    choice = choose_penalty(x, time, event)
    assert [p for p, _ in choice.tried] == sorted((p for p, _ in choice.tried), reverse=True)
    assert max(v for _, v in choice.tried) == dict(choice.tried)[choice.penalty]
    ha, hb, t, e = _noisy(800, 9)
    fits = {p: fit_cox(x, time, event, penalty=p) for p in (choice.penalty, 1e-4)}
    told = {p: partial_likelihood(fit, np.c_[ha, hb], t, e) / e.sum() for p, fit in fits.items()}
    assert told[choice.penalty] > told[1e-4] + 0.5
    assert told[choice.penalty] > partial_likelihood(fits[1e-4], 0 * np.c_[ha, hb], t, e) / e.sum() + 0.05
    held = choose_penalty(x, time, event, validation=(np.c_[ha, hb], t, e))
    by_hand = {p: partial_likelihood(fit_cox(x, time, event, penalty=p), np.c_[ha, hb], t, e) for p, _ in held.tried}
    assert held.penalty == max(by_hand, key=by_hand.get)


def test_a_penalty_that_cannot_be_fitted_is_never_chosen() -> None:
    x, time, event = draw(60)
    x = np.c_[x, x[:, 0]]
    choice = choose_penalty(x, time, event, penalties=[0.0, 0.1], n_folds=3)
    assert choice.penalty == 0.1
    assert dict(choice.tried)[0.0] == -np.inf
    with pytest.raises(ConfigError, match="give larger ones"):
        choose_penalty(x, time, event, penalties=[0.0], n_folds=3)


def test_early_fusion_penalises_each_part_by_its_own() -> None:
    a, b, time, event = _noisy(150, 0)
    x, penalty = concatenate({"clinical": a, "image": b}, {"image": 1e6, "clinical": 0.0})
    assert penalty.tolist() == [0.0] + [1e6] * 60
    fit = fit_cox(x, time, event, penalty=penalty)
    assert fit.coefficients[0] == pytest.approx(fit_cox(a, time, event).coefficients[0], abs=1e-4)
    with pytest.raises(ConfigError, match="every part needs one"):
        concatenate({"clinical": a, "image": b}, {"image": 1.0})
    with pytest.raises(ConfigError, match="rows of the same patients"):
        concatenate({"clinical": a, "image": b[:9]}, {"image": 1.0, "clinical": 1.0})


def test_late_fusion_beats_each_part_and_does_not_trust_the_overfitted_one() -> None:
    a, b, time, event = _noisy(200, 0)
    parts, penalties = {"clinical": a, "image": b}, {"clinical": 0.0, "image": 0.02}
    late = fit_late(parts, time, event, penalties=penalties)
    ha, hb, t, e = _noisy(1500, 9)
    held = {"image": hb, "clinical": ha}
    ours = harrell(t, e, late.log_hazard(held))
    alone = [harrell(t, e, late.parts[k].log_hazard(held[k])) for k in ("clinical", "image")]
    assert ours > max(alone)
    seen = np.stack([late.parts[k].log_hazard(parts[k]) / late.scales[k] for k in parts], 1)
    naive = fit_cox(seen, time, event, penalty=0.01)
    assert late.top.coefficients[1] < naive.coefficients[1]
    assert ours > harrell(t, e, naive.log_hazard(late.risks(held)))
    curves = late.survival(held, [1.0, 5.0])
    assert curves.shape == (1500, 2)
    assert np.abs(curves.mean(0) - [(t > 1).mean(), np.mean(t > 5)]).max() < 0.1
    again = LateFusion.from_json(json.loads(json.dumps(late.to_json())))
    assert (again.log_hazard(held) == late.log_hazard(held)).all()


def test_late_fusion_refuses_other_parts() -> None:
    a, b, time, event = _noisy(100, 0)
    late = fit_late({"clinical": a, "image": b}, time, event, penalties={"clinical": 0.1, "image": 1.0})
    with pytest.raises(ConfigError, match="expected"):
        late.log_hazard({"clinical": a})
    with pytest.raises(ConfigError, match="every part needs one"):
        fit_late({"clinical": a}, time, event, penalties={})
