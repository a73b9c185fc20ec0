"""Image features and clinical covariates in one model: early, as columns side by side, or late, as risks side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.objectives.cox import Ties
from medvl.survival.cox import CoxFit, fit_cox
from medvl.survival.penalty import event_folds

Array = NDArray[np.float64]


def concatenate(parts: Mapping[str, ArrayLike], penalties: Mapping[str, float]) -> tuple[Array, Array]:
    """(N, P) columns of all parts in the order given, and (P,) the penalty of each, for `fit_cox`: early fusion.

    Raises:
        ConfigError: parts have different rows, or one has no penalty.
    """
    arrays = _same_rows(parts)
    if set(penalties) != set(arrays):
        raise ConfigError(f"penalties of {sorted(penalties)} for parts {sorted(arrays)}: every part needs one, 0 leaves it free")
    ridge = np.concatenate([np.full(a.shape[1], penalties[k]) for k, a in arrays.items()])
    return np.concatenate(list(arrays.values()), axis=1), ridge


@dataclass(frozen=True, eq=False)
class LateFusion:
    """A model per part, and one of their log hazards.

    Args:
        parts: fitted on all training patients.
        scales: by part, standard deviation of its out-of-fold log hazards.
        top: of the scaled log hazards, fitted on out-of-fold ones.
    """

    parts: Mapping[str, CoxFit]
    scales: Mapping[str, float]
    top: CoxFit

    def risks(self, parts: Mapping[str, ArrayLike]) -> Array:
        """(N, parts) scaled log hazards."""
        arrays = _same_rows(parts)
        if set(arrays) != set(self.parts):
            raise ConfigError(f"parts {sorted(arrays)}, expected {sorted(self.parts)}")
        return np.stack([fit.log_hazard(arrays[k]) / self.scales[k] for k, fit in self.parts.items()], 1)

    def log_hazard(self, parts: Mapping[str, ArrayLike]) -> Array:
        """(N,) log hazard ratio; higher is worse."""
        return self.top.log_hazard(self.risks(parts))

    def survival(self, parts: Mapping[str, ArrayLike], times: ArrayLike) -> Array:
        """(N, T) probability of no event by each time; as `CoxFit.survival`."""
        return self.top.survival(self.risks(parts), times)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"parts": {k: f.to_json() for k, f in self.parts.items()}, "scales": dict(self.scales), "top": self.top.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LateFusion:
        """From `to_json`."""
        parts = {k: CoxFit.from_json(f) for k, f in values["parts"].items()}
        return cls(parts, dict(values["scales"]), CoxFit.from_json(values["top"]))


def fit_late(
    parts: Mapping[str, ArrayLike],
    time: ArrayLike,
    event: ArrayLike,
    *,
    penalties: Mapping[str, float],
    top_penalty: float = 0.01,
    ties: Ties = "efron",
    n_folds: int = 5,
    seed: int = 0,
) -> LateFusion:
    """Fit each part, then weigh them by log hazards of patients that the part's fit had not seen.

    On log hazards of the fitted patients themselves, the part that overfits most would weigh most.

    Args:
        parts: (N, P) features by name.
        time: (N,) follow-up.
        event: (N,) bool.
        penalties: ridge of each part's fit.
        top_penalty: ridge of the weights of the parts.
        ties: of all fits.
        n_folds: of the out-of-fold risks.
        seed: of the folds.

    Raises:
        ConfigError: as `fit_cox`, or too few events for the folds.
    """
    arrays = _same_rows(parts)
    if set(penalties) != set(arrays):
        raise ConfigError(f"penalties of {sorted(penalties)} for parts {sorted(arrays)}: every part needs one")
    t, e = np.asarray(time, dtype=np.float64), np.asarray(event, dtype=bool)
    fold = event_folds(e, n_folds, seed)
    unseen = np.zeros((len(t), len(arrays)))
    for k in range(n_folds):
        held = fold == k
        for column, (name, x) in enumerate(arrays.items()):
            fit = fit_cox(x[~held], t[~held], e[~held], penalty=penalties[name], ties=ties)
            unseen[held, column] = x[held] @ fit.coefficients
    scales = {name: float(s) if s > 1e-12 else 1.0 for name, s in zip(arrays, unseen.std(0), strict=True)}
    whole = {name: fit_cox(x, t, e, penalty=penalties[name], ties=ties) for name, x in arrays.items()}
    # the whole fits' log hazards are relative to the training mean; the held-out ones are put on the same footing
    offset = np.array([fit.center @ fit.coefficients for fit in whole.values()])
    top = fit_cox((unseen - offset) / np.array(list(scales.values())), t, e, penalty=top_penalty, ties=ties)
    return LateFusion(whole, scales, top)


def _same_rows(parts: Mapping[str, ArrayLike]) -> dict[str, Array]:
    arrays = {k: np.asarray(v, dtype=np.float64) for k, v in parts.items()}
    if not arrays or len({len(a) for a in arrays.values()}) != 1 or any(a.ndim != 2 for a in arrays.values()):
        raise ConfigError(f"parts to fuse must be rows of the same patients, found { ({k: a.shape for k, a in arrays.items()}) }")
    return arrays
