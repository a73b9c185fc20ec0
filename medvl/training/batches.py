"""Batches of region crops: windows, and the small changes that make a model robust to what does not matter."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHIFT_VOXELS = 2


def to_pixels(hu: NDArray[np.int16], windows_hu: tuple[tuple[float, float], ...]) -> Tensor:
    """(B, C, D, H, W) float32 in [0, 1], one channel per window, from (B, D, H, W) HU."""
    values = torch.from_numpy(np.ascontiguousarray(hu)).float()
    channels = [((values - low) / (high - low)).clamp(0, 1) for low, high in windows_hu]
    return torch.stack(channels, 1).to(memory_format=torch.channels_last_3d)


def vary(hu: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int16]:
    """The same crops shifted by up to two voxels and with HU offset, gain and noise varied. Never flipped: sides matter."""
    out = np.empty_like(hu)
    for i, crop in enumerate(hu):
        shift = tuple(int(s) for s in rng.integers(-SHIFT_VOXELS, SHIFT_VOXELS + 1, 3))
        out[i] = _shifted(crop, shift)
    gain = rng.normal(1, 0.03, (len(hu), 1, 1, 1)).astype(np.float32)
    offset = rng.normal(0, 6, (len(hu), 1, 1, 1)).astype(np.float32)
    noise = rng.standard_normal(hu.shape, dtype=np.float32) * rng.uniform(0, 8, (len(hu), 1, 1, 1)).astype(np.float32)
    return ((out + 1000) * gain - 1000 + offset + noise).clip(-1024, 3071).astype(np.int16)


def _shifted(crop: NDArray[np.int16], shift: tuple[int, ...]) -> NDArray[np.int16]:
    index = [np.clip(np.arange(n) + s, 0, n - 1) for n, s in zip(crop.shape, shift, strict=True)]
    return np.asarray(crop[np.ix_(*index)])


class Sampler:
    """Endless batches of row numbers: every row once per round, in a new order each round, from one seed."""

    def __init__(self, n: int, batch: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._n, self._batch = n, batch
        self._left: NDArray[np.int64] = np.empty(0, np.int64)

    def next(self) -> NDArray[np.int64]:
        """(batch,) row numbers, or (n,) when there are fewer rows than that."""
        take = min(self._batch, self._n)
        while len(self._left) < take:
            self._left = np.concatenate([self._left, self._rng.permutation(self._n)])
        rows, self._left = self._left[:take], self._left[take:]
        return rows
