"""Do heat maps lie where the finding is? Pointing game, IoU and Dice against masks on the same grid, beside chance.

Thresholds come from validation patients: `grounding_table` takes both cohorts and refuses a patient who is in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.evaluation.intervals import bootstrap
from medvl.evaluation.peaks import NEAR_MM, peak_distance_mm, share_near
from medvl.geometry import Geometry

Array = NDArray[np.float64]
Overlap = Literal["iou", "dice"]


def pointing(heat: ArrayLike, mask: ArrayLike, ties: Literal["share", "any"] = "share") -> float:
    """Whether the highest cell of a map lies in the mask; NaN for an empty mask.

    Args:
        heat: (d, h, w) finite.
        mask: (d, h, w) bool.
        ties: what several equally high cells count: the `share` of them inside, or a hit if `any` is (as MeDSLIP's release;
            then a constant map always hits).

    Raises:
        ValueError: different grids, or a value that is not finite.
    """
    values, inside = _pair(heat, mask)
    if not inside.any():
        return float("nan")
    hits = inside[values == values.max()]
    return float(hits.mean() if ties == "share" else hits.any())


def overlap(heat: ArrayLike, mask: ArrayLike, threshold: float, metric: Overlap = "iou") -> float:
    """Agreement in [0, 1] of the cells at or above `threshold` with the mask; NaN for an empty mask.

    Raises:
        ValueError: different grids, or a value that is not finite.
    """
    return float(_overlaps(*_pair(heat, mask), np.array([threshold]), metric)[0])


def best_threshold(maps: Sequence[ArrayLike], masks: Sequence[ArrayLike], metric: Overlap = "iou", n_levels: int = 200) -> float:
    """The threshold with the best mean overlap; meant for validation patients, to be applied to others.

    Args:
        maps: N heat maps; grids may differ from map to map.
        masks: as many masks; empty ones are left out.
        metric: overlap to make best.
        n_levels: candidates, evenly filled levels of all values; of several equally good ones the highest is taken.

    Raises:
        ValueError: no mask that holds anything, or what `overlap` refuses.
    """
    pairs = [(h, m) for h, m in (_pair(*pair) for pair in zip(maps, masks, strict=True)) if m.any()]
    if not pairs:
        raise ValueError(f"no finding to choose a threshold on: all {len(maps)} masks are empty")
    levels = np.unique(np.quantile(np.concatenate([h for h, _ in pairs]), np.linspace(0, 1, n_levels), method="higher"))
    means = np.mean([_overlaps(h, m, levels, metric) for h, m in pairs], 0)
    return float(levels[len(means) - 1 - int(means[::-1].argmax())])


@dataclass(frozen=True)
class Measure:
    """A mean over maps: its value, its interval over patients (None when there are too few), and what chance gives."""

    value: float
    interval: tuple[float, float] | None
    chance: float


@dataclass(frozen=True)
class Grounding:
    """How well maps point.

    Args:
        n: maps with something to find; n_empty: maps left out because their mask is empty.
        threshold: of the marked cells, from validation patients.
        pointing: chance is a random cell.
        iou, dice: at the given threshold; chance is the map that marks everything.
        near: the peak lies in the mask or within 5 mm of it; chance is a random cell. None without geometries.
        median_mm: from the peak to the nearest cell of the mask, 0 inside. None without geometries.
    """

    n: int
    n_empty: int
    threshold: float
    pointing: Measure
    iou: Measure
    dice: Measure
    near: Measure | None = None
    median_mm: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Maps:
    """Heat maps of one finding in one cohort.

    Args:
        maps: N heat maps, each on its own grid; masks: as many, on the same grids.
        patients: (N,) whose they are.
        geometries: where the grids lie, for distances in mm.
    """

    maps: Sequence[ArrayLike]
    masks: Sequence[ArrayLike]
    patients: Sequence[str]
    geometries: Sequence[Geometry] | None = None


def ground(
    maps: Sequence[ArrayLike],
    masks: Sequence[ArrayLike],
    patients: ArrayLike,
    threshold: float,
    *,
    geometries: Sequence[Geometry] | None = None,
    ties: Literal["share", "any"] = "share",
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Grounding:
    """Judge heat maps of one finding, each by itself, so that no map changes the verdict on another.

    Args:
        maps: N heat maps, each on its own grid.
        masks: N masks on the same grids.
        patients: (N,) whose they are; intervals resample these.
        threshold: from `best_threshold` on other patients.
        geometries: where each grid lies, for distances in mm.
        ties: as in `pointing`.
        n_bootstrap: draws of each interval.
        seed: of the draws.

    Raises:
        ValueError: every mask is empty, lengths differ, or what `pointing` refuses.
    """
    who = np.asarray(patients)
    if not len(maps) == len(masks) == len(who):
        raise ValueError(f"{len(maps)} maps, {len(masks)} masks and {len(who)} patients; give one of each per map")
    share = np.array([np.asarray(mask, dtype=bool).mean() for mask in masks])
    full = np.flatnonzero(share > 0)
    if not len(full):
        raise ValueError(f"nothing to point at: all {len(masks)} masks are empty")

    def measure(score: Callable[[int], float], chance: Array) -> Measure:
        values = np.array([score(int(i)) for i in full])
        interval = None
        if len(np.unique(who[full])) > 1:
            interval = bootstrap(lambda rows: float(values[rows].mean()), who[full], n=n_bootstrap, seed=seed)
        return Measure(float(values.mean()), interval, float(chance[full].mean()))

    near, median = None, None
    if geometries is not None:
        away = {i: peak_distance_mm(maps[i], masks[i], geometries[i]) for i in (int(row) for row in full)}
        around = np.array([share_near(m, g) for m, g in zip(masks, geometries, strict=True)])
        near, median = measure(lambda i: float(away[i] <= NEAR_MM), around), float(np.median(list(away.values())))
    return Grounding(
        len(full),
        len(masks) - len(full),
        threshold,
        measure(lambda i: pointing(maps[i], masks[i], ties), share),
        measure(lambda i: overlap(maps[i], masks[i], threshold, "iou"), share),
        measure(lambda i: overlap(maps[i], masks[i], threshold, "dice"), 2 * share / (1 + share)),
        near,
        median,
    )


def grounding_table(
    validation: Mapping[str, Maps],
    test: Mapping[str, Maps],
    *,
    metric: Overlap = "iou",
    ties: Literal["share", "any"] = "share",
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Grounding | None]:
    """Every finding of the test cohort, each at the threshold that is best on validation patients.

    Returns:
        Finding to its measures, in the order of `test`; None where one of both cohorts shows no such finding.

    Raises:
        ValueError: a patient is in both cohorts, or what `ground` refuses.
    """
    both = {str(p) for part in validation.values() for p in part.patients} & {str(p) for m in test.values() for p in m.patients}
    if both:
        raise ValueError(f"{len(both)} patients are in validation and test, such as {min(both)}; thresholds would leak")
    out: dict[str, Grounding | None] = {}
    for name, part in test.items():
        chosen = validation.get(name)
        known = [any(np.any(mask) for mask in cohort.masks) for cohort in (part, chosen) if cohort is not None]
        out[name] = None
        if chosen is not None and all(known):
            out[name] = ground(
                part.maps,
                part.masks,
                list(part.patients),
                best_threshold(chosen.maps, chosen.masks, metric),
                geometries=part.geometries,
                ties=ties,
                n_bootstrap=n_bootstrap,
                seed=seed,
            )
    return out


def _pair(heat: ArrayLike, mask: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    """Both flat, after checks."""
    values, inside = np.asarray(heat, dtype=np.float64), np.asarray(mask, dtype=bool)
    if values.shape != inside.shape:
        raise ValueError(f"map {values.shape} and mask {inside.shape} lie on different grids; resample one to the other first")
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"map {values.shape} is empty or holds values that are not finite")
    return values.ravel(), inside.ravel()


def _overlaps(values: Array, inside: NDArray[np.bool_], thresholds: Array, metric: Overlap) -> Array:
    """(K,) overlaps at K thresholds, from one sort of the map."""
    size = int(inside.sum())
    if size == 0:
        return np.full(len(thresholds), np.nan)
    order = np.argsort(values)
    marked = len(values) - np.searchsorted(values[order], thresholds, side="left")
    hits = np.concatenate([[0], np.cumsum(inside[order][::-1])])[marked]
    if metric == "iou":
        return np.asarray(hits / (marked + size - hits), dtype=np.float64)
    return np.asarray(2 * hits / (marked + size), dtype=np.float64)
