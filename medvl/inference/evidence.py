"""Is the evidence evidence? Take away what the heat map points at and score again; take away as much elsewhere and compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvl.geometry import Geometry

RADIUS_MM = 16.0
N_CONTROLS = 3


@dataclass(frozen=True)
class Evidence:
    """A heat map's peak and its deletion test.

    Args:
        peak_lps: (x, y, z) mm.
        before: score as it is; after: with a ball around the peak replaced by its surroundings.
        control: mean score with the same ball replaced elsewhere in the region; None where the region has no room for it.
    """

    peak_lps: tuple[float, float, float]
    before: float
    after: float
    control: float | None


def peak_of(heat: NDArray[np.float32]) -> tuple[int, int, int]:
    """Index (d, h, w) of the highest value."""
    d, h, w = np.unravel_index(int(heat.argmax()), heat.shape)
    return int(d), int(h), int(w)


def evidence_of(
    geometry: Geometry, peak: tuple[int, int, int], before: float, after: float, controls: Sequence[float]
) -> Evidence:
    """The deletion test of a peak (voxel index) from scores: as it is, without the peak, and without as much elsewhere."""
    x, y, z = geometry.to_lps(peak)
    place = (round(float(x), 2), round(float(y), 2), round(float(z), 2))
    return Evidence(place, before, after, float(np.mean(controls)) if controls else None)


def without_ball(hu: NDArray[np.int16], geometry: Geometry, center: tuple[int, int, int]) -> NDArray[np.int16]:
    """A copy in which a ball of `RADIUS_MM` is filled with the median of the shell of half its thickness around it."""
    reach = [int(1.5 * RADIUS_MM / spacing) + 1 for spacing in geometry.spacing_mm]
    box = tuple(slice(max(0, c - r), c + r + 1) for c, r in zip(center, reach, strict=True))
    lines = [np.arange(n)[part] - c for n, part, c in zip(hu.shape, box, center, strict=True)]
    axes = np.meshgrid(*lines, indexing="ij", sparse=True)
    squares = [(axis * s) ** 2 for axis, s in zip(axes, geometry.spacing_mm, strict=True)]
    distance = np.sqrt(squares[0] + squares[1] + squares[2])
    shell = (distance > RADIUS_MM) & (distance <= 1.5 * RADIUS_MM)
    out = hu.copy()
    out[box][distance <= RADIUS_MM] = np.int16(np.median(hu[box][shell]))
    return out


def elsewhere(shape: tuple[int, ...], geometry: Geometry, peak: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """The same few places for the same peak: random, in the inner half of the region, at least two radii away."""
    rng = np.random.default_rng(list(peak))
    found: list[tuple[int, int, int]] = []
    for _ in range(200):
        place = tuple(int(rng.integers(n // 6, n - n // 6)) for n in shape)
        away = np.linalg.norm((np.array(place) - np.array(peak)) * np.array(geometry.spacing_mm))
        if away >= 2 * RADIUS_MM:
            found.append((place[0], place[1], place[2]))
        if len(found) == N_CONTROLS:
            break
    return found
