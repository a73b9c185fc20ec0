"""Numbers of a results record: a value and its interval out of shared draws of patients, or NA with the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.evaluation.intervals import Draws, p_of_zero, proportion
from medvl.evaluation.metrics import average_of

Array = NDArray[np.float64]
LEVEL = 0.95


def interval(values: Array, level: float = LEVEL) -> tuple[float, float] | None:
    """Percentile interval of draws (B,); None where fewer than half of them give a value."""
    known = _known(values)
    if known is None:
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def p_value(differences: Array) -> float | None:
    """`p_of_zero` of draws (B,); None where fewer than half of them give a value."""
    known = _known(differences)
    return None if known is None else p_of_zero(known)


def _known(values: Array) -> Array | None:
    known = values[np.isfinite(values)]
    return None if len(known) < max(len(values) / 2, 2) else known


def estimate(values: Array, digits: int = 4) -> dict[str, Any]:
    """`value` and `ci` of a statistic (B + 1,) from `Draws.values`, the cohort's own first; NA, with why, where undefined."""
    if not np.isfinite(values[0]):
        return missing("not defined on this cohort")
    found = interval(values[1:])
    out: dict[str, Any] = {"value": round(float(values[0]), digits), "ci": None}
    if found is None:
        return out | {"note": "no interval: fewer than half of the draws have both outcomes"}
    return out | {"ci": [round(v, digits) for v in found]}


def missing(why: str) -> dict[str, Any]:
    """A stated NA."""
    return {"value": None, "ci": None, "na": why}


def rate(hits: ArrayLike, patients: ArrayLike, draws: Draws) -> dict[str, Any]:
    """Estimate of the mean of (N,) shares in [0, 1].

    Where all are 0 or all are 1, draws cannot vary, and the interval is Wilson's over patients instead.
    """
    values = np.asarray(hits, dtype=np.float64)
    told = estimate(draws.values(average_of(values), patients))
    if len(values) and values.min() == values.max() and values[0] in (0.0, 1.0):
        n = len(np.unique(np.asarray(patients)))
        low, high = proportion(n * values[0], n)
        told |= {"ci": [round(float(low), 4), round(float(high), 4)], "note": "interval: Wilson over patients"}
    return told
