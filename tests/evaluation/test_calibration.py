"""Calibration: against scikit-learn's logistic regression, monotone, and fitted on nothing but what it was given."""

import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from medvl.evaluation.calibration import UNDECIDED_SHARE, Calibration, calibrate
from medvl.evaluation.metrics import auroc
from medvl.evaluation.reliability import expected_calibration_error


def _sample(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn with probability sigmoid(9 * margin - 1.5)."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(0.1, 0.25, n)
    return (rng.random(n) < expit(9 * margins - 1.5)).astype(int), margins


def test_scaling_equals_a_weighted_logistic_regression_on_platts_targets() -> None:
    labels, margins = _sample(300)
    found = calibrate(labels, margins)
    n1, n0 = int(labels.sum()), int((1 - labels).sum())
    target = np.where(labels == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(np.tile(margins, 2)[:, None], np.repeat([1, 0], 300), sample_weight=np.concatenate([target, 1 - target]))
    assert found.slope == pytest.approx(float(model.coef_[0, 0]), rel=2e-3)
    assert found.offset == pytest.approx(float(model.intercept_[0]), rel=2e-3, abs=2e-3)
    assert (found.n_present, found.n_absent) == (n1, n0)


def test_it_recovers_the_truth_and_is_well_calibrated_on_new_patients() -> None:
    found = calibrate(*_sample(4000))
    assert found.slope == pytest.approx(9, rel=0.1)
    assert found.offset == pytest.approx(-1.5, abs=0.2)
    labels, margins = _sample(4000, 1)
    assert expected_calibration_error(labels, found.probability(margins)) < 0.03
    assert expected_calibration_error(labels, expit(margins)) > 0.1


@pytest.mark.parametrize("sign", [1, -1])
def test_probability_never_falls_with_the_margin_even_for_a_reversed_score(sign: int) -> None:
    labels, margins = _sample(200)
    found = calibrate(labels, sign * margins)
    assert found.slope > 0
    p = found.probability(np.linspace(-300, 300, 5001))
    assert (np.diff(p) >= 0).all()
    assert ((p >= 0) & (p <= 1)).all()
    if sign > 0:
        assert p[-1] > 0.99
        assert auroc(labels, found.probability(margins)) == auroc(labels, margins)


def test_perfectly_separated_scores_stay_finite() -> None:
    found = calibrate([0] * 10 + [1] * 10, np.concatenate([np.linspace(-0.4, -0.2, 10), np.linspace(0.2, 0.4, 10)]))
    assert np.isfinite(list(found.as_dict().values())).all()
    assert [found.verdict(float(found.probability(m))) for m in (-0.4, 0.4)] == ["absent", "present"]
    assert found.probability(-0.2) < found.threshold < found.probability(0.2)


def test_threshold_has_the_best_youden_index_of_all_cuts() -> None:
    labels, margins = _sample(90)
    margins = margins.round(1)
    found = calibrate(labels, margins)
    p = found.probability(margins)

    def youden(cut: float) -> float:
        return float((p[labels == 1] >= cut).mean() + (p[labels == 0] < cut).mean() - 1)

    assert youden(found.threshold) == pytest.approx(max(youden(c) for c in (*p, 2.0)))


def test_band_holds_its_share_of_validation_regions_around_the_threshold() -> None:
    labels, margins = _sample(1000)
    found = calibrate(labels, margins)
    verdicts = [found.verdict(float(p)) for p in found.probability(margins)]
    assert verdicts.count("undecided") / 1000 == pytest.approx(UNDECIDED_SHARE, abs=0.005)
    assert 0 < found.low < found.threshold < found.high < 1
    for p, expected in ((found.low - 1e-6, "absent"), (found.threshold, "undecided"), (found.high + 1e-6, "present")):
        assert found.verdict(p) == expected


def test_fit_depends_on_its_pairs_and_not_on_their_order() -> None:
    labels, margins = _sample(150)
    once = calibrate(labels, margins)
    rng = np.random.default_rng(1)
    for _ in range(3):
        order = rng.permutation(150)
        again = calibrate(labels[order], margins[order])
        assert again.threshold == pytest.approx(once.threshold, abs=1e-4)
        assert np.allclose(again.probability(margins), once.probability(margins), atol=1e-4)
    assert calibrate(rng.permutation(labels), margins).threshold != pytest.approx(once.threshold, abs=1e-3)


def test_it_refuses_few_and_survives_json() -> None:
    with pytest.raises(ValueError, match="found 4 present and 20 absent"):
        calibrate([1] * 4 + [0] * 20, np.arange(24))
    found = calibrate(*_sample(60))
    assert Calibration(**json.loads(json.dumps(found.as_dict()))) == found


def test_calibration_error_by_hand() -> None:
    # Two bins of two: (0.1, 0.3) against 1/2, (0.6, 0.8) against 1; mean of 0.3 and 0.3.
    assert expected_calibration_error([1, 1, 0, 1], [0.8, 0.3, 0.1, 0.6], bins=2) == pytest.approx(0.3)
    assert expected_calibration_error([0, 0, 0, 1], [0.0, 0.0, 0.0, 1.0], bins=2) == pytest.approx(0.0)
    assert expected_calibration_error([1], [0.25]) == pytest.approx(0.75)
