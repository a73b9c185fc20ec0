"""Contrastive losses against plain InfoNCE, loops, and what they promise."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax

from medvl.objectives.contrastive import assertion_pairs, image_text_contrastive, soft_targets

B, E, S = 4, 6, 7


def _units(n: int, seed: int) -> torch.Tensor:
    values = torch.randn(n, E, generator=torch.Generator().manual_seed(seed))
    return values / values.norm(dim=1, keepdim=True)


def _likeness(seed: int = 0) -> torch.Tensor:
    values = torch.rand(B, B, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values.fill_diagonal_(1.0)
    return values


@pytest.mark.parametrize("hard_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.01, 0.2, 5.0])
def test_rows_of_soft_targets_sum_to_one_both_ways(hard_weight: float, temperature: float) -> None:
    similarity = _likeness()
    assert not torch.allclose(similarity, similarity.T)
    forward, backward = soft_targets(similarity, hard_weight, temperature)
    for found, values in ((forward, similarity.numpy()), (backward, similarity.numpy().T)):
        assert torch.allclose(found.sum(1), torch.ones(B, dtype=torch.float64))
        expected = hard_weight * np.eye(B) + (1 - hard_weight) * softmax(values / temperature, axis=1)
        assert np.allclose(found, expected)


def test_without_targets_it_is_info_nce() -> None:
    image, text = _units(B, 0), _units(B, 1)
    logits = 14.3 * image.double().numpy() @ text.double().numpy().T
    rows = np.mean([logsumexp(logits[i]) - logits[i, i] for i in range(B)])
    columns = np.mean([logsumexp(logits[:, i]) - logits[i, i] for i in range(B)])
    assert rows != pytest.approx(columns)
    assert float(image_text_contrastive(image, text, torch.tensor(14.3))) == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_identity_targets_equal_no_targets() -> None:
    image, text, scale = _units(B, 0), _units(B, 1), torch.tensor(14.3)
    plain = image_text_contrastive(image, text, scale)
    hard = soft_targets(_likeness().float(), 1.0, 0.1)
    assert torch.allclose(image_text_contrastive(image, text, scale, hard), plain)
    soft = soft_targets(_likeness().float(), 0.2, 0.5)
    assert not torch.allclose(image_text_contrastive(image, text, scale, soft), plain)


def test_soft_targets_reach_their_own_direction() -> None:
    image, text = _units(B, 0), _units(B, 1)
    similarity = _likeness().float()
    forward, backward = soft_targets(similarity, 0.2, 0.5)
    logits = 9.0 * image.double().numpy() @ text.double().numpy().T
    terms = [-(forward.numpy()[i] * (logits[i] - logsumexp(logits[i]))).sum() for i in range(B)]
    terms += [-(backward.numpy()[i] * (logits[:, i] - logsumexp(logits[:, i]))).sum() for i in range(B)]
    found = image_text_contrastive(image, text, torch.tensor(9.0), (forward, backward))
    assert float(found) == pytest.approx(np.sum(terms) / (2 * B), rel=1e-5)


def test_matching_pairs_score_better_than_shuffled_ones() -> None:
    image = _units(B, 0)
    scale = torch.tensor(20.0)
    assert image_text_contrastive(image, image, scale) < image_text_contrastive(image, image.roll(1, 0), scale)


@pytest.mark.parametrize("scale", [200.0, -200.0])
@pytest.mark.parametrize("soft", [False, True])
def test_contrastive_is_finite_at_extreme_logits_and_for_one_pair(scale: float, soft: bool) -> None:
    for n in (B, 1):
        image = _units(n, 0).requires_grad_()
        targets = soft_targets(torch.eye(n), 0.5, 0.1) if soft else None
        found = image_text_contrastive(image, image.detach(), torch.tensor(scale), targets)
        found.backward()
        assert torch.isfinite(found)
        assert image.grad is not None
        assert torch.isfinite(image.grad).all()


def _agrees(seed: int = 3) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).choice([-1, 0, 1], (B, S), p=[0.5, 0.35, 0.15]), dtype=torch.int8)


def _loop(image: torch.Tensor, text: torch.Tensor, agrees: torch.Tensor, scale: float, bias: float) -> float:
    terms: dict[int, list[float]] = {0: [], 1: []}
    for b in range(B):
        for s in range(S):
            sign = {1: 1, 0: -1, -1: 0}[int(agrees[b, s])]
            if sign:
                z = -sign * (scale * float(image[b].double() @ text[s].double()) + bias)
                terms[int(agrees[b, s])].append(max(z, 0) + math.log1p(math.exp(-abs(z))))
    return float(np.mean([np.mean(t) for t in terms.values() if t]))


def test_assertions_equal_a_loop_that_weights_both_classes_alike() -> None:
    image, text, agrees = _units(B, 0), _units(S, 1), _agrees()
    assert (agrees == 0).sum() > (agrees == 1).sum() > 0
    found = assertion_pairs(image, text, agrees, torch.tensor(8.0), torch.tensor(-1.5))
    assert float(found) == pytest.approx(_loop(image, text, agrees, 8.0, -1.5), rel=1e-5)
    for only in (0, 1):
        part = torch.where(agrees == only, agrees, torch.tensor(-1, dtype=torch.int8))
        found = assertion_pairs(image, text, part, torch.tensor(8.0), torch.tensor(-1.5))
        assert float(found) == pytest.approx(_loop(image, text, part, 8.0, -1.5), rel=1e-5)


def test_unknown_pairs_give_neither_loss_nor_gradient() -> None:
    image, text = _units(B, 0), _units(S, 1).requires_grad_()
    agrees = _agrees()
    agrees[:, 2] = -1
    scale, bias = torch.tensor(8.0), torch.tensor(-1.5)
    found = assertion_pairs(image, text, agrees, scale, bias)
    found.backward()
    assert text.grad is not None
    assert (text.grad[2] == 0).all()
    assert (text.grad[(agrees >= 0).any(0)] != 0).any(1).all()
    other = text.detach().clone()
    other[2] = -other[2]
    assert torch.equal(found, assertion_pairs(image, other, agrees, scale, bias))


def test_all_unknown_is_zero_with_a_gradient_path() -> None:
    image = _units(B, 0).requires_grad_()
    found = assertion_pairs(image, _units(S, 1), torch.full((B, S), -1), torch.tensor(8.0), torch.tensor(0.0))
    found.backward()
    assert found.item() == 0
    assert image.grad is not None
    assert (image.grad == 0).all()


@pytest.mark.parametrize("scale", [200.0, -200.0])
def test_assertions_are_finite_at_extreme_logits(scale: float) -> None:
    image = _units(B, 0).requires_grad_()
    agrees = torch.tensor([[1, 0, 1, 0]] * B)
    found = assertion_pairs(image, _units(B, 0), agrees, torch.tensor(scale), torch.tensor(-10.0))
    found.backward()
    assert torch.isfinite(found)
    assert found.item() > 5
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
