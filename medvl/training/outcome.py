"""The survival model of a bundle: fitted on training patients, or taken over from a parent where that predicts them better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medvl.survival.cox import fit_cox
from medvl.survival.endpoints import MIN_EVENTS
from medvl.survival.model import HORIZONS_DAYS, SurvivalModel, features, fit_survival, standardised
from medvl.survival.partial import likelihood, prepare
from medvl.survival.penalty import choose_penalty, event_folds
from medvl.training.measure import by_patient
from medvl.training.run import Workspace
from medvl.training.samples import KindData, ages_and_outcomes

Array = NDArray[np.float64]
PENALTIES = (0.02, 0.1, 0.5, 2.0, 10.0)
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Patients:
    """Those with a region and a known outcome: embeddings by region, ages, follow-up in days and event of each."""

    embeddings: list[Mapping[str, Any]]
    ages: list[float | None]
    time: Array
    event: NDArray[np.bool_]


def patients_of(data: Mapping[str, KindData], units: Mapping[str, Tensor]) -> Patients:
    """The patients of a split whose outcome is known and who have a region."""
    ages, time, event = ages_and_outcomes(next(iter(data.values())).cohort.cases)
    rows = by_patient(data, units)
    known = [int(i) for i in np.flatnonzero(np.isfinite(time)) if rows[i]]
    return Patients([rows[i] for i in known], [ages[i] for i in known], time[known], event[known])


def survival_of(
    work: Workspace, units: Mapping[str, Tensor], validation_units: Mapping[str, Tensor], parent: SurvivalModel | None = None
) -> tuple[SurvivalModel | None, dict[str, Any]]:
    """The model and how it came to be; percentiles refer to validation patients. None with fewer than `MIN_EVENTS` events.

    Without a parent, a ridge Cox fit with the recipe's penalty. With one, the best of three by cross-validated partial likelihood
    of the training patients (Verweij and van Houwelingen 1993): the parent's weights as they are, its risk times a slope,
    or a fit of its own with a chosen penalty. The baseline is always that of the training patients.
    """
    found = patients_of(work.train, units)
    if found.event.sum() < MIN_EVENTS:
        return None, {"events": int(found.event.sum())}
    regions, endpoint = tuple(next(iter(work.train.values())).cohort.regions), work.recipe.endpoint
    penalty, told = work.recipe.survival_penalty, dict[str, Any]()
    model = None
    if parent is not None and parent.endpoint == endpoint and parent.regions == regions:
        penalty, model, told = _inherited(parent, found)
    if model is None:
        model = fit_survival(endpoint, found.embeddings, found.ages, found.time, found.event, regions, penalty)
    held = by_patient(work.validation, validation_units)
    ages, _, _ = ages_and_outcomes(next(iter(work.validation.values())).cohort.cases)
    risks = [model.risk(e, age) for e, age in zip(held, ages, strict=True) if e]
    return replace(model, reference=np.sort(np.array(risks))), told


def _inherited(parent: SurvivalModel, found: Patients) -> tuple[float, SurvivalModel | None, dict[str, Any]]:
    """The penalty of an own fit, the parent's model where it is better (else None), and the gains per event of all."""
    x, _, _ = standardised(features(found.embeddings, found.ages, parent.regions, parent.width))
    own = choose_penalty(x, found.time, found.event, penalties=PENALTIES, n_folds=FOLDS)
    risk = np.array([parent.risk(e, age) for e, age in zip(found.embeddings, found.ages, strict=True)])
    as_is, rescaled = _gains(risk, found)
    gains = {"parent": as_is, "parent_rescaled": rescaled, "own": max(value for _, value in own.tried)}
    best = max(gains, key=lambda name: gains[name])
    told = {"taken": best, "gain_per_event": {k: round(v, 4) for k, v in gains.items()}, "penalty": own.penalty}
    if best == "own":
        return own.penalty, None, told
    slope = 1.0 if best == "parent" else float(fit_cox(risk[:, None], found.time, found.event).coefficients[0])
    return own.penalty, _rebased(parent, slope, slope * risk, found), told | {"slope": round(slope, 4)}


def _log_likelihood(risk: Array, time: Array, event: NDArray[np.bool_]) -> float:
    """Log partial likelihood of risks as they are."""
    data = prepare(risk[:, None], time, event, None, None, "efron")
    return sum(likelihood(part, np.ones(1)) for part in data.strata_rows(data.x))


def _gains(risk: Array, found: Patients) -> tuple[float, float]:
    """Held-out log partial likelihood per event of the risk as it is, and times a slope that is fitted without each fold."""
    fold, totals = event_folds(found.event, FOLDS, 0), np.zeros(2)
    for k in range(FOLDS):
        inside = fold != k
        slope = fit_cox(risk[inside][:, None], found.time[inside], found.event[inside]).coefficients[0]
        for i, scaled in enumerate((risk, slope * risk)):
            whole = _log_likelihood(scaled, found.time, found.event)
            totals[i] += whole - _log_likelihood(scaled[inside], found.time[inside], found.event[inside])
    return float(totals[0] / found.event.sum()), float(totals[1] / found.event.sum())


def _rebased(parent: SurvivalModel, slope: float, risk: Array, found: Patients) -> SurvivalModel:
    """The parent's weights times `slope`, with the baseline of these patients (Breslow's for Efron's ties) at risk 0."""
    data = prepare(risk[:, None], found.time, found.event, None, None, "efron")
    (part,) = data.strata_rows(data.x)
    baseline = part.baseline(np.ones(1)).at(HORIZONS_DAYS) * np.exp(-float(data.center[0]))
    return replace(parent, weights=slope * parent.weights, baseline=baseline, uncertainty=None)  # it belongs to the old baseline
