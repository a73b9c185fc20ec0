"""The same numbers for parts of the cohort, by sex, age, scanner and so on; a part that is too small is a stated NA."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvl.evaluation.estimates import estimate, missing
from medvl.evaluation.metrics import auroc_of, harrell_of
from medvl.evaluation.protocol import Subgroup, Survival, ZeroShot
from medvl.evaluation.task_survival import Outcomes, outcomes
from medvl.evaluation.tasks import Scored, Setting, asked, scored, verdict_rates

UNKNOWN = "not known"
MOST_GROUPS = 12


def levels(patients: pd.DataFrame, subgroup: Subgroup) -> pd.Series:
    """Group of each patient, as text; "not known" where the value is missing.

    Raises:
        ValueError: no such column, bins over something that is no number, or more groups than a table can hold.
    """
    if subgroup.column not in patients:
        raise ValueError(f"the cohort does not tell {subgroup.column}")
    column = patients[subgroup.column]
    if subgroup.bins is None:
        found = column.map(lambda v: UNKNOWN if pd.isna(v) or v == "" else _text(v)).astype(str)
        if found.nunique() > MOST_GROUPS:
            raise ValueError(f"{found.nunique()} different values; give bins, or at most {MOST_GROUPS} values")
        return found
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    if np.isnan(values).sum() > column.isna().sum():
        raise ValueError(f"{subgroup.column} has bins but holds values that are no numbers")
    edges = [_text(b) for b in subgroup.bins]
    names = [
        f"below {edges[0]}",
        *(f"{a} to below {b}" for a, b in pairwise(edges)),
        f"{edges[-1]} and above",
    ]
    place = np.searchsorted(subgroup.bins, values, side="right")
    return pd.Series([UNKNOWN if np.isnan(v) else names[k] for v, k in zip(values, place, strict=True)], index=patients.index)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def order_of(groups: pd.Series, subgroup: Subgroup, patients: pd.DataFrame) -> list[str]:
    """Groups by rising value, the unknown last."""
    if subgroup.bins is not None:
        values = pd.to_numeric(patients[subgroup.column], errors="coerce")
        first = values.groupby(groups).min().sort_values()
        return [str(g) for g in first.index if g != UNKNOWN] + [UNKNOWN] * bool((groups == UNKNOWN).any())
    return sorted(set(groups), key=lambda g: (g == UNKNOWN, g))


def subgroups(setting: Setting) -> list[dict[str, Any]]:
    """For each subgroup column its groups with counts, AUROC of each finding, their mean, and concordance."""
    zero = next((t for t in setting.protocol.tasks if isinstance(t, ZeroShot)), None)
    rows = {} if zero is None else {k: scored(setting, zero, k) for k in asked(setting, zero) if k in setting.model.calibrations}
    known: Outcomes | None = None
    model = setting.model.survival
    later = [t for t in setting.protocol.tasks if isinstance(t, Survival) and model is not None and t.endpoint == model.endpoint]
    if later:
        known = outcomes(setting, later[0])
    return [_one(setting, subgroup, rows, known) for subgroup in setting.protocol.subgroups]


def _one(setting: Setting, subgroup: Subgroup, rows: dict[str, Scored], known: Outcomes | None) -> dict[str, Any]:
    told: dict[str, Any] = {"column": subgroup.column, "label": subgroup.label or subgroup.column}
    patients = setting.table.patients
    try:
        groups = levels(patients, subgroup)
    except ValueError as error:
        return told | {"na": str(error)}
    names = order_of(groups, subgroup, patients)
    group_of = {str(p): g for p, g in groups.items()}
    parts = {name: {k: r.take(_mine(r.patients, group_of, name)) for k, r in rows.items()} for name in names}
    least = setting.protocol.minimum.subgroup
    common = [k for k in rows if all(_enough(parts[name][k], least) for name in names if (groups == name).sum() >= least)]
    out = []
    for name in names:
        group: dict[str, Any] = {"group": name, "patients": int((groups == name).sum())}
        group["findings"] = {k: _finding(setting, part, least) for k, part in parts[name].items()}
        group["mean_auroc"] = _mean(setting, [parts[name][k] for k in common], least)
        if known is not None:
            group["concordance"] = _concordance(setting, known, _mine(known.patients, group_of, name))
        out.append(group)
    return told | {"groups": out, "mean_over": common}


def _mine(patients: NDArray[np.str_], group_of: dict[str, str], name: str) -> NDArray[np.bool_]:
    return np.array([group_of[str(p)] == name for p in patients], dtype=bool)


def _enough(part: Scored, least: int) -> bool:
    return least <= part.n_present <= len(part.rows) - least


def _finding(setting: Setting, part: Scored, least: int) -> dict[str, Any]:
    told: dict[str, Any] = {"n": len(part.rows), "present": part.n_present}
    if not _enough(part, least):
        return told | {"na": f"fewer than {least} present or absent"}
    told["auroc"] = estimate(setting.draws.values(auroc_of(part.labels, part.probability), part.patients))
    return told | {
        k: v for k, v in verdict_rates(part, setting.draws).items() if k in ("sensitivity", "specificity", "undecided")
    }


def _mean(setting: Setting, parts: list[Scored], least: int) -> dict[str, Any]:
    if not parts or not all(_enough(p, least) for p in parts):
        return missing(f"no finding has {least} present and {least} absent here and in every other group")
    areas = [setting.draws.values(auroc_of(p.labels, p.probability), p.patients) for p in parts]
    return estimate(np.mean(areas, 0))


def _concordance(setting: Setting, known: Outcomes, mine: NDArray[np.bool_]) -> dict[str, Any]:
    n, events = int(mine.sum()), int(known.event[mine].sum())
    least = setting.protocol.minimum.events
    if events < least:
        return missing(f"{events} events; at least {least} are needed") | {"n": n, "events": events}
    c = harrell_of(known.time[mine], known.event[mine], known.risk[mine])
    return estimate(setting.draws.values(c, known.patients[mine])) | {"n": n, "events": events}
