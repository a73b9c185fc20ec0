"""Moments that come back from a checkpoint lie in memory as their weights do: the fused optimiser walks both side by side."""

import torch
from torch import nn

from medvl.training.loop_options import LoopOptions
from medvl.training.optimiser import adamw, load_moments, moments


def trained(steps: int, cut: int | None) -> torch.Tensor:
    """A weight in channels-last order after some steps, the optimiser thrown away and made anew from its moments after `cut`."""
    torch.manual_seed(0)
    conv = nn.Conv3d(3, 4, 2).to(memory_format=torch.channels_last_3d)
    names = dict(conv.named_parameters())
    make = lambda: adamw(names, [(list(names), 1.0)], LoopOptions(steps=steps, learning_rate=0.1))  # noqa: E731
    optimiser = make()
    for step in range(steps):
        if step == cut:
            held = {key: value.contiguous().clone() for key, value in moments(optimiser, names).items()}
            optimiser = make()
            load_moments(optimiser, names, held, step)
        optimiser.zero_grad()
        rng = torch.Generator().manual_seed(step)
        (conv.weight * torch.randn(conv.weight.shape, generator=rng)).sum().backward()
        conv.bias.grad = torch.zeros_like(conv.bias)
        optimiser.step()
    return conv.weight.detach().contiguous()


def test_a_convolution_in_channels_last_order_goes_on_with_the_same_bits() -> None:
    assert torch.equal(trained(5, cut=2), trained(5, cut=None))
