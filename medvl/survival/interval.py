"""How sure a ridge Cox model is of one patient's survival, kept small enough to travel with the model."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.survival.cox import CoxFit
from medvl.survival.partial import information, prepare

Array = NDArray[np.float64]
BUDGET = 90_000  # numbers of the root that are kept, two bytes each: 240 kB as text
NORMAL_95 = 1.959964


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Variance of the log cumulative hazard of a patient: mean over draws of (root @ x + shift)**2, plus the baseline's own.

    The weights' covariance is the inverse of the penalised information, which reads the ridge as a normal prior: the interval is
    a Bayesian one, and covers on average over patients like the training ones, the ridge's bias included, for as long as
    the model is true.

    Args:
        root: (B, F) with root.T @ root / B the covariance of the weights: exactly when B is the number of columns that vary,
            else in expectation (random orthogonal directions; the standard error is then right to about sqrt(1 / 2B)).
        shift: (B, H) what a draw's weights do to the log baseline at each horizon.
        noise: (H,) variance of the log baseline at known weights.

    Source: Gray 1992, Journal of the American Statistical Association 87:942; the baseline's part is Tsiatis 1981.
    """

    root: Array
    shift: Array
    noise: Array

    def variance(self, row: Array) -> Array:
        """(H,) for one standardised row (F,)."""
        moved = (self.root @ row)[:, None] + self.shift
        return np.asarray((moved**2).mean(0) + self.noise)

    def band(self, row: Array, hazard: Array) -> tuple[Array, Array]:
        """(H,) lower and upper 95 % limits of survival, from cumulative hazards (H,) of the row; 1 and 1 where there is none."""
        wide = np.exp(NORMAL_95 * np.sqrt(self.variance(row)))
        return np.exp(-hazard * wide), np.exp(-hazard / wide)

    def to_json(self) -> dict[str, Any]:
        """Plain values; the root as base64 of half precision, little-endian."""
        kept = base64.b64encode(self.root.astype("<f2").tobytes()).decode("ascii")
        return {"root": kept, "shift": np.round(self.shift, 5).tolist(), "noise": np.round(self.noise, 8).tolist()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], n_features: int) -> Uncertainty:
        """From `to_json`.

        Raises:
            ConfigError: the numbers do not fit together.
        """
        shift, noise = np.array(values["shift"], dtype=np.float64), np.array(values["noise"], dtype=np.float64)
        root = np.frombuffer(base64.b64decode(values["root"], validate=True), dtype="<f2").astype(np.float64)
        if shift.ndim != 2 or shift.shape[1:] != noise.shape or root.size != len(shift) * n_features:
            raise ConfigError(
                f"the survival model's uncertainty has {root.size} numbers for {shift.shape} draws and {n_features} features; "
                "the bundle was changed or cut off: fetch it again"
            )
        return cls(root.reshape(len(shift), n_features), shift, noise)


def uncertainty_of(fit: CoxFit, x: Array, time: Array, event: NDArray[np.bool_], horizons: Sequence[float]) -> Uncertainty:
    """Of a fit without strata or weights, from the (N, F) rows it was fitted on; horizons in the unit of time.

    Before the first event the baseline is 0 and nothing is known of its error: shift and noise are 0 there.
    """
    data = prepare(x, time, event, None, None, fit.ties)
    parts = data.strata_rows(data.x)
    varies = data.scale > 0
    _, curvature = information(parts, fit.coefficients)
    precision = (curvature + np.diag(fit.penalty * data.mass))[np.ix_(varies, varies)]
    root = np.zeros((0, x.shape[1]))
    n = int(varies.sum())
    if n:
        n_draws = max(1, min(n, BUDGET // x.shape[1]))
        directions = np.eye(n)
        if n_draws < n:
            directions = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n_draws)))[0]
        root = np.zeros((n_draws, x.shape[1]))
        # precision = L L', so that L^-T Q has the covariance L^-T L^-1 for orthogonal Q
        solved = np.linalg.solve(np.linalg.cholesky(precision).T, directions)
        root[:, varies] = solved.T * np.sqrt(n)
    part = parts[0]
    size, compared, top = part.risk_sums(fit.coefficients)
    moved = part.x * size[:, None]
    ties = np.zeros((int(part.tie[-1]) + 1, x.shape[1]))
    np.add.at(ties, part.tie, moved[part.deaths])
    sums = np.cumsum(moved[::-1], axis=0)[::-1][part.first]
    means = (sums - part.share[:, None] * ties[part.tie]) / compared[:, None]
    steps = part.mean / compared * np.exp(-top)
    before = np.asarray(horizons)[:, None] >= part.time[part.deaths]
    hazard = np.maximum(before @ steps, 1e-300)
    pull = (before @ (means * steps[:, None])) / hazard[:, None]
    return Uncertainty(root, -root @ pull.T, (before @ steps**2) / hazard**2)
