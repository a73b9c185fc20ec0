"""One survival endpoint: the bundle's risk against what happened. Cut-offs of risk groups are the bundle's, not the cohort's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvl.evaluation.estimates import estimate, interval, missing
from medvl.evaluation.metrics import harrell_of
from medvl.evaluation.protocol import Survival
from medvl.evaluation.tasks import Model, Setting
from medvl.survival.curves import Curve, curve, log_rank
from medvl.survival.measures import brier, censoring, dynamic_auc, integrated_brier, uno
from medvl.survival.steps import kaplan_meier

Array = NDArray[np.float64]
GROUPS = ("low", "middle", "high")


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Patients with a risk and a known outcome.

    Args:
        patients: (P,); time: (P,) days; event: (P,) bool; risk: (P,) log hazard ratio.
        excluded: why others were left out.
    """

    patients: NDArray[np.str_]
    time: Array
    event: NDArray[np.bool_]
    risk: Array
    excluded: list[dict[str, Any]]


def outcomes(setting: Setting, task: Survival) -> Outcomes:
    """Every patient that has one usable region and a known outcome; the bundle must have a survival model."""
    known = setting.table.patients
    time = pd.to_numeric(known[task.time], errors="coerce").to_numpy(dtype=np.float64)
    event = pd.to_numeric(known[task.event].astype(object), errors="coerce").to_numpy(dtype=np.float64)
    risk = _risks(setting.model, setting)
    code = np.where(~np.isfinite(risk), "no_usable_region", "")
    code = np.where(~(np.isfinite(time) & (time >= 0) & np.isin(event, (0, 1))), "outcome_unknown", code)
    use = code == ""
    names, counts = np.unique(code[~use], return_counts=True)
    excluded = [{"reason": str(name), "patients": int(n)} for name, n in zip(names, counts, strict=True)]
    who = known.index.to_numpy(dtype=str)
    return Outcomes(who[use], time[use], event[use].astype(bool), risk[use], excluded)


def _risks(model: Model, setting: Setting) -> Array:
    """(patients,) of the table in its order; NaN where no region is usable."""
    table = setting.table
    if model.survival is None:
        return np.full(len(table.patients), np.nan)
    found: dict[str, dict[str, Any]] = {str(name): {} for name in table.patients.index}
    for i in np.flatnonzero(table.usable & np.isfinite(table.embedding).all(1)):
        region = str(table.rows.at[i, "region"])
        if region in model.survival.regions:
            found[str(table.rows.at[i, "patient_id"])][region] = table.embedding[i]
    ages = table.patients["age_years"] if "age_years" in table.patients else pd.Series(np.nan, index=table.patients.index)
    risks = [
        model.survival.risk(vectors, None if pd.isna(age) else float(age)) if vectors else np.nan
        for vectors, age in zip(found.values(), ages, strict=True)
    ]
    return np.array(risks, dtype=np.float64)


def survival(setting: Setting, task: Survival) -> dict[str, Any]:
    """Concordance beside other risks, curves by risk group, accuracy at fixed times; NA with its reason below the event count."""
    model, least = setting.model.survival, setting.protocol.minimum
    told: dict[str, Any] = {"endpoint": task.endpoint}
    if model is None:
        return told | {"na": f"bundle {setting.model.name} has no survival model"}
    if model.endpoint != task.endpoint:
        return told | {"na": f"the bundle predicts {model.endpoint}; no other endpoint is judged by it"}
    data = outcomes(setting, task)
    told |= {"patients": len(data.time), "events": int(data.event.sum()), "excluded": data.excluded}
    if len(data.time) < least.patients or data.event.sum() < least.events:
        why = f"{len(data.time)} patients and {int(data.event.sum())} events"
        why += f"; at least {least.patients} and {least.events} are needed"
        return told | {"na": why}
    return told | {
        "concordance": _concordances(setting, task, data),
        "groups": _groups(model.reference, data),
        "at": _at_horizons(setting, task, data),
    }


def _concordances(setting: Setting, task: Survival, data: Outcomes) -> dict[str, Any]:
    """Harrell's C of the model and of each column beside it, on the same patients, with the paired difference."""
    own = setting.draws.values(harrell_of(data.time, data.event, data.risk), data.patients)
    out: dict[str, Any] = {"model": estimate(own)}
    try:
        out["model"]["uno"] = round(uno(data.time, data.event, data.risk, censoring(data.time, data.event)), 4)
    except ValueError as error:
        out["model"]["uno_na"] = str(error)
    for name in task.beside:
        values = pd.to_numeric(setting.table.patients[name], errors="coerce").reindex(data.patients).to_numpy(dtype=np.float64)
        known = np.isfinite(values)
        if not known.all():
            out[name] = missing(f"not known for {int((~known).sum())} of {len(known)} patients")
            continue
        other = setting.draws.values(harrell_of(data.time, data.event, values), data.patients)
        out[name] = estimate(other)
        out[name]["model_minus_this"] = estimate(own - other)
    return out


def _groups(reference: Array, data: Outcomes) -> dict[str, Any]:
    """Kaplan-Meier by predicted tertile; the cut-offs are tertiles of the bundle's reference risks."""
    cuts = np.quantile(reference, [1 / 3, 2 / 3])
    which = np.searchsorted(cuts, data.risk, side="right")
    told = []
    for k, name in enumerate(GROUPS):
        mine = which == k
        if not mine.any():
            told.append({"group": name, "patients": 0, "events": 0})
            continue
        told.append({"group": name} | _plain(curve(data.time[mine], data.event[mine])))
    out: dict[str, Any] = {"cuts": [round(float(c), 4) for c in cuts], "curves": told}
    out["from"] = "tertiles of the bundle's reference patients"
    if len(np.unique(which)) > 1:
        statistic, p = log_rank(data.time, data.event, which)
        out["logrank"] = {"statistic": round(statistic, 3), "p": p}
    return out


def _plain(found: Curve) -> dict[str, Any]:
    """A curve for JSON; where an interval is not defined (nobody is left) it is null."""
    days = {"days": found.times, "censored": found.censored, "followed": found.followed}
    shares = {"survival": found.survival, "low": found.low, "high": found.high}
    return {
        "patients": found.n,
        "events": found.n_events,
        **{name: [round(float(v), 1) for v in values] for name, values in days.items()},
        **{name: [round(float(v), 4) if np.isfinite(v) else None for v in values] for name, values in shares.items()},
    }


def _at_horizons(setting: Setting, task: Survival, data: Outcomes) -> dict[str, Any]:
    """Predicted against observed survival, AUC and Brier score at each horizon that the bundle has a baseline for."""
    from medvl.survival.model import HORIZONS_DAYS

    model = setting.model.survival
    assert model is not None  # noqa: S101 - callers checked
    cuts = np.quantile(model.reference, [1 / 3, 2 / 3])
    which = np.searchsorted(cuts, data.risk, side="right")
    known = censoring(data.time, data.event)
    out: dict[str, Any] = {}
    for days in task.horizons_days:
        if days not in HORIZONS_DAYS:
            out[str(int(days))] = missing(f"the bundle holds no baseline at {days:g} days")
            continue
        predicted = np.exp(-model.baseline[HORIZONS_DAYS.index(days)] * np.exp(data.risk))
        out[str(int(days))] = _at(data, predicted, which, days, known, setting)
    together = [d for d in task.horizons_days if d in HORIZONS_DAYS and d <= data.time.max()]
    if len(together) > 1:
        curves = np.exp(-np.stack([model.baseline[HORIZONS_DAYS.index(d)] * np.exp(data.risk) for d in together], 1))
        try:
            out["integrated_brier"] = round(integrated_brier(data.time, data.event, curves, together, known), 4)
        except ValueError as error:
            out["integrated_brier_na"] = str(error)
    return out


def _at(data: Outcomes, predicted: Array, which: NDArray[np.int64], days: float, known: Any, setting: Setting) -> dict[str, Any]:
    told: dict[str, Any] = {"groups": []}
    if days > data.time.max():
        return missing(f"nobody was followed for {days:g} days")
    for k, name in enumerate(GROUPS):
        mine = np.flatnonzero(which == k)
        if len(mine) >= setting.protocol.minimum.subgroup:
            observed = float(kaplan_meier(data.time[mine], data.event[mine]).at([days])[0])
            span = interval(_km_draws(data, mine, days, setting))
            row = {"group": name, "patients": len(mine), "predicted": round(float(predicted[mine].mean()), 4)}
            told["groups"].append(row | {"observed": round(observed, 4), "ci": span and [round(v, 4) for v in span]})
    try:
        told["auc"] = round(dynamic_auc(data.time, data.event, data.risk, [days], known)[1], 4)
        told["brier"] = round(float(brier(data.time, data.event, predicted[:, None], [days], known)[0]), 4)
    except ValueError as error:
        told["na"] = str(error)
    return told


def _km_draws(data: Outcomes, mine: NDArray[np.int64], days: float, setting: Setting) -> Array:
    """(B,) Kaplan-Meier survival at a time in each draw of patients, by weights."""
    weights = setting.draws.weights(data.patients[mine])[1:]
    time, event = data.time[mine], data.event[mine]
    moments = np.unique(time[event & (time <= days)])
    died = weights @ (event[:, None] & (time[:, None] == moments)).astype(float)
    at_risk = weights @ (time[:, None] >= moments).astype(float)
    left = 1 - np.divide(died, at_risk, out=np.zeros_like(died), where=at_risk > 0)
    return np.asarray(left.prod(1), dtype=np.float64)
