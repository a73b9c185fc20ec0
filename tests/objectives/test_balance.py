"""Balancing rare classes: what is drawn, what weighs, and what is left alone."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from medvl.errors import ConfigError
from medvl.objectives.balance import Balance, balance, balanced_cross_entropy

LABELS = torch.tensor([0, 1, 1, -1, 2, 1, 1, 0, -1])


@pytest.mark.parametrize("how", ["loss", "sampler", "none", "double_balancing"])
def test_unknown_labels_are_never_drawn(how: str) -> None:
    made = balance(LABELS, 3, how)  # type: ignore[arg-type]
    assert made.draw.sum().item() == pytest.approx(1)
    assert (made.draw[LABELS < 0] == 0).all()
    assert (made.draw[LABELS >= 0] > 0).all()


def test_the_sampler_draws_every_class_alike() -> None:
    draw = balance(LABELS, 3, "sampler").draw
    assert [draw[c == LABELS].sum().item() for c in range(3)] == pytest.approx([1 / 3] * 3)
    picks = torch.multinomial(draw, 30000, replacement=True, generator=torch.Generator().manual_seed(0))
    assert np.bincount(LABELS[picks], minlength=3) / 30000 == pytest.approx([1 / 3] * 3, abs=0.012)


def test_weights_of_the_loss_average_to_one_over_samples() -> None:
    made = balance(LABELS, 3, "loss")
    assert made.weights is not None
    assert made.weights.tolist() == pytest.approx([7 / 6, 7 / 12, 7 / 3])
    assert made.weights[LABELS[LABELS >= 0]].mean().item() == pytest.approx(1)
    assert len(set(made.draw[LABELS >= 0].tolist())) == 1


def test_an_empty_class_is_refused_unless_nothing_is_balanced() -> None:
    with pytest.raises(ConfigError, match=r"\[2, 4, 1, 0\].*empty class"):
        balance(LABELS, 4)
    assert balance(LABELS, 4, "none").weights is None


def test_weighted_mean_equals_the_loop_and_leaves_out_the_unknown() -> None:
    logits = np.random.default_rng(0).normal(size=(9, 3))
    weights = [7 / 6, 7 / 12, 7 / 3]
    each = [(weights[y], -weights[y] * log_softmax(row)[y]) for row, y in zip(logits, LABELS.tolist(), strict=True) if y >= 0]
    loss = balanced_cross_entropy(torch.tensor(logits), LABELS, balance(LABELS, 3))
    assert loss.item() == pytest.approx(sum(term for _, term in each) / sum(weight for weight, _ in each), rel=1e-5)
    alone = balanced_cross_entropy(torch.tensor(logits)[LABELS >= 0], LABELS[LABELS >= 0], balance(LABELS, 3, "none"))
    plain = torch.nn.functional.cross_entropy(torch.tensor(logits)[LABELS >= 0], LABELS[LABELS >= 0])
    assert alone.item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("per_sample", [False, True])
def test_a_batch_without_labels_is_zero_with_a_gradient_path(per_sample: bool) -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = balanced_cross_entropy(logits, torch.full((4,), -1), Balance(torch.ones(4) / 4, torch.ones(3), per_sample))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()
