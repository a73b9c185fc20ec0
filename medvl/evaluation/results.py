"""From a protocol, an embedded cohort and a bundle's model to one plain record of everything that was found and left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medvl import __version__
from medvl.errors import ConfigError
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.intervals import Draws
from medvl.evaluation.leaks import leaks
from medvl.evaluation.protocol import Grounding, Protocol, Retrieval, Survival, Task, ZeroShot, hashed, key_of
from medvl.evaluation.second import compare
from medvl.evaluation.subgroups import subgroups
from medvl.evaluation.task_grounding import grounding
from medvl.evaluation.task_retrieval import retrieval
from medvl.evaluation.task_survival import survival
from medvl.evaluation.tasks import Model, Setting, zero_shot
from medvl.files import replace_text
from medvl.records import RESEARCH_USE

SCHEMA = "medvl.evaluation/1"


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated: a model and the cohort as it sees it."""

    model: Model
    table: Embedded


@dataclass(frozen=True, eq=False)
class Beside:
    """What an evaluation may look at besides its subject.

    Args:
        second: another model on the same patients; training: other splits, by name, to look for leaks in.
    """

    second: Subject | None = None
    training: Mapping[str, Embedded] = field(default_factory=dict)


def evaluate(protocol: Protocol, subject: Subject, beside: Beside | None = None) -> dict[str, Any]:
    """The whole record, JSON-ready: no NaN, every missing number with its reason under `na`.

    Raises:
        ConfigError: the cohort is empty or is not what the protocol wants, or it was embedded by another model than given.
    """
    beside = beside or Beside()
    check(protocol, subject)
    draws = Draws(subject.table.patients.index.astype(str), protocol.draws, protocol.seed)
    setting = Setting(protocol, subject.table, subject.model, draws)
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "software": f"medvl {__version__}",
        "use": RESEARCH_USE,
        "protocol": {"hash": protocol.hash, **protocol.model_dump(mode="json")},
        "hashes": {
            "protocol": protocol.hash,
            "labels": label_hash(protocol, subject.table),
            "prompts": hashed(subject.model.findings.model_dump(mode="json")),
        },
        "model": {"name": subject.model.name, "sha256": subject.model.sha256},
        "source": dict(subject.table.source),
        "cohort": cohort_flow(subject.table),
        "tasks": {key_of(task): _run(setting, task) for task in protocol.tasks},
        "subgroups": subgroups(setting),
        "leaks": leaks(subject.table, beside.training, protocol.leaks),
    }
    if beside.second is not None:
        check(protocol, beside.second)
        other = Setting(protocol, beside.second.table, beside.second.model, draws)
        told["comparison"] = compare(setting, other)
    return told | {"warnings": warnings(told)}


def check(protocol: Protocol, subject: Subject) -> None:
    """Stop where the cohort is not the one that the protocol is for.

    Raises:
        ConfigError: as `evaluate`.
    """
    table, source = subject.table, subject.table.source
    if not len(table) or not len(table.patients):
        raise ConfigError(
            f"the embedded cohort is empty; protocol {protocol.name} needs {protocol.minimum.patients} patients or more"
        )
    if source.get("split", protocol.split) != protocol.split:
        raise ConfigError(f"protocol {protocol.name} is for split {protocol.split}; this embedded cohort is of {source['split']}")
    way = source.get("way", "any")
    if protocol.cohort.way not in ("any", way):
        raise ConfigError(f"protocol {protocol.name} wants {protocol.cohort.way}; this cohort was embedded from {way}")
    outcome = [c for t in protocol.tasks if isinstance(t, Survival) for c in (t.time, t.event, *t.beside)]
    lacking = [c for c in (*protocol.cohort.columns, *outcome) if c not in table.patients]
    if lacking:
        known = ", ".join(map(str, table.patients.columns)) or "none"
        raise ConfigError(f"protocol {protocol.name} needs {', '.join(lacking)} of each patient; the cohort tells {known}")
    made = source.get("model_sha256")
    if made is not None and made != subject.model.sha256:
        raise ConfigError(
            f"this cohort was embedded by {source.get('model')} ({made[:12]}), not by {subject.model.name} "
            f"({subject.model.sha256[:12]}); embed it with the bundle that is evaluated"
        )


def _run(setting: Setting, task: Task) -> dict[str, Any]:
    match task:
        case ZeroShot():
            return zero_shot(setting, task)
        case Retrieval():
            return retrieval(setting, task)
        case Survival():
            return survival(setting, task)
        case Grounding():
            return grounding(setting)


def cohort_flow(table: Embedded) -> dict[str, Any]:
    """Patients and regions: how many there are, how many were read, and why the others were not."""
    rows, usable = table.rows, table.usable
    kinds: dict[str, Any] = {}
    for kind in dict.fromkeys(rows["kind"]):
        mine = (rows["kind"] == kind).to_numpy()
        reasons = rows["reason"][mine & ~usable].value_counts().sort_index()
        kinds[str(kind)] = {
            "regions": int(mine.sum()),
            "patients": int(rows["patient_id"][mine].nunique()),
            "read": int((mine & usable).sum()),
            "patients_read": int(rows["patient_id"][mine & usable].nunique()),
            "not_read": {str(code): int(n) for code, n in reasons.items()},
        }
    told: dict[str, Any] = {
        "patients": len(table.patients),
        "patients_with_a_region_read": int(rows["patient_id"][usable].nunique()),
        "regions": len(table),
        "regions_read": int(usable.sum()),
        "regions_with_report": int((rows["report"] != "").sum()),
        "kinds": kinds,
    }
    if "center_error_mm" in rows:
        told["localiser"] = _localiser(table)
    return told


def _localiser(table: Embedded) -> dict[str, Any]:
    """Distance from the true centre where it is known; a region that was not found is infinitely far."""
    out = {}
    for region, part in table.rows.groupby("region", sort=False):
        error = part["center_error_mm"].to_numpy(dtype=np.float64)
        known = error[~np.isnan(error)]
        if len(known):
            middle = float(np.median(known))
            out[str(region)] = {
                "n": len(known),
                "median_mm": round(middle, 2) if np.isfinite(middle) else None,
                "within_15_mm": round(float((known <= 15).mean()), 4),
                "not_found": int(np.isinf(known).sum()),
            }
    return out


def label_hash(protocol: Protocol, table: Embedded) -> str:
    """SHA-256 over who, which region, and every label and outcome that the protocol reads, in an order of its own."""
    zero = [t for t in protocol.tasks if isinstance(t, ZeroShot)]
    later = [t for t in protocol.tasks if isinstance(t, Survival)]
    labels = [("truth", table.truth) if t.labels == "truth" else ("said", table.said) for t in zero]
    rows = [
        [str(who), str(region), *(dict(zip(table.findings, map(int, part[i]), strict=True)) for _, part in labels)]
        for i, (who, region) in enumerate(zip(table.rows["patient_id"], table.rows["region"], strict=True))
    ]
    reports = sorted(zip(table.rows["patient_id"].astype(str), table.rows["region"], table.rows["report"], strict=True))
    told: dict[str, Any] = {"labels": sorted(rows, key=lambda r: (r[0], r[1])), "which": [name for name, _ in labels]}
    if any(isinstance(t, Retrieval) for t in protocol.tasks):
        told["reports"] = reports
    told["outcomes"] = [
        sorted([str(i), str(row[t.time]), str(row[t.event])] for i, row in table.patients.iterrows()) for t in later
    ]
    return hashed(told)


def warnings(told: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the numbers."""
    out = leak_warnings(told["leaks"])
    flow = told["cohort"]
    lost = flow["regions"] - flow["regions_read"]
    if lost > 0.2 * flow["regions"]:
        out.append(f"{lost} of {flow['regions']} regions were not read; the numbers are of those that were")
    for name, task in told["tasks"].items():
        if "na" in task:
            out.append(f"{name}: not measured ({task['na']})")
    return out


def leak_warnings(found: Mapping[str, Any]) -> list[str]:
    """What `leaks` found, in words."""
    out = []
    for name, part in found["splits"].items():
        for kind in ("patients", "images", "reports"):
            if part[kind]["n"]:
                out.append(f"LEAK: {part[kind]['n']} {kind} of this cohort are in {name} too; numbers below may be too good")
    alike = found["within"]["images"]["n"]
    if alike:
        out.append(f"{alike} regions look the same as one of another patient in this cohort; intervals may be too narrow")
    if "na" in found:
        out.append(f"Leaks: {found['na']}")
    return out


def write_results(told: Mapping[str, Any], path: Path) -> None:
    """One JSON file, there whole or not at all; NaN is refused, because JSON has none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(told, indent=1, allow_nan=False) + "\n")
