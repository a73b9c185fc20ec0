"""Cox regression by Newton's method: Efron's or Breslow's ties, ridge, strata, case weights, and a baseline per stratum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.objectives.cox import Ties
from medvl.survival.partial import Stratum, information, likelihood, prepare
from medvl.survival.steps import Baseline

Array = NDArray[np.float64]
MAX_STEPS = 60
FLAT = 1e-6  # share of the first curvature below which a direction that is still moving has no finite maximum


@dataclass(frozen=True, eq=False)
class CoxFit:
    """A fitted model.

    Args:
        coefficients: (P,) log hazard ratio per unit; 0 for columns that do not vary in training.
        standard_errors: (P,) from the inverse of the (penalised) information; NaN where the coefficient is 0 by constancy.
        center: (P,) weighted training means; log hazards are relative to them.
        baselines: by stratum, at the training mean; without strata the only key is "all".
        log_likelihood: partial, without the penalty.
        penalty: (P,) as given to `fit_cox`.
        ties: as given to `fit_cox`.
        n, n_events: training patients and events (rows, not weights).
        constant: columns that do not vary.
    """

    coefficients: Array
    standard_errors: Array
    center: Array
    baselines: Mapping[str, Baseline]
    log_likelihood: float
    penalty: Array
    ties: Ties
    n: int
    n_events: int
    constant: tuple[int, ...] = ()

    def log_hazard(self, x: ArrayLike) -> Array:
        """(N,) log hazard ratio of rows (N, P) against the training mean; higher is worse."""
        rows = np.asarray(x, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self.center) or not np.isfinite(rows).all():
            raise ConfigError(f"features {rows.shape} must be finite rows of {len(self.center)} values")
        return np.asarray((rows - self.center) @ self.coefficients)

    def survival(self, x: ArrayLike, times: ArrayLike, strata: ArrayLike | None = None) -> Array:
        """(N, T) probability of no event by each of T times.

        Raises:
            ConfigError: a time is beyond the follow-up of training, a stratum was not in it, or is missing.
        """
        risk = self.log_hazard(x)
        names = ["all"] * len(risk) if strata is None else [str(s) for s in np.asarray(strata)]
        unknown = sorted(set(names) - set(self.baselines))
        if unknown or len(names) != len(risk):
            raise ConfigError(
                f"{len(names)} strata for {len(risk)} rows, without a baseline: {unknown}; known: {sorted(self.baselines)}"
            )
        levels = {name: self.baselines[name].within(times) for name in set(names)}
        hazard = np.array([levels[name] for name in names]).reshape(len(risk), -1)
        with np.errstate(over="ignore", divide="ignore"):
            return np.asarray(np.exp(-np.exp(np.log(hazard) + risk[:, None])))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        arrays = {k: getattr(self, k).tolist() for k in ("coefficients", "center", "penalty")}
        errors = [None if np.isnan(v) else float(v) for v in self.standard_errors]
        rest = {k: getattr(self, k) for k in ("log_likelihood", "ties", "n", "n_events")}
        baselines = {k: b.to_json() for k, b in self.baselines.items()}
        return {**arrays, "standard_errors": errors, "baselines": baselines, "constant": list(self.constant), **rest}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CoxFit:
        """From `to_json`."""
        rest: dict[str, Any] = {k: values[k] for k in ("log_likelihood", "ties", "n", "n_events")}
        rest |= {k: np.array(values[k], dtype=np.float64) for k in ("coefficients", "center", "penalty", "standard_errors")}
        baselines = {k: Baseline.from_json(b) for k, b in values["baselines"].items()}
        return cls(baselines=baselines, constant=tuple(values["constant"]), **rest)


def fit_cox(
    x: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    *,
    penalty: ArrayLike = 0.0,
    ties: Ties = "efron",
    strata: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> CoxFit:
    """Maximise log partial likelihood / (weighted) events - sum(penalty * coefficients**2) / 2, exactly.

    Args:
        x: (N, P) finite features, on the scale on which the penalty should act.
        time: (N,) follow-up of 0 and more. Who was censored at 0 is at risk only of an event at 0; an event at 0 counts.
        event: (N,) bool.
        penalty: ridge per event, one number or (P,).
        ties: of the likelihood and of the baseline.
        strata: (N,) names; each has its own baseline and risk sets.
        weights: (N,) positive case weights.

    Raises:
        ConfigError: no event, values out of range, columns that are combinations of others without a penalty, or a likelihood
            that rises without end (a column separates events from those at risk), which only a penalty can hold.

    Source: Therneau and Grambsch 2000, chapter 3.
    """
    data = prepare(x, time, event, strata, weights, ties)
    ridge = np.broadcast_to(np.asarray(penalty, dtype=np.float64), (data.x.shape[1],)).copy()
    if not (np.isfinite(ridge).all() and (ridge >= 0).all()):
        raise ConfigError(f"a penalty must be 0 or more, found {ridge.min()}")
    varies = data.scale > 0
    # Newton runs on standardised columns, for conditioning; the penalty keeps acting on the scale it was given for.
    rows = data.x[:, varies] / data.scale[varies]
    inner = ridge[varies] / data.scale[varies] ** 2 * data.mass
    beta, info = _newton(data.strata_rows(rows), inner, np.flatnonzero(varies))
    coefficients, errors = np.zeros(len(varies)), np.full(len(varies), np.nan)
    coefficients[varies] = beta / data.scale[varies]
    errors[varies] = np.sqrt(np.maximum(np.diag(np.linalg.inv(info)), 0)) / data.scale[varies] if beta.size else beta
    parts = data.strata_rows(rows)
    return CoxFit(
        coefficients,
        errors,
        data.center,
        {name: part.baseline(beta) for name, part in zip(data.names, parts, strict=True)},
        sum(likelihood(part, beta) for part in parts),
        ridge,
        ties,
        len(data.x),
        int(data.event.sum()),
        tuple(int(k) for k in np.flatnonzero(~varies)),
    )


def _newton(parts: list[Stratum], ridge: Array, columns: NDArray[np.int64]) -> tuple[Array, Array]:
    """Coefficients and information at the maximum; steps are halved until the likelihood does not fall."""
    beta = np.zeros(len(ridge))
    if not len(ridge):
        return beta, np.zeros((0, 0))

    def value(b: Array) -> float:
        return sum(likelihood(part, b) for part in parts) - float(ridge @ b**2) / 2

    here, first, step = value(beta), None, beta
    for _ in range(MAX_STEPS):
        gradient, curvature = information(parts, beta)
        gradient, curvature = gradient - ridge * beta, curvature + np.diag(ridge)
        if first is None:
            first = curvature
            _refuse_combinations(curvature, columns)
        if float(step @ curvature @ step) < FLAT * float(step @ first @ step) and float(step @ step) > 0.01:
            raise ConfigError(_without_end(step, columns))
        step = np.asarray(np.linalg.lstsq(curvature, gradient, rcond=1e-14)[0], dtype=np.float64)
        if np.abs(step).max() < 1e-9 * (1 + np.abs(beta).max()):
            return beta + step, curvature
        length, there = 1.0, value(beta + step)
        while not there >= here - 1e-12 * (1 + abs(here)) and length > 1e-8:
            length /= 2
            there = value(beta + length * step)
        step, here = length * step, there
        beta = beta + step
        if length <= 1e-8:
            return beta, curvature  # rounding leaves nothing to gain
    raise ConfigError(_without_end(step, columns))


def _refuse_combinations(curvature: Array, columns: NDArray[np.int64]) -> None:
    values, vectors = np.linalg.eigh(curvature)
    if values[0] <= 1e-10 * max(values[-1], 1e-300):
        involved = columns[np.abs(vectors[:, 0]) > 0.1].tolist()
        raise ConfigError(f"columns {involved} tell the same of those at risk: leave one out, or give a penalty above 0")


def _without_end(step: Array, columns: NDArray[np.int64]) -> str:
    moving = columns[np.abs(step) > 0.1 * np.abs(step).max()].tolist()
    return (
        f"the likelihood rises without end along columns {moving}: they separate those with an event from all others at risk; "
        "give a penalty above 0, or leave them out"
    )
