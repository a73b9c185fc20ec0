"""Lesions of a cohort with their labels, and the scans that show each: what downstream heads learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.evaluation.embedded import Embedded


@dataclass(frozen=True, eq=False)
class Lesions:
    """U lesions, or patients, seen in S scans.

    Args:
        table: U rows: `patient_id`, `region`, labels, and what else is known of the patient.
        x: (S, P) features of each usable scan; unit: (S,) which row of the table it shows; phase: (S,) of the scan, "" unknown.
        told: how many lesions are labelled, how many were read, and why others were not.
    """

    table: pd.DataFrame
    x: NDArray[np.float64]
    unit: NDArray[np.int64]
    phase: NDArray[np.str_]
    told: dict[str, Any]


def lesions(embedded: Sequence[Embedded], labels: pd.DataFrame, kind: str, features: Literal["embedding", "pooled"]) -> Lesions:
    """Lesions of the table that the cohorts show; each cohort adds a scan where it has one.

    Raises:
        ConfigError: no column `patient_id`, a lesion stands twice, a table without `region` for patients with several regions of
            the kind, cohorts of different models, or not one labelled lesion that was read.
    """
    if len({(e.source.get("model_sha256"), getattr(e, features).shape[1]) for e in embedded}) > 1:
        raise ConfigError("the cohorts of a split were embedded by different models; embed all of them with one")
    scans = pd.concat([_scans(e, kind) for e in embedded], ignore_index=True)
    values = np.concatenate([getattr(e, features)[(e.rows["kind"] == kind).to_numpy()] for e in embedded]).astype(np.float64)
    table = _keyed(labels, scans)
    table = table[table["patient_id"].isin(scans["patient_id"])].reset_index(drop=True)
    place = pd.MultiIndex.from_frame(table[["patient_id", "region"]]).get_indexer(
        pd.MultiIndex.from_frame(scans[["patient_id", "region"]])
    )
    usable = (scans["reason"] == "").to_numpy() & np.isfinite(values).all(1)
    shown = (place >= 0) & usable
    read = np.bincount(place[shown], minlength=len(table)) > 0
    first = scans[place >= 0].assign(unit=place[place >= 0]).groupby("unit")["reason"].first()
    reasons = [str(first.get(i, "region not in the cohort")) or "no number" for i in np.flatnonzero(~read)]
    told = {
        "patients": int(scans["patient_id"].nunique()),
        "labelled": len(table),
        "read": int(read.sum()),
        "not_read": {str(k): int(n) for k, n in pd.Series(reasons, dtype=object).value_counts().sort_index().items()},
    }
    if not read.any():
        raise ConfigError(f"none of {len(table)} labelled lesions of kind {kind} was read; do patient_id and region match?")
    people = pd.concat([e.patients for e in embedded])
    people = people[~people.index.duplicated()].drop(columns=[c for c in (*table.columns, "phase") if c in people])
    full = table.join(people, on="patient_id")
    return only(Lesions(full, values[shown], place[shown], scans["phase"].to_numpy(dtype=str)[shown], told), read)


def only(part: Lesions, kept: NDArray[np.bool_]) -> Lesions:
    """Some of the lesions, (U,) bool, and their scans."""
    number = np.cumsum(kept) - 1
    inside = kept[part.unit]
    table = part.table[kept].reset_index(drop=True)
    return replace(part, table=table, x=part.x[inside], unit=number[part.unit[inside]], phase=part.phase[inside])


def by_patient(part: Lesions) -> Lesions:
    """Patients in place of lesions: the first lesion's row stands for the patient, and all scans of all lesions show them."""
    who = part.table["patient_id"].to_numpy(dtype=str)
    first = np.unique(who, return_index=True)[1]
    first.sort()
    number = pd.Index(who[first]).get_indexer(pd.Index(who))
    return replace(part, table=part.table.iloc[first].reset_index(drop=True), unit=np.asarray(number[part.unit], dtype=np.int64))


def single_scans(part: Lesions, preferred: Sequence[str]) -> Lesions:
    """One phase for each row: the first of `preferred` that it has, else the first there is."""
    rank = {name: k for k, name in enumerate(preferred)}
    order = np.array([rank.get(name, len(rank)) for name in part.phase], dtype=np.int64)
    best = np.full(len(part.table), len(rank) + 1)
    np.minimum.at(best, part.unit, order)
    kept = order == best[part.unit]
    for unit in np.unique(part.unit[kept]):
        mine = np.flatnonzero(kept & (part.unit == unit))
        kept[mine[part.phase[mine] != part.phase[mine[0]]]] = False
    return replace(part, x=part.x[kept], unit=part.unit[kept], phase=part.phase[kept])


def _scans(embedded: Embedded, kind: str) -> pd.DataFrame:
    rows = embedded.rows
    found = pd.DataFrame({"patient_id": rows["patient_id"].astype(str), "region": rows["region"], "reason": rows["reason"]})
    if "phase" in rows:
        found["phase"] = rows["phase"]
    else:
        found["phase"] = embedded.of_patients("phase") if "phase" in embedded.patients else ""
    return found.fillna({"phase": ""})[(rows["kind"] == kind).to_numpy()]


def _keyed(labels: pd.DataFrame, scans: pd.DataFrame) -> pd.DataFrame:
    """The table with `patient_id` as text and a `region` for every row."""
    if "patient_id" not in labels:
        raise ConfigError(f"the table of labels has no column patient_id, only {', '.join(map(str, labels.columns))}")
    table = labels.assign(patient_id=labels["patient_id"].astype(str))
    if "region" not in table:
        regions = scans.groupby("patient_id")["region"].unique()
        several = [who for who in table["patient_id"] if who in regions.index and len(regions[who]) > 1]
        if several:
            raise ConfigError(
                f"patient {several[0]} has several regions; say in a column region of the labels which one is meant"
            )
        table["region"] = [regions[who][0] if who in regions.index else "" for who in table["patient_id"]]
    twice = table[table.duplicated(["patient_id", "region"])]
    if len(twice):
        raise ConfigError(f"{twice['region'].iloc[0]} of patient {twice['patient_id'].iloc[0]} stands twice in the labels")
    return table
