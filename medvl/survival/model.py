"""The demo survival head: a ridge Cox model on region embeddings and age, with its own baseline and reference risks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from medvl.survival.cox import fit_cox
from medvl.survival.endpoints import MIN_EVENTS
from medvl.survival.interval import Uncertainty, uncertainty_of

Array = NDArray[np.float64]
HORIZONS_DAYS = (365.0, 1095.0, 1825.0)


@dataclass(frozen=True, eq=False)
class SurvivalModel:
    """Risk from embeddings; missing regions contribute the training mean.

    Args:
        endpoint: what the time runs to.
        regions: order of the embeddings in the features.
        width: E.
        center, scale, weights: (F,) of the features: every region's E values, one flag a region, and age in years.
        reference: sorted risks of validation patients, for percentiles.
        baseline: (H,) cumulative baseline hazard at `HORIZONS_DAYS`.
        uncertainty: of weights and baseline; None in bundles from before it was kept, which give no interval.
    """

    endpoint: str
    regions: tuple[str, ...]
    width: int
    center: Array
    scale: Array
    weights: Array
    reference: Array
    baseline: Array
    uncertainty: Uncertainty | None = None

    def risk(self, embeddings: Mapping[str, ArrayLike], age_years: float | None) -> float:
        """Log hazard ratio against the training mean; higher is worse."""
        return float(self._row(embeddings, age_years) @ self.weights)

    def interval(self, embeddings: Mapping[str, ArrayLike], age_years: float | None) -> tuple[Array, Array] | None:
        """(H,) lower and upper 95 % limits of survival at `HORIZONS_DAYS`; None where the model keeps no uncertainty."""
        if self.uncertainty is None:
            return None
        row = self._row(embeddings, age_years)
        return self.uncertainty.band(row, self.baseline * np.exp(float(row @ self.weights)))

    def _row(self, embeddings: Mapping[str, ArrayLike], age_years: float | None) -> Array:
        rows = features([embeddings], [age_years], self.regions, self.width, self.center)
        return np.asarray(((rows - self.center) / self.scale)[0])

    def estimate(self, embeddings: Mapping[str, Tensor], age_years: float | None) -> dict[str, Any]:
        """What is told of one patient: risk, percentile, survival at fixed times, and what was missing."""
        reasons = []
        missing = [name for name in self.regions if name not in embeddings]
        if len(missing) == len(self.regions):
            reason = {"code": "no_usable_region", "message": "no region could be used, so no risk is given"}
            return {"endpoint": self.endpoint, "value": None, "percentile": None, "survival": None, "reasons": [reason]}
        if missing:
            reasons.append(
                {"code": "region_missing", "message": f"risk without {', '.join(missing)}; their average is taken instead"}
            )
        if age_years is None:
            reasons.append({"code": "age_missing", "message": "age is not known; the average is taken instead"})
        known = {k: np.asarray(v) for k, v in embeddings.items()}
        value, limits = self.risk(known, age_years), self.interval(known, age_years)
        survival = np.exp(-self.baseline * np.exp(value))
        told = {
            "endpoint": self.endpoint,
            "value": round(value, 4),
            "percentile": round(100 * float(np.searchsorted(self.reference, value) / max(len(self.reference), 1)), 1),
            "survival": {str(int(t)): round(float(s), 4) for t, s in zip(HORIZONS_DAYS, survival, strict=True)},
            "reasons": reasons,
        }
        if limits is not None:
            ends = zip(HORIZONS_DAYS, *limits, strict=True)
            told["interval"] = {str(int(t)): [round(float(low), 4), round(float(high), 4)] for t, low, high in ends}
        return told

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        arrays = {k: np.round(getattr(self, k), 6).tolist() for k in ("center", "scale", "weights", "reference", "baseline")}
        more = {} if self.uncertainty is None else {"uncertainty": self.uncertainty.to_json()}
        return {"endpoint": self.endpoint, "regions": list(self.regions), "width": self.width, **arrays, **more}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SurvivalModel:
        """From `to_json`."""
        arrays = {k: np.array(values[k], dtype=np.float64) for k in ("center", "scale", "weights", "reference", "baseline")}
        kept = values.get("uncertainty")
        more = None if kept is None else Uncertainty.from_json(kept, len(arrays["weights"]))
        return cls(values["endpoint"], tuple(values["regions"]), int(values["width"]), **arrays, uncertainty=more)


def features(
    embeddings: list[Mapping[str, ArrayLike]] | list[Any],
    ages: list[float | None],
    regions: tuple[str, ...],
    width: int,
    fill: Array | None = None,
) -> Array:
    """(N, F) rows of region embeddings, a flag per region, and age; what is missing is NaN, or `fill` when given."""
    rows = np.full((len(embeddings), len(regions) * (width + 1) + 1), np.nan)
    for i, (found, age) in enumerate(zip(embeddings, ages, strict=True)):
        for k, name in enumerate(regions):
            if name in found:
                rows[i, k * width : (k + 1) * width] = np.asarray(found[name])
            rows[i, len(regions) * width + k] = float(name in found)
        if age is not None:
            rows[i, -1] = age
    if fill is not None:
        rows = np.where(np.isnan(rows), fill, rows)
    return rows


def standardised(raw: Array) -> tuple[Array, Array, Array]:
    """(N, F) rows with mean 0 and deviation 1, what is missing at the mean; with the (F,) means and deviations."""
    known = ~np.isnan(raw)
    filled = np.where(known, raw, 0.0)
    center = filled.sum(0) / np.maximum(known.sum(0), 1)  # 0 where nobody has a value, so that it weighs nothing
    filled = np.where(known, filled, center)
    scale = np.maximum(filled.std(0), 1e-6)
    return (filled - center) / scale, center, scale


def fit_survival(
    endpoint: str,
    embeddings: list[Any],
    ages: list[float | None],
    time_days: ArrayLike,
    event: ArrayLike,
    regions: tuple[str, ...],
    penalty: float,
) -> SurvivalModel:
    """Fit weights and baseline on training patients; `reference` holds theirs, which `dataclasses.replace` can change.

    Raises:
        ValueError: fewer than `MIN_EVENTS` events, or no patient has a region.

    Ties are Efron's, in the weights and in the baseline.
    """
    some = next((value for found in embeddings for value in found.values()), None)
    if some is None:
        raise ValueError("a survival model needs region embeddings, and no patient has any")
    width = len(some)
    x, center, scale = standardised(features(embeddings, ages, regions, width))
    time, happened = np.asarray(time_days, dtype=np.float64), np.asarray(event, dtype=bool)
    if happened.sum() < MIN_EVENTS:
        raise ValueError(f"a survival model needs at least {MIN_EVENTS} events, found {int(happened.sum())}")
    fitted = fit_cox(x, time, happened, penalty=penalty)
    risk = x @ fitted.coefficients
    # the mean of x is 0 but for rounding, so the fit's baseline belongs to these risks
    baseline = fitted.baselines["all"].at(HORIZONS_DAYS)
    unsure = uncertainty_of(fitted, x, time, happened, HORIZONS_DAYS)
    return SurvivalModel(endpoint, regions, width, center, scale, fitted.coefficients, np.sort(risk), baseline, unsure)
