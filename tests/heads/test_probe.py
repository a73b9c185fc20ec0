"""Linear probes against scikit-learn; ridge from validation, unknown labels silent, balancing as it says."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from medvl.errors import ConfigError
from medvl.heads.probe import class_weights, fit_linear_probe


def _classes(n: int, seed: int, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(0, 1, (n_classes, 6))
    labels = rng.choice(n_classes, n, p=np.array([0.6, 0.3, 0.1])[:n_classes] / sum([0.6, 0.3, 0.1][:n_classes]))
    return (centers[labels] + rng.normal(0, 1.2, (n, 6))) * [1, 20, 0.1, 1, 5, 1] + 3, labels


@pytest.mark.parametrize("balancing", ["none", "loss", "sampler", "double_balancing"])
@pytest.mark.parametrize("penalty", [0.001, 0.3])
def test_multiclass_equals_sklearn(balancing: str, penalty: float) -> None:
    (x, y), held = _classes(160, 0), _classes(90, 1)
    probe = fit_linear_probe((x, y), held, "multiclass", 3, balancing=balancing, penalties=[penalty])
    counts = np.bincount(y)
    weights = {"none": counts * 0 + 1.0, "double_balancing": 1.0 / counts**2}.get(balancing, 1.0 / counts)[y]
    rows = (x - x.mean(0)) / x.std(0)
    model = LogisticRegression(C=1 / (penalty * weights.sum()), tol=1e-10, max_iter=5000).fit(rows, y, weights)
    found = probe.logits(held[0])
    expected = model.decision_function((held[0] - x.mean(0)) / x.std(0))
    np.testing.assert_allclose(found - found.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=2e-3)
    assert probe.penalties == (penalty,)


def test_multilabel_is_one_model_a_label_over_what_is_known() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, (150, 5))
    y = np.where(rng.random((150, 2)) < 0.3, rng.choice([-1, 2], (150, 2)), x[:, :2] + rng.normal(0, 1, (150, 2)) > 0.5)
    probe = fit_linear_probe((x, y), (x, y), "multilabel", 2, penalties=[0.05])
    rows = (x - x.mean(0)) / x.std(0)
    for k in range(2):
        known = (y[:, k] == 0) | (y[:, k] == 1)
        # Two classes with weights w and -w carry half the squared norm of one with 2 w.
        model = LogisticRegression(C=2 / (0.05 * known.sum()), tol=1e-10).fit(rows[known], y[known, k])
        np.testing.assert_allclose(probe.logits(x)[:, k], model.decision_function(rows), atol=2e-3)


def test_ridge_is_the_one_that_validation_likes() -> None:
    """Twenty rows and forty features of noise with one that tells: no ridge overfits, much ridge sees nothing."""
    rng = np.random.default_rng(5)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, 2, n)
        return np.concatenate([rng.normal(0, 1, (n, 40)), (y + rng.normal(0, 0.4, n))[:, None] * 3], 1), y

    train, held, test = draw(24), draw(400), draw(1000)

    def loss(probe: object, rows: tuple[np.ndarray, np.ndarray]) -> float:
        z = probe.logits(rows[0])  # type: ignore[attr-defined]
        return float(np.logaddexp(0, np.where(rows[1] == 1, -1, 1) * (z[:, 1] - z[:, 0])).mean())

    chosen = fit_linear_probe(train, held, "multiclass", 2)
    fixed = {p: fit_linear_probe(train, held, "multiclass", 2, penalties=[p]) for p in (1e-5, chosen.penalties[0], 1e3)}
    assert loss(chosen, held) == pytest.approx(min(loss(p, held) for p in fixed.values()), abs=1e-4)
    assert loss(chosen, test) < 0.9 * min(loss(fixed[1e-5], test), loss(fixed[1e3], test))


def test_double_balancing_turns_the_scale() -> None:
    """80 to 320: none leaves the minority 20 % of the loss, one balance gives it 50 %, two 80 %, as in RenalCLIP."""
    labels = np.repeat([1, 0, -1], [80, 320, 50])
    for how, expected in {"none": 0.2, "loss": 0.5, "sampler": 0.5, "double_balancing": 0.8}.items():
        weights = class_weights(labels, 2, how)
        assert weights[1] * 80 / (weights[1] * 80 + weights[0] * 320) == pytest.approx(expected, abs=1e-6)
        assert weights[labels[labels >= 0]].mean() == pytest.approx(1)


def test_a_constant_feature_does_no_harm() -> None:
    x, y = _classes(60, 0)
    x[:, 2] = 7.0
    found = fit_linear_probe((x, y), _classes(40, 1), "multiclass", 3)
    assert np.isfinite(found.weights).all()
    assert (found.weights[2] == 0).all()


def test_says_what_it_cannot_fit() -> None:
    x, y = _classes(60, 0)
    for wrong, message in (
        ((x, np.where(y == 2, 1, y)), r"class sizes are \[\d+, \d+, 0\]"),
        ((x, y + 1), "labels reach 3"),
        ((x, y[:-1]), "do not fit multiclass"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit_linear_probe(wrong, (x, y), "multiclass", 3)
    with pytest.raises(ConfigError, match="no validation row"):
        fit_linear_probe((x, y), (x, y * 0 - 1), "multiclass", 3)


def test_scales_leave_a_column_free() -> None:
    """With a penalty that silences all others, a free column is fitted as if it were alone and not penalised."""
    rng = np.random.default_rng(8)
    x = rng.normal(0, 1, (300, 4))
    y = (x[:, 2] + rng.logistic(size=300) > 0).astype(int)
    probe = fit_linear_probe((x, y[:, None]), (x, y[:, None]), "multilabel", 1, penalties=[1e5], scales=[1, 1, 0, 1])
    row = (x[:, 2:3] - x[:, 2].mean()) / x[:, 2].std()
    alone = LogisticRegression(C=np.inf, tol=1e-10).fit(row, y)
    np.testing.assert_allclose(probe.weights[2, 0], alone.coef_[0, 0], atol=2e-3)
    assert np.abs(np.delete(probe.weights, 2)).max() < 1e-4
