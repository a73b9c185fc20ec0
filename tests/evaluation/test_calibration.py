"""Calibration: against scikit-learn's logistic regression, monotone, and fitted on nothing but what it was given."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from medvl.evaluation.calibration import UNDECIDED_SHARE, Calibration, calibrate
from medvl.evaluation.intervals import draws
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
    assert found.slope == pytest.approx(float(model.coef_[0, 0]), rel=1e-5)
    assert found.offset == pytest.approx(float(model.intercept_[0]), rel=1e-5)
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
    assert np.isfinite([found.slope, found.offset, found.threshold, found.low, found.high]).all()
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


def _targets(labels: np.ndarray) -> np.ndarray:
    n1, n0 = int(labels.sum()), int((1 - labels).sum())
    return np.where(labels == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))


def test_temperature_equals_a_scalar_minimiser() -> None:
    labels, margins = _sample(300)
    goal = _targets(labels)
    best = minimize_scalar(
        lambda s: -(goal * log_expit(s * margins) + (1 - goal) * log_expit(-s * margins)).sum(), bounds=(0, 50), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    found = calibrate(labels, margins, "temperature")
    assert found.slope == pytest.approx(best.x, rel=1e-5)
    assert (found.offset, float(found.probability(0.0)), found.method) == (0, 0.5, "temperature")


@pytest.mark.parametrize("weighted", [False, True])
def test_isotonic_equals_sklearn_between_knots_and_beyond_them(weighted: bool) -> None:
    labels, margins = _sample(250)
    margins = margins.round(2)
    weights = np.random.default_rng(0).integers(1, 4, 250).astype(float) if weighted else None
    found = calibrate(labels, margins, "isotonic", weights=weights)
    w = np.ones(250) if weights is None else weights / weights.mean()
    m1, m0 = w[labels == 1].sum(), w[labels == 0].sum()
    goal = np.where(labels == 1, (m1 + 1) / (m1 + 2), 1 / (m0 + 2))
    theirs = IsotonicRegression(out_of_bounds="clip").fit(margins, goal, sample_weight=w)
    at = np.linspace(margins.min() - 1, margins.max() + 1, 999)
    np.testing.assert_allclose(found.probability(at), theirs.predict(at), atol=1e-9)
    assert len(found.knots) < len(np.unique(margins))
    assert 0 < found.probability(-9.0) < found.threshold < found.probability(9.0) < 1


def test_whole_weights_are_repeated_regions() -> None:
    labels, margins = _sample(200)
    times = np.random.default_rng(1).integers(1, 4, 200)
    again = np.repeat(np.arange(200), times)
    for method in ("platt", "temperature", "isotonic"):
        one, two = calibrate(labels, margins, method, weights=times), calibrate(labels[again], margins[again], method)
        # Platt's smoothing depends on how many there are; weights are brought to a mean of one.
        np.testing.assert_allclose(one.probability(margins), two.probability(margins), atol=0.012)
        assert one.threshold == pytest.approx(two.threshold, abs=0.012)


@pytest.mark.parametrize("at", [0.8, 0.95, 1.0])
def test_a_threshold_holds_what_it_is_asked_for_and_no_more(at: float) -> None:
    labels, margins = _sample(300)
    margins = margins.round(1)
    for target in ("sensitivity", "specificity"):
        found = calibrate(labels, margins, target=target, at=at)
        p, own = found.probability(margins), labels == (target == "sensitivity")

        def held(cut: float, p: np.ndarray = p, own: np.ndarray = own, up: bool = target == "sensitivity") -> float:
            return float(((p >= cut) == up)[own].mean())

        assert held(found.threshold) >= at
        beyond = np.unique(p)
        further = beyond[beyond > found.threshold] + 1e-9 if target == "sensitivity" else beyond[beyond < found.threshold]
        assert all(held(cut) < at for cut in further)
    with pytest.raises(ValueError, match="cannot hold sensitivity at 95"):
        calibrate(labels, margins, target="sensitivity", at=95)


def test_a_fit_on_validation_knows_nothing_of_test_labels() -> None:
    labels, margins = _sample(400)
    fitted = [calibrate(labels[:200], margins[:200])]
    np.random.default_rng(0).shuffle(labels[200:])
    fitted.append(calibrate(labels[:200], margins[:200]))
    assert fitted[0] == fitted[1]


@pytest.mark.parametrize("method", ["platt", "temperature", "isotonic"])
def test_every_method_survives_json_and_bundles_of_before_still_load(method: str) -> None:
    labels, margins = _sample(120)
    for clusters in (None, np.arange(120) // 2):
        found = calibrate(labels, margins, method, clusters=clusters)
        assert Calibration(**json.loads(json.dumps(found.as_dict()))) == found
        assert (found.interval(0.1) is None) == (clusters is None)
    old = {"slope": 7.5, "offset": 2.8, "threshold": 0.33, "low": 0.27, "high": 0.39, "n_present": 204, "n_absent": 603}
    assert Calibration(**old).as_dict() == old
    assert Calibration(**old).interval(0.0) is None
    assert float(Calibration(**old).probability(0.1)) == pytest.approx(expit(0.75 + 2.8))
    for wrong in ({"method": "beta"}, {"method": "isotonic"}, {"knots": [[0, 0.5]]}):
        with pytest.raises(ValueError, match="calibration method"):
            Calibration(**old, **wrong)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_intervals_hold_the_probability_and_cover_the_truth_by_patient_only(method: str) -> None:
    hits = {"patients": 0, "rows": 0}
    studies, at = (80, 0.2) if method == "platt" else (12, 0.2)
    for study in range(studies):
        labels, margins = (np.repeat(x, 3) for x in _sample(150, 1000 + study))
        for name, clusters in (("patients", np.arange(450) // 3), ("rows", np.arange(450))):
            found = calibrate(labels, margins, method, clusters=clusters)
            low, high = found.interval(at)
            assert low <= float(found.probability(at)) <= high
            hits[name] += low <= expit(9 * at - 1.5) <= high
    assert hits["patients"] / studies > (0.88 if method == "platt" else 0.6)
    assert hits["rows"] < 0.9 * hits["patients"]


def test_delta_interval_equals_the_bootstrap_of_the_fit() -> None:
    labels, margins = _sample(300, 2)
    who = np.arange(300) // 3
    found = calibrate(labels, margins, clusters=who)
    values = draws(lambda rows: calibrate(labels[rows], margins[rows]).probability([-0.2, 0.2, 0.5]), who, n=300)
    for k, at in enumerate((-0.2, 0.2, 0.5)):
        low, high = np.quantile(values[:, k], [0.025, 0.975])
        assert found.interval(at) == pytest.approx((low, high), abs=0.025)


def test_margins_that_say_nothing_are_refused() -> None:
    labels = np.array([0, 1] * 10)
    for method in ("platt", "isotonic"):
        with pytest.raises(ValueError, match="every margin is the same"):
            calibrate(labels, np.full(20, 0.3), method)
    with pytest.raises(ValueError, match="margins must be 20 numbers"):
        calibrate(labels, np.full(20, np.nan))
