"""Batches of region crops: which rows, windows, and the small changes that make a model robust to what does not matter."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvl.imaging.preprocess import window

SHIFT_VOXELS = 2


def to_pixels(hu: NDArray[np.int16], windows_hu: tuple[tuple[float, float], ...]) -> Tensor:
    """(B, C, D, H, W) float32 in [0, 1], one channel per window, from (B, D, H, W) HU."""
    return torch.from_numpy(window(hu, windows_hu)).to(memory_format=torch.channels_last_3d)


def vary(crop: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int16]:
    """One crop (D, H, W) shifted by up to two voxels, with HU offset, gain and noise varied. Never flipped: sides matter."""
    shift = rng.integers(-SHIFT_VOXELS, SHIFT_VOXELS + 1, 3)
    index = [np.clip(np.arange(n) + s, 0, n - 1) for n, s in zip(crop.shape, shift, strict=True)]
    moved = crop[np.ix_(*index)]
    gain, offset = np.float32(rng.normal(1, 0.03)), np.float32(rng.normal(0, 6))
    noise = rng.standard_normal(crop.shape, dtype=np.float32) * np.float32(rng.uniform(0, 8))
    return np.asarray(((moved + 1000) * gain - 1000 + offset + noise).clip(-1024, 3071).astype(np.int16))


@lru_cache(maxsize=64)
def _order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch, n]).permutation(n)


def rows_at(n: int, batch: int, seed: int, turn: int) -> NDArray[np.int64]:
    """(min(batch, n),) row numbers of one turn: every row once per round, each round in its own order.

    A function of its arguments alone, so that a run resumes inside a round without keeping any state.
    """
    take = min(batch, n)
    places = np.arange(turn * take, (turn + 1) * take)
    rows = [_order(n, seed, int(epoch))[places[places // n == epoch] % n] for epoch in np.unique(places // n)]
    return np.concatenate(rows)
