"""Is the evidence evidence? Take away what the heat map points at and score again; take away as much elsewhere and compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.evaluation.intervals import Difference, bootstrap, paired_bootstrap
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


@dataclass(frozen=True)
class DeletionSummary:
    """The deletion test over a cohort: by how much scores fall without the peak, and without as much elsewhere.

    Args:
        n: regions with a control; n_without: regions left out because they have no room for one.
        at_peak, elsewhere: mean fall of the score, with the interval over patients (None for a single patient).
        difference: fall at the peak minus fall elsewhere, paired by region and resampled by patient.
        larger: share of regions whose score falls more at the peak.
    """

    n: int
    n_without: int
    at_peak: float
    at_peak_interval: tuple[float, float] | None
    elsewhere: float
    elsewhere_interval: tuple[float, float] | None
    difference: Difference | None
    larger: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def summarise(found: Sequence[Evidence], patients: Sequence[str], *, n_bootstrap: int = 1000, seed: int = 0) -> DeletionSummary:
    """Deletion tests of one finding over a cohort.

    Args:
        found: N tests.
        patients: (N,) whose they are.
        n_bootstrap: draws of each interval.
        seed: of the draws.

    Raises:
        ValueError: lengths differ, or no region had room for a control.
    """
    if len(found) != len(patients):
        raise ValueError(f"{len(found)} deletion tests and {len(patients)} patients; give one patient each")
    kept = [(e.before - e.after, e.before - e.control, p) for e, p in zip(found, patients, strict=True) if e.control is not None]
    if not kept:
        raise ValueError(f"none of {len(found)} deletion tests has a control; regions are too small")
    peak, other = (np.array([row[k] for row in kept], dtype=np.float64) for k in (0, 1))
    who = np.array([row[2] for row in kept])

    def mean(of: NDArray[np.float64]) -> Callable[[NDArray[np.int64]], float]:
        return lambda rows: float(of[rows].mean())

    intervals: list[tuple[float, float] | None] = [None, None]
    difference = None
    if len(set(who.tolist())) > 1:
        intervals = [bootstrap(mean(fall), who, n=n_bootstrap, seed=seed) for fall in (peak, other)]
        difference = paired_bootstrap(mean(peak), mean(other), who, n=n_bootstrap, seed=seed)
    return DeletionSummary(
        n=len(kept),
        n_without=len(found) - len(kept),
        at_peak=float(peak.mean()),
        at_peak_interval=intervals[0],
        elsewhere=float(other.mean()),
        elsewhere_interval=intervals[1],
        difference=difference,
        larger=float((peak > other).mean()),
    )


def peak_of(heat: NDArray[np.float32]) -> tuple[int, int, int]:
    """Index (d, h, w) of the highest value."""
    d, h, w = np.unravel_index(int(heat.argmax()), heat.shape)
    return int(d), int(h), int(w)


def deletion(
    hu: NDArray[np.int16],
    geometry: Geometry,
    peak: tuple[int, int, int],
    rescore: Callable[[list[NDArray[np.int16]]], list[float]],
) -> Evidence:
    """Score a region before, without its peak, and without as much elsewhere.

    Args:
        hu: (D, H, W) HU of the region.
        geometry: its grid.
        peak: voxel index.
        rescore: scores of versions of the region, all at once.
    """
    x, y, z = geometry.to_lps(peak)
    changed = [without_ball(hu, geometry, place) for place in (peak, *_elsewhere(hu.shape, geometry, peak))]
    before, after, *controls = rescore([hu, *changed])
    return Evidence(
        (round(float(x), 2), round(float(y), 2), round(float(z), 2)),
        before,
        after,
        float(np.mean(controls)) if controls else None,
    )


def without_ball(hu: NDArray[np.int16], geometry: Geometry, center: tuple[int, int, int]) -> NDArray[np.int16]:
    """A copy in which a ball of `RADIUS_MM` is filled with the median of the shell of half its thickness around it."""
    axes = np.meshgrid(*(np.arange(n) for n in hu.shape), indexing="ij", sparse=True)
    squares = [((axis - c) * s) ** 2 for axis, c, s in zip(axes, center, geometry.spacing_mm, strict=True)]
    distance = np.sqrt(squares[0] + squares[1] + squares[2])
    shell = (distance > RADIUS_MM) & (distance <= 1.5 * RADIUS_MM)
    out = hu.copy()
    out[distance <= RADIUS_MM] = np.int16(np.median(hu[shell]))
    return out


def _elsewhere(shape: tuple[int, ...], geometry: Geometry, peak: tuple[int, int, int]) -> list[tuple[int, int, int]]:
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
