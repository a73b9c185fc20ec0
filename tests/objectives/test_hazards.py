"""Discrete hazards against a loop over patients and intervals."""

import math

import numpy as np
import pytest
import torch

from medvl.errors import ConfigError
from medvl.objectives.hazards import discrete_hazard_loss, hazard_targets, quantile_cuts

CUTS = torch.tensor([0.0, 2.0, 6.0, 7.0])


def _loop(logits: np.ndarray, time: np.ndarray, event: np.ndarray, cuts: np.ndarray) -> float:
    """Gensheimer and Narasimhan's likelihood, one factor after another."""
    total, told = 0.0, 0
    for row, t, e in zip(logits, time, event, strict=True):
        logs = []
        for k, z in enumerate(row):
            low, high, hazard = cuts[k], cuts[k + 1], 1 / (1 + math.exp(-z))
            if e and (t <= high) and (t > low or k == 0):
                logs.append(math.log(hazard))
                break
            if (e and t > high) or (not e and t >= (low + high) / 2):
                logs.append(math.log(1 - hazard))
        total -= sum(logs)
        told += bool(logs)
    return total / told


def test_loss_equals_a_loop() -> None:
    rng = np.random.default_rng(0)
    time, event = np.round(rng.uniform(0, 9, 80), 0), rng.random(80) < 0.5
    logits = rng.normal(size=(80, 3))
    found = discrete_hazard_loss(*(torch.from_numpy(v) for v in (logits, time, event)), CUTS)
    assert found.item() == pytest.approx(_loop(logits, time, event, CUTS.numpy()), rel=1e-12)


@pytest.mark.parametrize(
    ("time", "event", "died", "told"),
    [
        (0.0, True, [1, 0, 0], [1, 0, 0]),
        (0.0, False, [0, 0, 0], [0, 0, 0]),
        (0.9, False, [0, 0, 0], [0, 0, 0]),
        (1.0, False, [0, 0, 0], [1, 0, 0]),
        (2.0, True, [1, 0, 0], [1, 0, 0]),
        (2.1, True, [0, 1, 0], [1, 1, 0]),
        (3.9, False, [0, 0, 0], [1, 0, 0]),
        (4.0, False, [0, 0, 0], [1, 1, 0]),
        (99.0, True, [0, 0, 0], [1, 1, 1]),
        (99.0, False, [0, 0, 0], [1, 1, 1]),
        (math.nan, True, [0, 0, 0], [0, 0, 0]),
    ],
)
def test_what_each_patient_tells(time: float, event: bool, died: list[int], told: list[int]) -> None:
    target, mask = hazard_targets(torch.tensor([time]), torch.tensor([event]), CUTS)
    assert (target[0].tolist(), mask[0].int().tolist()) == (died, told)


@pytest.mark.parametrize("size", [200.0, -200.0])
def test_extreme_logits_stay_finite(size: float) -> None:
    logits = torch.full((4, 3), size, requires_grad=True)
    loss = discrete_hazard_loss(logits, torch.tensor([1.0, 3, 7, 9]), torch.tensor([True, False, True, False]), CUTS)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_nobody_who_tells_anything_is_zero_with_a_gradient_path() -> None:
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = discrete_hazard_loss(logits, torch.tensor([0.0, 0.5, math.nan]), torch.tensor([False, False, True]), CUTS)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_weights_count_rows() -> None:
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    time, event = torch.tensor([1.0, 3.0, 6.5]), torch.tensor([True, False, True])
    twice = [torch.cat([v, v[:1]]) for v in (logits, time, event)]
    weighted = discrete_hazard_loss(logits, time, event, CUTS, torch.tensor([2.0, 1.0, 1.0]))
    assert weighted.item() == pytest.approx(discrete_hazard_loss(*twice, CUTS).item(), rel=1e-6)


def test_gradient_equals_finite_differences() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    time, event = torch.tensor([1.0, 3, 7, 9]), torch.tensor([True, False, True, False])
    assert torch.autograd.gradcheck(lambda z: discrete_hazard_loss(z, time, event, CUTS), (logits,))


def test_cuts_hold_about_as_many_events_each() -> None:
    rng = np.random.default_rng(0)
    time, event = rng.exponential(5, 400), rng.random(400) < 0.5
    cuts = quantile_cuts(time, event, 5)
    assert cuts[0] == 0
    assert cuts[-1] == time[event].max()
    counts = np.histogram(time[event], cuts)[0]
    assert counts.max() - counts.min() <= 1
    assert quantile_cuts([3, 3, 3, np.nan], [True, True, True, True], 4).tolist() == [0, 3]


def test_unfit_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 intervals from 0 events"):
        quantile_cuts([0, 2], [True, False], 4)
    with pytest.raises(ConfigError, match="do not fit 3 intervals"):
        discrete_hazard_loss(torch.zeros(2, 4), torch.ones(2), torch.ones(2), CUTS)
