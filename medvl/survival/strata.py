"""What a survival model says of its reference patients by group, and what one patient's risk is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.survival.curves import risk_groups
from medvl.survival.model import SurvivalModel, features

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stratum:
    """Reference patients between two risks.

    Args:
        name: low, medium or high.
        n: how many.
        risk: the median log hazard ratio of them.
        survival: (H,) predicted for that risk at the model's horizons.
    """

    name: str
    n: int
    risk: float
    survival: Array


def survival_at(model: SurvivalModel, risk: float) -> Array:
    """(H,) predicted probability of no event by each horizon at a log hazard ratio."""
    return np.asarray(np.exp(-model.baseline * np.exp(risk)))


def strata_of(model: SurvivalModel, n_groups: int = 3) -> tuple[Stratum, ...]:
    """Groups of equal size of the model's reference patients, from the lowest risk; none where too few are known.

    Their curves are the model's predictions at each group's median risk, not what was observed.
    """
    try:
        groups = risk_groups(model.reference, n_groups)
    except ConfigError:
        return ()
    names = groups.assign(model.reference)
    out = []
    for name in groups.names:
        own = model.reference[names == name]
        middle = float(np.median(own))
        out.append(Stratum(name, len(own), middle, survival_at(model, middle)))
    return tuple(out)


def contributions(model: SurvivalModel, embeddings: Mapping[str, ArrayLike], age_years: float | None) -> dict[str, float]:
    """What each region and the age add to the log hazard ratio; together they are `SurvivalModel.risk`."""
    row = features([embeddings], [age_years], model.regions, model.width, model.center)[0]
    parts = (row - model.center) / model.scale * model.weights
    width, flags = model.width, len(model.regions) * model.width
    out = {name: float(parts[k * width : (k + 1) * width].sum() + parts[flags + k]) for k, name in enumerate(model.regions)}
    return {**out, "age": float(parts[-1])}
