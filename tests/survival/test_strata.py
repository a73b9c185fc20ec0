"""Groups of a survival model's reference patients, and what one patient's risk is made of."""

import dataclasses

import numpy as np
import pytest

from medvl.survival.model import HORIZONS_DAYS, SurvivalModel
from medvl.survival.strata import contributions, strata_of, survival_at


@pytest.fixture
def model() -> SurvivalModel:
    rng = np.random.default_rng(3)
    n = 2 * (4 + 1) + 1
    reference = np.sort(rng.normal(size=90))
    return SurvivalModel(
        "death", ("kidney_left", "chest"), 4, rng.normal(size=n), rng.uniform(0.5, 2, n), rng.normal(size=n), reference,
        np.array([0.05, 0.2, 0.4]),
    )  # fmt: skip


def test_strata_are_thirds_of_the_reference_with_their_median_risk(model: SurvivalModel) -> None:
    strata = strata_of(model)
    assert [s.name for s in strata] == ["low", "medium", "high"]
    assert [s.n for s in strata] == [30, 30, 30]
    for k, stratum in enumerate(strata):
        own = model.reference[30 * k : 30 * (k + 1)]
        assert stratum.risk == pytest.approx((own[14] + own[15]) / 2)
        assert stratum.survival == pytest.approx([np.exp(-h * np.exp(stratum.risk)) for h in model.baseline])
        assert len(stratum.survival) == len(HORIZONS_DAYS)


def test_too_few_reference_patients_make_no_strata(model: SurvivalModel) -> None:
    assert strata_of(dataclasses.replace(model, reference=np.zeros(0))) == ()
    assert strata_of(dataclasses.replace(model, reference=np.ones(9))) == ()


def test_survival_is_what_the_model_tells(model: SurvivalModel) -> None:
    vectors = {"chest": np.array([0.5, -0.5, 0.5, 0.5])}
    told = model.estimate(vectors, 61.0)
    assert survival_at(model, told["value"]) == pytest.approx(list(told["survival"].values()), abs=1e-4)


def test_contributions_add_up_to_the_risk_and_are_nothing_for_what_is_not_known(model: SurvivalModel) -> None:
    vectors = {"chest": np.array([0.5, -0.5, 0.5, 0.5])}
    parts = contributions(model, vectors, 61.0)
    assert sum(parts.values()) == pytest.approx(model.risk(vectors, 61.0))
    assert parts["age"] == pytest.approx((61.0 - model.center[-1]) / model.scale[-1] * model.weights[-1])
    assert contributions(model, vectors, None)["age"] == 0.0
