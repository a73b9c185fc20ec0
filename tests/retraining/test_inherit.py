"""What a retrained bundle takes over from its parent."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import Tiny

from medvl.evaluation.calibration import Calibration
from medvl.heads.fitting import Fitted, Regions
from medvl.models.bundle import open_bundle
from medvl.retraining.inherit import Carried, carried_over
from medvl.retraining.warm import parent_weights
from medvl.training.card import _borrowed

RNG = np.random.default_rng(0)
OLD = RNG.normal(0.1, 0.05, 60)
KNOTS = ((-0.1, 0.05), (0.1, 0.4), (0.3, 0.9))


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(
            slope=20.0, offset=-1.5, threshold=0.4, low=0.3, high=0.5, n_present=9, n_absent=30, covariance=(1.0, 0.0, 1.0)
        ),
        Calibration(
            slope=20.0, offset=-1.5, threshold=0.4, low=0.3, high=0.5, n_present=9, n_absent=30, method="isotonic", knots=KNOTS
        ),
    ],
)
def test_margins_on_another_scale_give_the_same_probabilities(calibration: Calibration) -> None:
    new = 3.0 * OLD - 0.7
    found = carried_over(calibration, OLD, new)
    assert found is not None
    changed, alike = found
    np.testing.assert_allclose(changed.probability(new), calibration.probability(OLD), atol=1e-9)
    assert alike == pytest.approx(1.0)
    assert (changed.threshold, changed.low, changed.high, changed.n_present) == (0.4, 0.3, 0.5, 9)
    assert changed.interval(0.1) is None  # how sure it is at the new place nobody knows


@pytest.mark.parametrize(
    "new",
    [OLD[::-1].copy(), np.full_like(OLD, 0.2), np.where(np.arange(60) < 15, OLD, np.nan)],
    ids=["another order", "all the same", "too few"],
)
def test_nothing_is_carried_where_the_margins_do_not_agree(new: np.ndarray) -> None:
    plain = Calibration(slope=20.0, offset=-1.5, threshold=0.4, low=0.3, high=0.5, n_present=9, n_absent=30)
    assert carried_over(plain, OLD, new) is None


def test_a_bundle_with_all_calibrations_of_its_own_takes_nothing(tiny_run: Tiny, tmp_path: Path) -> None:
    parent = open_bundle(tiny_run.bundle)
    assert parent_weights(parent)
    own = {k: Calibration(**v) for k, v in parent.values("calibration.json").items()}

    class Asked:
        findings = type("Listed", (), {"findings": ()})()

    fitted = Fitted(calibrations=own)
    regions = {"kidney": Regions([], np.empty(0), torch.empty(0, 1), [])}
    assert Carried(parent, None)(fitted, Asked(), regions) == (fitted, {})  # type: ignore[arg-type]


def test_the_card_names_what_was_carried_over() -> None:
    assert _borrowed({}) == ""
    assert "renal_cyst (0.95)" in _borrowed({"renal_cyst": 0.951})
