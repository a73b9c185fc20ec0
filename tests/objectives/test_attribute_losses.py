"""Attribute losses: equal to loops over what is known, finite everywhere, silent about what is unknown."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from medvl.objectives.attributes import masked_bce, masked_cross_entropy, masked_smooth_l1

B, K = 5, 3


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@pytest.mark.parametrize("weight", [None, [1.0, 7.0, 0.25]])
def test_bce_equals_a_loop_over_known_entries(weight: list[float] | None) -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 3, (B, K)), rng.choice([-1, 0, 1, 2], (B, K))
    terms = [
        (weight[k] if weight else 1.0) * _softplus(-logits[b, k]) if targets[b, k] == 1 else _softplus(logits[b, k])
        for b in range(B)
        for k in range(K)
        if targets[b, k] in (0, 1)
    ]
    assert 2 < len(terms) < B * K
    found = masked_bce(
        torch.tensor(logits), torch.tensor(targets, dtype=torch.int8), None if weight is None else torch.tensor(weight)
    )
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-6)


def test_cross_entropy_equals_a_loop_over_known_rows() -> None:
    logits, targets = np.random.default_rng(1).normal(0, 3, (B, K)), np.array([2, -1, 0, 2, -1])
    terms = [np.log(np.exp(logits[b]).sum()) - logits[b, targets[b]] for b in range(B) if targets[b] >= 0]
    assert float(masked_cross_entropy(torch.tensor(logits), torch.tensor(targets))) == pytest.approx(np.mean(terms), rel=1e-9)


def test_smooth_l1_equals_a_loop_over_known_numbers() -> None:
    rng = np.random.default_rng(2)
    predicted, targets = rng.normal(0, 2, (B, K)), rng.normal(0, 2, (B, K))
    targets[rng.random((B, K)) < 0.4] = np.nan
    gaps = np.abs(predicted - targets)[np.isfinite(targets)]
    assert (gaps < 1).any()
    assert (gaps > 1).any()
    terms = np.where(gaps < 1, gaps**2 / 2, gaps - 0.5)
    assert float(masked_smooth_l1(torch.tensor(predicted), torch.tensor(targets))) == pytest.approx(terms.mean(), rel=1e-9)


LOSSES: dict[str, tuple[Callable[..., torch.Tensor], torch.Tensor, torch.Tensor]] = {
    "bce": (masked_bce, torch.full((B, K), -1, dtype=torch.int8), torch.tensor([[0, 1, -1]] * B, dtype=torch.int8)),
    "cross_entropy": (masked_cross_entropy, torch.full((B,), -1), torch.tensor([0, 1, 2, -1, 2])),
    "smooth_l1": (masked_smooth_l1, torch.full((B, K), torch.nan), torch.tensor([[0.5, -200.0, torch.nan]] * B)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_known_is_zero_with_a_gradient_path(name: str) -> None:
    loss, unknown, _ = LOSSES[name]
    values = torch.randn(B, K, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = loss(values, unknown)
    assert found.shape == ()
    found.backward()
    assert found.item() == 0
    assert values.grad is not None
    assert (values.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [200.0, -200.0])
def test_extreme_logits_keep_loss_and_gradients_finite(name: str, size: float) -> None:
    loss, _, known = LOSSES[name]
    values = (torch.tensor([[1.0, 1.0, -1.0]]) * size).repeat(B, 1).requires_grad_()
    found = loss(values, known)
    found.backward()
    assert torch.isfinite(found)
    assert found.item() > 10
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_only_known_entries_are_pulled(name: str) -> None:
    loss, _, known = LOSSES[name]
    values = torch.randn(B, K, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss(values, known).backward()
    unknown = (known == -1) | ~known.isfinite()
    assert values.grad is not None
    assert torch.equal(values.grad == 0, unknown.reshape(B, -1).expand(B, K))
