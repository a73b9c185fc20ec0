"""What a protocol asks of zero-shot findings, on an embedded cohort, with thresholds and scaling of the bundle only.

Labels of the cohort are read to judge answers, never to make them: no threshold, scale or cut-off is fitted here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.evaluation.calibration import Calibration
from medvl.evaluation.curves import calibration_of, decision_curve, risk_coverage_curve, roc_points
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.estimates import estimate, missing, rate
from medvl.evaluation.intervals import Draws
from medvl.evaluation.metrics import auroc_of, average_of, average_precision_of
from medvl.evaluation.protocol import Protocol, ZeroShot
from medvl.survival.model import SurvivalModel
from medvl.text.prompts import FindingList

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Model:
    """What a bundle brings to an evaluation besides embeddings.

    Args:
        name, sha256: of the bundle.
        findings: its questions; calibrations: scaling, threshold and undecided band of each, from validation patients.
        survival: its risk, if it has one.
    """

    name: str
    sha256: str
    findings: FindingList
    calibrations: Mapping[str, Calibration]
    survival: SurvivalModel | None = None


@dataclass(frozen=True, eq=False)
class Setting:
    """One model on one cohort under one protocol; `draws` are shared by all that is measured."""

    protocol: Protocol
    table: Embedded
    model: Model
    draws: Draws


@dataclass(frozen=True, eq=False)
class Scored:
    """Rows of one finding that have a label and a score.

    Args:
        rows: (n,) numbers of rows of the cohort.
        labels: (n,) 0 or 1; probability: (n,) calibrated; verdicts: (n,) present, absent or undecided; patients: (n,) whose.
        eligible: regions of the finding's kind, before anything was left out.
        excluded: for each reason how many regions and patients were left out, and how many of these are labelled present.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    probability: Array
    verdicts: NDArray[np.str_]
    patients: NDArray[np.str_]
    eligible: int
    excluded: list[dict[str, Any]]

    def take(self, chosen: NDArray[np.bool_]) -> Scored:
        """Some of the rows; what was left out before is not told again."""
        labels, probability, verdicts = self.labels[chosen], self.probability[chosen], self.verdicts[chosen]
        return Scored(self.rows[chosen], labels, probability, verdicts, self.patients[chosen], int(chosen.sum()), [])

    @property
    def n_present(self) -> int:
        """How many are labelled present."""
        return int(self.labels.sum())


def asked(setting: Setting, task: ZeroShot) -> tuple[str, ...]:
    """The findings that the task measures.

    Raises:
        ConfigError: a finding of the protocol is not among those embedded.
    """
    for key in task.findings:
        setting.table.column(key)
    return task.findings or setting.table.findings


def scored(setting: Setting, task: ZeroShot, key: str) -> Scored:
    """The rows that answer one finding; the finding must be calibrated.

    Raises:
        ConfigError: the finding is not in the bundle's list or not calibrated.
    """
    table, calibration = setting.table, setting.model.calibrations.get(key)
    if calibration is None:
        raise ConfigError(f"bundle {setting.model.name} holds no calibration of {key}; it was too rare on validation patients")
    j = table.column(key)
    labels = (table.truth if task.labels == "truth" else table.said)[:, j]
    margins = table.margins[:, j].astype(np.float64)
    who = table.rows["patient_id"].to_numpy(dtype=str)
    reason = table.rows["reason"].to_numpy(dtype=object)
    eligible = (table.rows["kind"] == setting.model.findings[key].region).to_numpy()
    code = np.where(labels < 0, "unanswered", np.where(reason != "", reason, np.where(np.isfinite(margins), "", "not_asked")))
    rows = np.flatnonzero(eligible & (code == ""))
    probability = calibration.probability(margins[rows])
    verdicts = np.array([calibration.verdict(float(p)) for p in probability], dtype="<U9")
    gone = pd.DataFrame({"code": code, "patient": who, "present": labels == 1})[eligible & (code != "")]
    excluded = [
        {"reason": str(name), "n": len(part), "patients": int(part["patient"].nunique()), "present": int(part["present"].sum())}
        for name, part in gone.groupby("code")
    ]
    return Scored(rows, labels[rows].astype(np.int64), probability, verdicts, who[rows], int(eligible.sum()), excluded)


def zero_shot(setting: Setting, task: ZeroShot) -> dict[str, Any]:
    """Every finding measured, and the mean over those that could be."""
    found: dict[str, Any] = {}
    areas = []
    for key in asked(setting, task):
        if key not in setting.model.calibrations:
            found[key] = {"label": _label(setting, key), "na": "not calibrated: too rare among the bundle's validation patients"}
            continue
        rows = scored(setting, task, key)
        found[key], area = _finding(setting, task, key, rows)
        if area is not None:
            areas.append(area)
    mean = estimate(np.mean(areas, 0)) if areas else missing("no finding could be measured")
    return {"labels": task.labels, "findings": found, "mean_auroc": mean | {"findings": len(areas)}}


def _label(setting: Setting, key: str) -> str:
    return next((f.label for f in setting.model.findings.findings if f.key == key), key)


def _finding(setting: Setting, task: ZeroShot, key: str, rows: Scored) -> tuple[dict[str, Any], Array | None]:
    least, calibration = setting.protocol.minimum, setting.model.calibrations[key]
    told: dict[str, Any] = {
        "label": _label(setting, key),
        "eligible": rows.eligible,
        "excluded": rows.excluded,
        "n": len(rows.rows),
        "patients": len(set(rows.patients)),
        "present": rows.n_present,
        "operating_point": calibration.as_dict(),
        "verdicts": {name: int((rows.verdicts == name).sum()) for name in ("present", "absent", "undecided")},
        "verdicts_sha256": hashlib.sha256("\n".join(rows.verdicts).encode()).hexdigest(),
    }
    absent = len(rows.rows) - rows.n_present
    if rows.n_present < least.present or absent < least.absent:
        why = f"{rows.n_present} present and {absent} absent; at least {least.present} and {least.absent} are needed"
        return told | {"na": why}, None
    precision, error = average_precision_of(rows.labels, rows.probability), average_of((rows.probability - rows.labels) ** 2)
    area, precisions, errors = (
        setting.draws.values(s, rows.patients) for s in (auroc_of(rows.labels, rows.probability), precision, error)
    )
    told |= {
        "auroc": estimate(area),
        "average_precision": estimate(precisions),
        **verdict_rates(rows, setting.draws),
        "brier": estimate(errors),
        **calibration_of(rows.labels, rows.probability, rows.patients, task.bins, setting.draws),
        "roc": roc_points(rows.labels, rows.probability),
        "decision": decision_curve(rows.labels, rows.probability, rows.patients, setting.protocol.draws, setting.protocol.seed),
        "risk_coverage": risk_coverage_curve(rows.labels, rows.probability, calibration.threshold),
    }
    return told, area


def verdict_rates(rows: Scored, draws: Draws) -> dict[str, Any]:
    """Sensitivity, specificity and predictive values among decided regions, and the share left undecided."""
    decided, said = rows.verdicts != "undecided", rows.verdicts == "present"
    parts = {
        "sensitivity": (decided & (rows.labels == 1), said),
        "specificity": (decided & (rows.labels == 0), ~said),
        "ppv": (said, rows.labels == 1),
        "npv": (decided & ~said, rows.labels == 0),
        "undecided": (np.ones(len(decided), dtype=bool), ~decided),
    }
    return {
        name: rate(right[among], rows.patients[among], draws)
        if among.any()
        else missing("no region was decided" if name in ("sensitivity", "specificity") else "the model never said so")
        for name, (among, right) in parts.items()
    }
