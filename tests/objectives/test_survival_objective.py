"""The image tower learns from outcomes: each patient once, none of unknown outcome, nothing where nobody died."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scenes import KIDNEY, SIZES, P, targets
from sksurv.linear_model import CoxPHSurvivalAnalysis
from torch import Tensor

from medvl.errors import ConfigError
from medvl.objectives.cox import cox_negative_log_likelihood
from medvl.objectives.hazards import discrete_hazard_loss
from medvl.objectives.registry import Scene, build_objective
from medvl.objectives.survival import Survival, patient_cox_loss

HAZARDS: dict[str, Any] = {"form": "hazards", "cuts_days": [0, 300, 700, 1200]}
FORMS = pytest.mark.parametrize("options", [{}, {"ties": "breslow", "hidden": 5}, HAZARDS], ids=["cox", "breslow", "hazards"])


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Heads start the same in every run."""
    torch.manual_seed(0)


def cohort(n: int = 40, seed: int = 0) -> tuple[Tensor, Scene]:
    """Features and outcomes of n patients with one sample each; days are tied."""
    rng = np.random.default_rng(seed)
    scene = Scene(
        "kidney",
        0,
        targets(n, seed),
        time_days=torch.tensor(100.0 * rng.integers(1, 12, n), dtype=torch.float32),
        event=torch.tensor(rng.random(n) < 0.5),
        patients=torch.tensor(rng.permutation(n)),
    )
    return torch.tensor(rng.normal(size=(n, P)), dtype=torch.float32), scene


def picked(scene: Scene, rows: Tensor) -> Scene:
    """The outcomes of some samples, or of some of them again."""
    assert scene.time_days is not None
    assert scene.event is not None
    assert scene.patients is not None
    return replace(scene, time_days=scene.time_days[rows], event=scene.event[rows], patients=scene.patients[rows])


def loss_and_gradients(objective: Survival, pooled: Tensor, scene: Scene) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Loss, gradient of the features and gradients of the kidneys' head."""
    given = pooled.clone().requires_grad_()
    objective.zero_grad()
    loss = objective({"pooled": given}, scene)
    loss.backward()
    assert given.grad is not None
    return loss.detach(), given.grad, [p.grad.clone() for p in objective.heads["kidney"].parameters()]


def made(options: dict) -> Survival:
    objective = build_objective("survival", options, SIZES)
    assert isinstance(objective, Survival)
    return objective


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_one_sample_a_patient_is_the_partial_likelihood_of_the_head(ties: str) -> None:
    pooled, scene = cohort()
    objective = made({"ties": ties})
    expected = cox_negative_log_likelihood(objective.heads["kidney"](pooled)[:, 0], scene.time_days, scene.event, ties=ties)
    torch.testing.assert_close(objective({"pooled": pooled}, scene), expected)


def test_hazards_are_the_likelihood_of_the_head() -> None:
    pooled, scene = cohort()
    objective = made(HAZARDS)
    cuts = torch.tensor(HAZARDS["cuts_days"])
    expected = discrete_hazard_loss(objective.heads["kidney"](pooled), scene.time_days, scene.event, cuts)
    torch.testing.assert_close(objective({"pooled": pooled}, scene), expected)


def test_the_gradient_is_zero_at_the_coefficients_that_another_library_fits() -> None:
    pooled, scene = cohort(120)
    outcome = np.array(list(zip(scene.event.tolist(), scene.time_days.tolist(), strict=True)), dtype=[("e", bool), ("t", float)])
    fitted = CoxPHSurvivalAnalysis(ties="efron", tol=1e-12).fit(pooled.double().numpy(), outcome)
    objective = made({})
    _, _, (before,) = loss_and_gradients(objective, pooled, scene)
    with torch.no_grad():
        objective.heads["kidney"][-1].weight.copy_(torch.tensor(fitted.coef_)[None])
    _, _, (after,) = loss_and_gradients(objective, pooled, scene)
    assert before.abs().max() > 0.02
    assert after.abs().max() < 1e-5


@FORMS
def test_a_patient_counts_once_however_many_samples_it_has(options: dict) -> None:
    pooled, scene = cohort()
    objective = made(options)
    again = torch.cat([torch.arange(40), torch.arange(0, 40, 3), torch.arange(0, 40, 3)])
    once, _, head = loss_and_gradients(objective, pooled, scene)
    more, _, head_more = loss_and_gradients(objective, pooled[again], picked(scene, again))
    torch.testing.assert_close(more, once)
    for a, b in zip(head, head_more, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)


def test_samples_of_a_patient_that_differ_weigh_as_case_weights_do() -> None:
    """Breslow's likelihood, written as a loop over the deaths, with samples of weight 1 over their number."""
    rng = np.random.default_rng(4)
    risk, patients = rng.normal(size=30), rng.integers(0, 14, 30)
    days, died = 100.0 * rng.integers(1, 6, 14), rng.random(14) < 0.6
    weight = 1 / np.array([(patients == p).sum() for p in patients])
    total, mass = 0.0, 0.0
    for i in np.flatnonzero(died[patients]):
        at_risk = days[patients] >= days[patients[i]]
        total += weight[i] * (np.log((weight * np.exp(risk))[at_risk].sum()) - risk[i])
        mass += weight[i]
    found = patient_cox_loss(
        torch.tensor(risk), torch.tensor(days[patients]), torch.tensor(died[patients]), torch.tensor(patients), "breslow"
    )
    assert float(found) == pytest.approx(total / mass, rel=1e-10)


@FORMS
def test_unknown_outcomes_move_nothing(options: dict) -> None:
    pooled, scene = cohort()
    objective = made(options)
    known = torch.arange(40) % 3 != 0
    assert scene.time_days is not None
    hidden = replace(scene, time_days=torch.where(known, scene.time_days, torch.nan))
    loss, gradient, head = loss_and_gradients(objective, pooled, hidden)
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).any()
    alone, _, head_alone = loss_and_gradients(objective, pooled[known], picked(scene, known))
    torch.testing.assert_close(loss, alone)
    for a, b in zip(head, head_alone, strict=True):
        torch.testing.assert_close(a, b)


@FORMS
def test_nothing_known_at_all_is_zero_with_a_gradient_of_zeros(options: dict) -> None:
    pooled, scene = cohort()
    loss, gradient, head = loss_and_gradients(made(options), pooled, replace(scene, time_days=torch.full((40,), torch.nan)))
    assert loss == 0
    assert all((g == 0).all() for g in (gradient, *head))


def test_no_event_is_zero_with_a_gradient_of_zeros_but_survivors_lower_hazards() -> None:
    pooled, scene = cohort()
    nobody = replace(scene, event=torch.zeros(40, dtype=torch.bool))
    loss, gradient, head = loss_and_gradients(made({}), pooled, nobody)
    assert loss == 0
    assert all((g == 0).all() for g in (gradient, *head))
    _, _, (_, bias) = loss_and_gradients(made(HAZARDS), pooled, nobody)
    assert (bias > 0).all()


def test_heads_learn_the_order_of_deaths() -> None:
    pooled, scene = cohort(64, 2)
    scene = replace(scene, time_days=2000 - 500 * pooled[:, 0], event=torch.ones(64, dtype=torch.bool))
    for options in ({}, {"form": "hazards", "cuts_days": [0, 1500, 2000, 2500, 4000]}):
        objective = made(options)
        steps = torch.optim.Adam(objective.parameters(), 0.05)
        for _ in range(60):
            steps.zero_grad()
            objective({"pooled": pooled}, scene).backward()
            steps.step()
        with torch.no_grad():
            risk = objective.heads["kidney"](pooled).sum(1)
        assert np.corrcoef(risk.numpy(), pooled[:, 0].numpy())[0, 1] > 0.9


@pytest.mark.parametrize("missing", ["time_days", "event", "patients"])
def test_a_cohort_without_outcomes_is_refused(missing: str) -> None:
    pooled, scene = cohort()
    with pytest.raises(ConfigError, match="no outcomes of kidney; give time_days and event"):
        made({})({"pooled": pooled}, replace(scene, **{missing: None}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "hazards"}, "needs cuts_days"),
        ({"form": "hazards", "cuts_days": [0]}, "needs cuts_days"),
        ({"form": "hazards", "cuts_days": [100, 200]}, "needs cuts_days"),
        ({"form": "hazards", "cuts_days": [0, 200, 200]}, "rising"),
        ({"form": "hazards", "cuts_days": [0, 200, float("nan")]}, "rising"),
        ({"cuts_days": [0, 200]}, "form: hazards; drop them"),
        ({"ties": "exact"}, "ties"),
        ({"hidden": -1}, "hidden"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(options)


def test_heads_cannot_change_their_layout_between_stages_but_ties_may() -> None:
    pooled, scene = cohort()
    objective = made({})
    objective.options = made({"ties": "breslow", "weight": 2.0}).options
    objective({"pooled": pooled}, scene)
    for other in (HAZARDS, {"hidden": 3}):
        objective.options = made(other).options
        with pytest.raises(ConfigError, match="keep one in all stages"):
            objective({"pooled": pooled}, scene)


def test_each_kind_has_its_own_head() -> None:
    pooled, scene = cohort()
    objective = made({})
    assert set(SIZES.kinds) == set(objective.heads)
    assert SIZES.kinds["kidney"] is KIDNEY
    objective({"pooled": pooled}, scene).backward()
    assert objective.heads["chest"][-1].weight.grad is None
    assert objective.heads["kidney"][-1].weight.grad.abs().sum() > 0
