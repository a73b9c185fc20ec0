"""Comparisons against brute force, published formulas, scipy, and what a test must do when nothing differs."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import false_discovery_control, norm
from sklearn.metrics import roc_auc_score

from medvl.evaluation.comparisons import adjust, delong, permutation
from medvl.evaluation.intervals import paired_bootstrap
from medvl.evaluation.metrics import auroc, auroc_of


def _two_models(n_patients: int, seed: int, gap: float = 0.0, rows: int = 1) -> tuple[np.ndarray, ...]:
    """Labels, two models' scores with ties, and patients of `rows` rows that are alike."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n_patients), rows)
    sick = np.repeat(rng.random(n_patients) < 0.4, rows)
    labels = np.where(rng.random(len(who)) < 0.15, ~sick, sick).astype(int)
    shared, own = np.repeat(rng.normal(size=n_patients), rows), rng.normal(0, 0.4, (3, len(who)))
    a = shared + 1.2 * labels + own[0] + own[2]
    b = shared + (1.2 - gap) * labels + own[1] + own[2]
    return labels, a.round(1), b.round(1), who


def _brute_delong(y: np.ndarray, a: np.ndarray, b: np.ndarray, who: np.ndarray) -> tuple[float, float]:
    """Difference and variance from the kernel of every pair, clusters as Obuchowski 1997, in plain loops."""
    ones, zeros = np.flatnonzero(y == 1), np.flatnonzero(y == 0)

    def kernel(s: np.ndarray) -> np.ndarray:
        return np.array([[1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0 for j in zeros] for i in ones])

    matrices = [kernel(s) for s in (a, b)]
    areas = [m.mean() for m in matrices]
    m, n, names = len(ones), len(zeros), sorted(set(who.tolist()))
    with_1 = len({who[i] for i in ones})
    with_0 = len({who[j] for j in zeros})
    s10, s01, s11 = np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2))
    for name in names:
        mine_1, mine_0 = who[ones] == name, who[zeros] == name
        up = [k.mean(1)[mine_1].sum() - mine_1.sum() * t for k, t in zip(matrices, areas, strict=True)]
        down = [k.mean(0)[mine_0].sum() - mine_0.sum() * t for k, t in zip(matrices, areas, strict=True)]
        s10 += np.outer(up, up) * with_1 / ((with_1 - 1) * m)
        s01 += np.outer(down, down) * with_0 / ((with_0 - 1) * n)
        s11 += np.outer(up, down) * len(names) / (len(names) - 1)
    s = s10 / m + s01 / n + (s11 + s11.T) / (m * n)
    return areas[0] - areas[1], s[0, 0] + s[1, 1] - 2 * s[0, 1]


@pytest.mark.parametrize("rows", [1, 3])
def test_delong_equals_brute_force_with_ties_and_patients(rows: int) -> None:
    for seed in range(4):
        y, a, b, who = _two_models(30, seed, 0.5, rows)
        found = delong(y, a, b, who)
        difference, variance = _brute_delong(y, a, b, who)
        assert found.difference == pytest.approx(difference, abs=1e-12)
        assert found.difference == pytest.approx(roc_auc_score(y, a) - roc_auc_score(y, b), abs=1e-12)
        assert found.high - found.low == pytest.approx(2 * 1.959963985 * np.sqrt(variance), abs=1e-9)
        assert found.p == pytest.approx(2 * norm.cdf(-abs(difference) / np.sqrt(variance)), abs=1e-9)
        if rows == 1:
            assert delong(y, a, b) == found
            variances = [np.cov(np.stack(v), ddof=1) for v in _components(y, a, b)]
            published = sum(c[0, 0] + c[1, 1] - 2 * c[0, 1] for c in (v / n for v, n in zip(variances, _sizes(y), strict=True)))
            assert variance == pytest.approx(published, abs=1e-12)


def _sizes(y: np.ndarray) -> tuple[int, int]:
    return int((y == 1).sum()), int((y == 0).sum())


def _components(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """DeLong's V10 and V01 of both models."""
    up, down = [], []
    for s in (a, b):
        psi = np.heaviside(s[y == 1][:, None] - s[y == 0][None], 0.5)
        up.append(psi.mean(1))
        down.append(psi.mean(0))
    return up, down


def test_copies_of_a_row_are_no_evidence_if_they_are_one_patients() -> None:
    y, a, b, who = _two_models(40, 1, 0.6)
    once = delong(y, a, b, who)
    copied = [np.repeat(x, 5) for x in (y, a, b, who)]
    by_patient, by_row = delong(*copied), delong(*copied[:3])
    assert by_patient.p == pytest.approx(once.p)
    assert by_row.p < once.p / 2
    assert "patient" in by_patient.method


def test_delong_agrees_with_the_paired_bootstrap() -> None:
    y, a, b, who = _two_models(200, 3, 0.3, 2)
    found, other = delong(y, a, b, who), paired_bootstrap(auroc_of(y, a), auroc_of(y, b), who, n=2000)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.006)
    assert found.p == pytest.approx(other.p, abs=0.05)


def test_without_a_difference_five_in_a_hundred_tests_say_so_and_by_row_too_many() -> None:
    by_patient = by_row = 0
    for seed in range(200):
        y, a, b, who = _two_models(60, seed, rows=1)
        copied = [np.repeat(x, 3) for x in (y, a, b, who)]
        by_patient += delong(*copied).p < 0.05
        by_row += delong(*copied[:3]).p < 0.05
    assert 0.015 <= by_patient / 200 <= 0.085
    assert by_row / 200 > 0.15


def test_what_delong_cannot_do() -> None:
    y, a, b, _ = _two_models(20, 0)
    assert (delong(y, a, a).difference, delong(y, a, a).p) == (0, 1)
    with pytest.raises(ValueError, match="without any variance"):
        delong([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    with pytest.raises(ValueError, match="two rows of each class, found 1 present"):
        delong([0, 0, 1], [1, 2, 3], [3, 2, 1])
    with pytest.raises(ValueError, match="only 1 patient has rows with the finding present"):
        delong([0, 0, 1, 1], [1, 2, 3, 4], [4, 2, 3, 1], [0, 1, 2, 2])
    with pytest.raises(ValueError, match="3 patients for 20 labels"):
        delong(y, a, b, [1, 2, 3])


def test_all_swaps_are_tried_when_there_are_few() -> None:
    y, a, b, who = _two_models(8, 5, 0.9, 2)
    found = permutation(lambda s: auroc(y, s), a, b, who)
    seen, beyond = auroc(y, a) - auroc(y, b), 0
    for swap in product((0, 1), repeat=8):
        here = np.array(swap)[who] == 1
        other = auroc(y, np.where(here, b, a)) - auroc(y, np.where(here, a, b))
        beyond += abs(other) >= abs(seen) - 1e-12
    assert found.p == beyond / 256
    assert found.difference == seen
    assert (found.low, found.high) == (None, None)
    assert "all 256" in found.method


def test_random_swaps_come_near_all_swaps_and_repeat_by_seed() -> None:
    y, a, b, who = _two_models(10, 5, 0.9, 2)
    every, some = (permutation(lambda s: auroc(y, s), a, b, who, n=n) for n in (1024, 600))
    assert "random 600" in some.method
    assert some.p == pytest.approx(every.p, abs=0.06)
    assert some == permutation(lambda s: auroc(y, s), a, b, who, n=600)


def test_permutation_agrees_with_delong_and_is_by_patient() -> None:
    y, a, b, who = _two_models(80, 2, 0.35)
    found = permutation(lambda s: auroc(y, s), a, b, who, n=800, ranks=True)
    assert found.p == pytest.approx(delong(y, a, b, who).p, abs=0.05)
    copied = [np.repeat(x, 4) for x in (y, a, b, who)]
    again = permutation(lambda s: auroc(copied[0], s), *copied[1:], n=800, ranks=True)
    assert again.p == pytest.approx(found.p)


def test_ranks_make_scales_comparable() -> None:
    y, a, b, who = _two_models(60, 4, 0.1)
    usual, scaled = (permutation(lambda s: auroc(y, s), a, x, who, n=400, ranks=True).p for x in (b, 1000 * b + 5))
    assert usual == scaled
    assert permutation(lambda s: auroc(y, s), a, 1000 * b + 5, who, n=400).p != usual


def test_adjusted_p_values() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.8])
    np.testing.assert_allclose(adjust(p, "bh"), false_discovery_control(p, method="bh"))
    # By hand: 5 * 0.005, 4 * 0.01, 3 * 0.03, then 2 * 0.04 = 0.08 lifted to 0.09, 0.8.
    np.testing.assert_allclose(adjust(p), [0.04, 0.09, 0.09, 0.025, 0.8])
    np.testing.assert_allclose(adjust([0.6, 0.7]), [1, 1])
    for size in (1, 2, 30):
        p = np.random.default_rng(size).random(size).round(1)
        np.testing.assert_allclose(adjust(p, "bh"), false_discovery_control(p, method="bh"))
        assert (adjust(p) >= adjust(p, "bh") - 1e-12).all()
    for bad in ([0.1, np.nan], [1.2], 0.3):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            adjust(bad)
