"""Prototypes against scikit-learn, prompted probes at their two ends, and the curve against arithmetic by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from medvl.errors import ConfigError
from medvl.evaluation.fractions import fraction_subset
from medvl.evaluation.intervals import Weighted
from medvl.evaluation.metrics import auroc, auroc_of
from medvl.heads.few_shot import efficiency, fit_prompted, fit_prototypes, mean_of
from medvl.heads.probe import fit_linear_probe


def _made(n: int, seed: int, width: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels, and a margin that knows a part of what the features know."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(int)
    x = rng.normal(0, 1, (n, width))
    x[:, :2] += y[:, None] * [1.0, 1.5]
    return x, y, x[:, 0] * 0.02 - 0.01


def test_prototypes_are_the_nearest_centroids_of_centred_unit_rows() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    x = rng.normal(0, 1, (90, 5)) + np.eye(5)[y] * 2 + 4
    head = fit_prototypes(x, y, 3)
    rows = x - x.mean(0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    means = NearestCentroid().fit(rows, y).centroids_
    # nearest by angle is nearest by distance to means brought to one length
    means = means / np.linalg.norm(means, axis=1, keepdims=True)
    distance = np.linalg.norm(rows[:, None] - means[None], axis=2)
    np.testing.assert_allclose(head.logits(x), 1 - distance**2 / 2, atol=1e-12)


def test_prototypes_leave_out_what_is_not_known_and_refuse_empty_classes() -> None:
    x, y, _ = _made(40, 1)
    some = np.where(np.arange(40) < 10, -1, y)
    np.testing.assert_array_equal(fit_prototypes(x, some, 2).means, fit_prototypes(x[10:], y[10:], 2).means)
    with pytest.raises(ConfigError, match=r"\[40, 0\]"):
        fit_prototypes(x, y * 0, 2)
    with pytest.raises(ConfigError, match="do not fit"):
        fit_prototypes(x, y[:5], 2)


def test_a_prompted_probe_under_a_strong_ridge_ranks_as_the_prompts_do() -> None:
    (x, y, m), (held, y_held, m_held) = _made(60, 2), _made(300, 3)
    head = fit_prompted((x, y, m), (held, y_held, m_held), penalties=[1e3])
    assert auroc(y_held, head.logits(held, m_held)) == pytest.approx(auroc(y_held, m_held), abs=1e-3)
    platt = LogisticRegression(C=np.inf, tol=1e-10).fit(m[:, None] / m.std(), y)
    slope = np.polyfit(m_held, head.logits(held, m_held), 1)[0]
    assert slope == pytest.approx(platt.coef_[0, 0] / m.std(), rel=0.05)


def test_a_prompted_probe_is_no_worse_than_either_when_labels_are_few() -> None:
    """Twelve patients: a plain probe on thirty features is poor, the prompts are fair, and both together at least as fair."""
    held, test = _made(400, 5), _made(4000, 6)
    plain, prompted = [], []
    for seed in range(4):
        x, y, m = _made(12, 20 + seed)
        probe = fit_linear_probe((x, y[:, None]), (held[0], held[1][:, None]), "multilabel", 1)
        plain.append(auroc(test[1], probe.logits(test[0])[:, 0]))
        prompted.append(auroc(test[1], fit_prompted((x, y, m), held).logits(test[0], test[2])))
    asked = auroc(test[1], test[2])
    assert np.mean(prompted) > asked - 0.02
    assert np.mean(prompted) > np.mean(plain) + 0.02


def test_margins_must_be_numbers() -> None:
    x, y, m = _made(20, 7)
    with pytest.raises(ConfigError, match="leave unread rows out"):
        fit_prompted((x, y, m * np.nan), (x, y, m))


def test_the_curve_is_the_mean_over_seeds_with_the_spread_and_the_refusals() -> None:
    who = np.repeat([f"p{i:02d}" for i in range(40)], 2)
    test = np.repeat(np.arange(50), 2)
    truth = (np.arange(100) % 2).astype(int)
    seen: list[tuple[float, int, int]] = []

    def learn(rows: np.ndarray, fraction: float, seed: int) -> Weighted:
        seen.append((fraction, seed, len(rows)))
        np.testing.assert_array_equal(rows, fraction_subset(who, fraction, seed))
        if len(rows) < 10:
            raise ConfigError(f"only {len(rows)}")
        return auroc_of(truth, truth + np.random.default_rng(seed).normal(0, 1, 100))

    few, half, everyone = efficiency(who, learn, test, fractions=(0.1, 0.5, 1.0), seeds=(3, 4), draws=200)
    assert [s[:2] for s in seen] == [(0.1, 3), (0.1, 4), (0.5, 3), (0.5, 4), (1.0, 3)]
    assert few.value is None
    assert few.refused == {3: "only 8", 4: "only 8"}
    areas = [auroc(truth, truth + np.random.default_rng(s).normal(0, 1, 100)) for s in (3, 4)]
    assert half.value == pytest.approx(np.mean(areas))
    assert half.spread == pytest.approx((min(areas), max(areas)))
    assert half.ci is not None
    assert half.ci[0] < half.value < half.ci[1]
    assert (half.patients, half.rows, everyone.patients) == (20, 40, 40)


def test_the_mean_of_statistics_is_the_same_by_weights_and_by_rows() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 2, 60), rng.normal(0, 1, (2, 60))
    quick = mean_of([auroc_of(truth, s) for s in scores])
    slow = mean_of([lambda rows, s=s: auroc(truth[rows], s[rows]) for s in scores])
    rows = rng.integers(0, 60, 60)
    assert isinstance(quick, Weighted)
    assert quick(rows) == pytest.approx(slow(rows))
