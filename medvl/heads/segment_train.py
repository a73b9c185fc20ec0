"""Learning to segment from crops with label maps: Dice and cross-entropy, an encoder that learns along or stays frozen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.losses.dice import DiceCELoss
from numpy.typing import NDArray
from torch import Tensor

from medvl.errors import ConfigError
from medvl.heads.segment_net import SegmentationNet
from medvl.imaging.preprocess import Contract, window

Told = Callable[[int, float], None]


@dataclass(frozen=True)
class SegmentTraining:
    """How it is trained.

    Args:
        steps, batch, learning_rate, warmup, weight_decay: AdamW, linear rise, then cosine to nothing.
        encoder_factor: on the learning rate of the encoder.
        frozen: the encoder stays as it is, running statistics included.
        filled: share of each batch drawn from crops that show any class, where there are such.
        clip_norm: largest norm of the gradient.
        seed: of the batches.
    """

    steps: int = 300
    batch: int = 4
    learning_rate: float = 3e-3
    warmup: int = 20
    weight_decay: float = 1e-4
    encoder_factor: float = 0.3
    frozen: bool = False
    filled: float = 0.75
    clip_norm: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if min(self.steps, self.batch) < 1 or not self.learning_rate > 0:
            raise ConfigError("segmentation: steps, batch and learning_rate must be above 0")
        if not 0 <= self.filled <= 1:
            raise ConfigError(f"segmentation: filled is {self.filled}; it is a share from 0 to 1")

    def rate(self, step: int) -> float:
        """Share of the peak rate at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup)))


@dataclass(frozen=True, eq=False)
class LabelledCrops:
    """N regions with their label maps.

    Args:
        hu: (N, D, H, W) int16; labels: (N, D, H, W) uint8, 0 background, k + 1 for class k.
        regions: (N,) region of each, whose windows are cut.
        patients: (N,) whose they are.
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    regions: tuple[str, ...]
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.regions)

    def first(self, n: int) -> LabelledCrops:
        """The first `n`."""
        return LabelledCrops(self.hu[:n], self.labels[:n], self.regions[:n], self.patients[:n])

    def pixels(self, rows: Sequence[int] | NDArray[np.int64], contract: Contract) -> Tensor:
        """(B, C, D, H, W) float32 windows of some rows."""
        return torch.from_numpy(np.stack([window(self.hu[i], contract[self.regions[i]].windows_hu) for i in rows]))


def label_map(
    masks: Mapping[str, NDArray[np.bool_]], region: str, classes: Sequence[str], shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Masks named ``class@region`` as one (D, H, W) uint8 map; where classes overlap the later one stands."""
    out = np.zeros(shape, np.uint8)
    for k, name in enumerate(classes):
        mask = masks.get(f"{name}@{region}")
        if mask is not None:
            out[mask] = k + 1
    return out


def train_segmentation(
    net: SegmentationNet, crops: LabelledCrops, contract: Contract, options: SegmentTraining, told: Told | None = None
) -> list[float]:
    """Train in place, and leave the network in evaluation mode.

    Loss: soft Dice over each batch as a whole, without background (Milletari et al. 2016), plus cross-entropy.

    Args:
        net: as `SegmentationNet`.
        crops: of training patients.
        contract: whose windows are cut.
        options: how.
        told: told each step and its loss.

    Returns:
        The loss of every step.

    Raises:
        ConfigError: no crop shows any class, labels beyond the classes, or a loss that is not finite.
    """
    shown = np.array([bool(labels.any()) for labels in crops.labels])
    if not shown.any():
        raise ConfigError(f"none of the {len(crops)} training crops shows any class; give crops with lesions")
    if int(crops.labels.max()) >= net.n_classes:
        raise ConfigError(f"labels run to {int(crops.labels.max())}, the network has classes 0 to {net.n_classes - 1}")
    device = next(net.parameters()).device
    net.frozen = options.frozen
    groups = [{"params": net.decoder(), "peak": options.learning_rate}]
    if not options.frozen:
        groups.append({"params": list(net.encoder.parameters()), "peak": options.learning_rate * options.encoder_factor})
    optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay)
    loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    rng, losses = np.random.default_rng(options.seed), list[float]()
    net.train()
    for step in range(options.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * options.rate(step)
        rows = _draw(shown, options, rng)
        logits = net(crops.pixels(rows, contract).to(device))
        loss = loss_of(logits, torch.from_numpy(crops.labels[rows].astype(np.int64))[:, None].to(device))
        if not torch.isfinite(loss):
            raise ConfigError(f"the loss is {loss.item()} at step {step}; lower learning_rate {options.learning_rate}")
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], options.clip_norm)
        optimiser.step()
        losses.append(float(loss.detach()))
        if told:
            told(step + 1, losses[-1])
    net.eval()
    return losses


def _draw(shown: NDArray[np.bool_], options: SegmentTraining, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of a batch: a share of those that show something, the rest from all."""
    full = np.flatnonzero(shown)
    n_full = round(options.filled * options.batch)
    rest = rng.choice(len(shown), options.batch - n_full, replace=options.batch > len(shown))
    return np.concatenate([rng.choice(full, n_full, replace=n_full > len(full)), rest]).astype(np.int64)
