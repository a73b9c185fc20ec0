"""Both objectives against sums written out, at their limits, and where no gradient may flow."""

from __future__ import annotations

import math

import pytest
import torch

from medvl.errors import ConfigError
from medvl.models.towers.adapt import mntp_loss, simcse_loss


def test_mntp_guesses_from_the_state_before() -> None:
    generator = torch.Generator().manual_seed(1)
    states, table = torch.randn(2, 5, 4, generator=generator).requires_grad_(), torch.randn(7, 4, generator=generator)
    targets = torch.tensor([[3, -100, 6, -100, -100], [-100, -100, -100, -100, 2]])
    expected = 0.0
    for row, place, token in ((0, 2, 6), (1, 4, 2)):
        scores = [
            sum(float(a) * float(b) for a, b in zip(states[row, place - 1].tolist(), word, strict=True))
            for word in table.tolist()
        ]
        expected += math.log(sum(map(math.exp, scores))) - scores[token]
    loss = mntp_loss(states, targets, table)
    assert loss.item() == pytest.approx(expected / 2, rel=1e-5)
    loss.backward()
    assert states.grad is not None
    assert states.grad.abs().sum(-1).nonzero().tolist() == [[0, 1], [1, 3]]


def test_mntp_without_targets_is_zero() -> None:
    states = torch.randn(2, 3, 4).requires_grad_()
    loss = mntp_loss(states, torch.tensor([[5, -100, -100]] * 2), torch.randn(7, 4))
    loss.backward()
    assert loss.item() == 0 and states.grad is not None and not states.grad.any()


def test_simcse_by_hand() -> None:
    first, second = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 5.0]])
    half = 1 / math.sqrt(2)
    rows = [(20 * half, 0.0, 0), (20 * half, 20.0, 1)]
    expected = sum(math.log(math.exp(a) + math.exp(b)) - (a, b)[own] for a, b, own in rows) / 2
    assert simcse_loss(first, second).item() == pytest.approx(expected, rel=1e-5)


def test_simcse_ignores_length_and_is_finite_at_the_limits() -> None:
    first, second = torch.randn(4, 8), torch.randn(4, 8)
    torch.testing.assert_close(simcse_loss(first * 50, second), simcse_loss(first, second / 9))
    assert torch.isfinite(simcse_loss(torch.zeros(4, 8), second))
    assert torch.isfinite(simcse_loss(first, -first, scale=200.0))
    assert simcse_loss(first, first, scale=200.0) < simcse_loss(first, first.roll(1, 0), scale=200.0)
    for a, b in ((first, second[:3]), (first[:1], second[:1])):
        with pytest.raises(ConfigError, match="two readings of at least two texts"):
            simcse_loss(a, b)
