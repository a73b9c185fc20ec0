"""One survival endpoint: the bundle's risk against what happened. Cut-offs of risk groups are the bundle's, not the cohort's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvl.evaluation.estimates import estimate, interval, missing
from medvl.evaluation.metrics import dynamic_auc_of, harrell_of, survival_brier_of, uno_of
from medvl.evaluation.protocol import Survival
from medvl.evaluation.tasks import Model, Setting
from medvl.survival.curves import Curve, curve, log_rank
from medvl.survival.steps import kaplan_meier
from medvl.survival.weighted import integrated, weighted_kaplan_meier

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
        "censoring": "of the evaluated patients, estimated anew in each draw",
        **_at_horizons(setting, task, data),
    }


def _concordances(setting: Setting, task: Survival, data: Outcomes) -> dict[str, Any]:
    """Harrell's and Uno's C of the model and of each column beside it, on the same patients, with the paired differences."""

    def both(risk: Array) -> tuple[Array, Array]:
        of = (harrell_of(data.time, data.event, risk), uno_of(data.time, data.event, risk))
        return setting.draws.values(of[0], data.patients), setting.draws.values(of[1], data.patients)

    own = both(data.risk)
    out: dict[str, Any] = {"model": estimate(own[0]) | {"uno": estimate(own[1])}}
    for name in task.beside:
        values = pd.to_numeric(setting.table.patients[name], errors="coerce").reindex(data.patients).to_numpy(dtype=np.float64)
        known = np.isfinite(values)
        if not known.all():
            out[name] = missing(f"not known for {int((~known).sum())} of {len(known)} patients")
            continue
        told = [estimate(c) | {"model_minus_this": estimate(mine - c)} for mine, c in zip(own, both(values), strict=True)]
        out[name] = told[0] | {"uno": told[1]}
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
    at = sorted({d for d in task.horizons_days if d in HORIZONS_DAYS and d <= data.time.max()})
    hazard = np.array([model.baseline[HORIZONS_DAYS.index(d)] for d in at])
    predicted = np.exp(-hazard * np.exp(data.risk)[:, None])
    told: dict[str, Any] = {str(int(d)): missing(f"nobody was followed for {d:g} days") for d in task.horizons_days}
    told |= {
        str(int(d)): missing(f"the bundle holds no baseline at {d:g} days") for d in set(task.horizons_days) - {*HORIZONS_DAYS}
    }
    if not at:
        return {"at": told, "integrated_brier": missing("no horizon can be measured")}
    areas, own, plain = (
        setting.draws.values(statistic, data.patients)
        for statistic in (
            dynamic_auc_of(data.time, data.event, data.risk, at),
            survival_brier_of(data.time, data.event, predicted, at),
            survival_brier_of(data.time, data.event, None, at),
        )
    )
    groups = np.searchsorted(np.quantile(model.reference, [1 / 3, 2 / 3]), data.risk, side="right")
    for k, days in enumerate(at):
        rows = _observed(data, predicted[:, k], groups, days, setting)
        told[str(int(days))] = {"groups": rows, "auc": _area(data, days, areas[:, k]), "brier": _beside(own[:, k], plain[:, k])}
    both = _beside(integrated(own, at), integrated(plain, at)) if len(at) > 1 else missing("one horizon only")
    return {"at": told, "integrated_brier": both}


def _beside(own: Array, plain: Array) -> dict[str, Any]:
    """Estimate of a Brier score, that of one Kaplan-Meier curve for everybody, and the first minus the second."""
    return estimate(own) | {"kaplan_meier": estimate(plain), "minus_kaplan_meier": estimate(own - plain)}


def _area(data: Outcomes, days: float, values: Array) -> dict[str, Any]:
    if np.isfinite(values[0]):
        return estimate(values)
    cases, controls = int((data.event & (data.time <= days)).sum()), int((data.time > days).sum())
    return missing(f"{cases} with the event by then and {controls} who lived on; both are needed")


def _observed(data: Outcomes, predicted: Array, groups: NDArray[np.int64], days: float, setting: Setting) -> list[dict[str, Any]]:
    """Of each risk group, mean predicted survival at a time, and that of Kaplan-Meier with its interval."""
    rows = []
    for k, name in enumerate(GROUPS):
        mine = np.flatnonzero(groups == k)
        if len(mine) < setting.protocol.minimum.subgroup:
            continue
        time, event = data.time[mine], data.event[mine]
        drawn = weighted_kaplan_meier(time, event, setting.draws.weights(data.patients[mine])).at([days])[1:, 0]
        observed, span = float(kaplan_meier(time, event).at([days])[0]), interval(drawn)
        row = {"group": name, "patients": len(mine), "predicted": round(float(predicted[mine].mean()), 4)}
        rows.append(row | {"observed": round(observed, 4), "ci": span and [round(v, 4) for v in span]})
    return rows
