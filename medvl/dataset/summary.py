"""A dataset in numbers: what the card shows and `dataset.json` keeps, plain values without any identifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medvl.data.given import with_given
from medvl.data.table import SPLITS
from medvl.dataset.columns import finding_regions
from medvl.dataset.schema import CLINICAL, LABEL, SCANNER
from medvl.text.labels import extract
from medvl.text.report import parse_report

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("spacing_d_mm", "spacing_h_mm", "slice_thickness_mm", "age_years", "n_d")
GROUPS = ("phase", "site", "sex", "manufacturer", "model", "kernel")
MOST_LEVELS = 40
_STATE = {1: "present", 0: "absent", 2: "uncertain"}


def summary(frame: pd.DataFrame) -> dict[str, Any]:
    """Counts by split, spread of measures, groups, findings, what is missing, and follow-up."""
    return {
        "patients": int(frame["patient_id"].nunique()),
        "scans": len(frame),
        "splits": {split: _split(frame[frame["split"] == split]) for split in SPLITS},
        "measures": {name: _spread(frame[name]) for name in MEASURES},
        "groups": {name: _levels(frame[name]) for name in GROUPS},
        "findings": findings(frame),
        "missing": _missing(frame),
        "warnings": _levels(frame["warnings"].str.split(";").explode()),
    }


def _split(part: pd.DataFrame) -> dict[str, Any]:
    by_patient = part.groupby("patient_id").first() if len(part) else part
    known = by_patient["time_days"].notna()
    return {
        "patients": int(part["patient_id"].nunique()),
        "scans": len(part),
        "reports": int((part["report"] != "").sum()),
        "labelled": int(part[[c for c in part if c.startswith(LABEL)]].notna().any(axis=1).sum()),
        "outcomes": int(known.sum()),
        "events": int(by_patient.loc[known, "event"].sum()),
    }


def _spread(column: pd.Series) -> dict[str, Any]:
    values = column.dropna().to_numpy(np.float64)
    if not len(values):
        return {"n": 0}
    low, q1, middle, q3, high = (round(float(v), 3) for v in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    return {"n": len(values), "min": low, "q1": q1, "median": middle, "q3": q3, "max": high}


def _levels(column: pd.Series) -> dict[str, int]:
    """How many of each value, most first; the rest together."""
    found = column.fillna("").astype(str).replace("", "not known").value_counts()
    kept = {str(k): int(v) for k, v in sorted(found.items(), key=lambda kv: (-kv[1], str(kv[0])))}
    if len(kept) <= MOST_LEVELS:
        return kept
    names = list(kept)
    return {k: kept[k] for k in names[:MOST_LEVELS]} | {"others": sum(kept[k] for k in names[MOST_LEVELS:])}


def findings(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """For each finding and region that anyone knows of: present, absent, uncertain and unknown, and how many were given."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    columns = [c for c in frame if c.startswith(LABEL)]
    for line in frame[["report", *columns]].to_dict("records"):
        given = _given(line)
        labels = with_given(extract(parse_report(str(line["report"]))), given)
        for region, values in labels.items():
            for name, value in values.items():
                if region in finding_regions().get(name, ()) and value in _STATE:
                    one = counts.setdefault((name, region), dict.fromkeys((*_STATE.values(), "given"), 0))
                    one[_STATE[int(value)]] += 1  # type: ignore[arg-type]
                    one["given"] += name in given.get(region, {})
    return [
        {"finding": name, "region": region, **one, "unknown": len(frame) - sum(one[s] for s in _STATE.values())}
        for (name, region), one in sorted(counts.items())
    ]


def _given(line: Mapping[Any, Any]) -> dict[str, dict[str, int]]:
    import pandas as pd

    out: dict[str, dict[str, int]] = {}
    for column, value in line.items():
        if str(column).startswith(LABEL) and not pd.isna(value):
            name, _, region = str(column).removeprefix(LABEL).partition("@")
            out.setdefault(region, {})[name] = int(value)
    return out


def _missing(frame: pd.DataFrame) -> dict[str, float]:
    """Share of scans without a value, by what it is."""
    names = ["report", "phase", "age_years", "sex", "site", "time_days", *SCANNER]
    names += [c for c in frame if c.startswith((CLINICAL, LABEL))]
    return {str(name): round(float((frame[name].isna() | (frame[name].astype(str) == "")).mean()), 4) for name in names}
