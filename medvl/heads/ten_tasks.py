"""RenalCLIP's ten tasks as one protocol: each with its own labels, exclusions and endpoint, refused where its labels are absent.

Heads learn on training patients, penalties and thresholds come from validation patients, and test patients are measured once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from medvl.errors import ConfigError
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.intervals import paired_bootstrap
from medvl.evaluation.protocol import hashed
from medvl.heads.few_shot import Point, efficiency
from medvl.heads.lesions import Lesions, by_patient, lesions, only, single_scans
from medvl.heads.task_heads import MAIN, Head, Known, fit_head, main_statistic, measures
from medvl.heads.task_list import Graded, TenTasks, Timed
from medvl.survival.covariates import fit_covariates

SPLITS = ("train", "validation", "test")
SCHEMA = "medvl.ten_tasks/1"
CURVE_DRAWS = 500


def run_ten_tasks(
    protocol: TenTasks,
    cohorts: Mapping[str, Sequence[Embedded]],
    labels: pd.DataFrame,
    *,
    scratch: Mapping[str, Sequence[Embedded]] | None = None,
    curve: bool = True,
) -> dict[str, Any]:
    """Every task measured or refused; JSON-ready.

    Args:
        protocol: what is asked.
        cohorts: `train`, `validation` and `test`, each one or more embedded cohorts; several are several scans of the patients,
            told apart by the column `phase` of their patients.
        labels: one row a lesion: `patient_id`, `region` (may be absent where a patient has one region only), and label columns.
        scratch: the same cohorts under an encoder that was trained on these labels alone, as a baseline.
        curve: whether to learn from shares of the training patients too.

    Raises:
        ConfigError: a split is missing, a patient is in two splits, or the table has no lesion of a split.
    """
    parts = _splits(protocol, cohorts, labels)
    other = None if scratch is None else _splits(protocol, scratch, labels)
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "protocol": {
            "hash": hashed(protocol.model_dump(mode="json", exclude={"name", "summary"})),
            **protocol.model_dump(mode="json"),
        },
        "source": {name: [dict(e.source) for e in cohorts[name]] for name in SPLITS},
        "cohort": {name: part.told for name, part in parts.items()},
        "tasks": {},
    }
    for task in protocol.tasks:
        head = {"label": task.label or task.name, "type": task.type}
        try:
            told["tasks"][task.name] = head | _run(protocol, task, parts, other, curve)
        except (ConfigError, ValueError) as error:
            told["tasks"][task.name] = head | {"na": str(error)}
    return told


def _splits(protocol: TenTasks, cohorts: Mapping[str, Sequence[Embedded]], labels: pd.DataFrame) -> dict[str, Lesions]:
    missing = [name for name in SPLITS if not cohorts.get(name)]
    if missing:
        raise ConfigError(f"no {' and no '.join(missing)} cohort; heads learn on train, choose on validation, answer on test")
    parts = {name: lesions(cohorts[name], labels, protocol.kind, protocol.features) for name in SPLITS}
    seen: dict[str, str] = {}
    for name, part in parts.items():
        for patient in part.table["patient_id"].unique():
            if seen.setdefault(patient, name) != name:
                raise ConfigError(f"patient {patient} is in {seen[patient]} and in {name}; split by patient")
    return parts


def _run(
    protocol: TenTasks, task: Graded | Timed, parts: Mapping[str, Lesions], scratch: Mapping[str, Lesions] | None, curve: bool
) -> dict[str, Any]:
    cut, told = _asked(protocol, task, parts)
    known = {name: _known(task, part, told) for name, part in cut.items()}
    head = fit_head(task.type, known["train"], known["validation"])
    found, image = _measured(protocol, task, head, known["test"])
    told |= {"main": MAIN[task.type], "head": head.told, "image": found}
    told["beside"], told["difference"] = _beside(protocol, task, cut, known, image)
    if scratch is not None and "scratch" not in task.not_beside:
        again = _asked(protocol, task, scratch)[0]
        same = {name: _known(task, part, told) for name, part in again.items()}
        told["beside"]["scratch"] = _measured(
            protocol, task, fit_head(task.type, same["train"], same["validation"]), same["test"]
        )[0]
    told["phases"] = _phases(protocol, task, cut, known, image)
    if curve:
        told["curve"] = [asdict(point) for point in _curve(protocol, task, known)]
    return told


def _asked(protocol: TenTasks, task: Graded | Timed, parts: Mapping[str, Lesions]) -> tuple[dict[str, Lesions], dict[str, Any]]:
    """Rows with a known label in each split, and what was left out of each, by reason."""
    cut: dict[str, Lesions] = {}
    gone: dict[str, dict[str, int]] = {}
    for name, part in parts.items():
        needed = [*task.where, *([task.column] if isinstance(task, Graded) else [task.time, task.event])]
        lost = [column for column in needed if column not in part.table]
        if lost:
            raise ConfigError(f"the labels have no column {', '.join(lost)}")
        inside = np.ones(len(part.table), dtype=bool)
        for column, values in task.where.items():
            inside &= part.table[column].isin(list(values)).to_numpy()
        eligible = only(part, inside)
        if isinstance(task, Timed):
            eligible = by_patient(eligible)
            fine = task.read(eligible.table).known
        else:
            fine = eligible.table[task.column].isin(task.classes).to_numpy()
        cut[name] = only(eligible, fine)
        gone[name] = {**part.told["not_read"], "not asked of": int((~inside).sum()), "label not known": int((~fine).sum())}
    told: dict[str, Any] = {"excluded": {name: {k: n for k, n in found.items() if n} for name, found in gone.items()}}
    if isinstance(task, Timed):
        return _enough(protocol, task, cut), told
    return _classes(protocol, task, cut, told), told


def _enough(protocol: TenTasks, task: Timed, cut: dict[str, Lesions]) -> dict[str, Lesions]:
    for name, part in cut.items():
        least = protocol.minimum.events if name != "validation" else 1
        reason = replace(task.read(part.table), min_events=least).refusal()
        if reason:
            raise ConfigError(f"{name}: {reason}")
    return cut


def _classes(protocol: TenTasks, task: Graded, cut: dict[str, Lesions], told: dict[str, Any]) -> dict[str, Lesions]:
    """The rows of classes that are large enough in training and in test."""
    sizes = {name: {c: int((part.table[task.column] == c).sum()) for c in task.classes} for name, part in cut.items()}
    least = protocol.minimum
    kept = [c for c in task.classes if sizes["train"][c] >= least.training and sizes["test"][c] >= least.test]
    if len(kept) < 2:
        raise ConfigError(
            f"{sizes['train']} in training and {sizes['test']} in test; two classes of {least.training} and "
            f"{least.test} are needed"
        )
    told |= {"classes": kept, "left_out": {c: {name: sizes[name][c] for name in cut} for c in task.classes if c not in kept}}
    return {name: only(part, part.table[task.column].isin(kept).to_numpy()) for name, part in cut.items()}


def _known(task: Graded | Timed, part: Lesions, told: dict[str, Any]) -> Known:
    """Features and targets, and how many there are."""
    who = part.table["patient_id"].to_numpy(dtype=str)
    if isinstance(task, Timed):
        outcome = task.read(part.table)
        return Known(part.x, part.unit, np.stack([outcome.time_days, outcome.event], 1), who, 0)
    kept: list[str] = told["classes"]
    return Known(part.x, part.unit, part.table[task.column].map(kept.index).to_numpy(dtype=np.int64), who, len(kept))


def _measured(protocol: TenTasks, task: Graded | Timed, head: Head, test: Known) -> tuple[dict[str, Any], Any]:
    scores = head.scores(test)
    return measures(task.type, head, test, scores, protocol.draws), main_statistic(task.type, head, test, scores)


def _beside(
    protocol: TenTasks, task: Graded | Timed, cut: Mapping[str, Lesions], known: Mapping[str, Known], image: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Clinical facts, size, and image with clinical facts: the same head on the same lesions, and image minus each, in pairs."""
    found: dict[str, Any] = {}
    apart: dict[str, Any] = {}
    columns = _columns(protocol, task, cut["train"].table)
    for name, (numeric, words) in columns.items():
        if not numeric and not words:
            found[name] = {"na": "no column of it is known"}
            continue
        encoder = fit_covariates(cut["train"].table, numeric=numeric, categorical=words)
        x = {split: encoder.encode(part.table).x for split, part in cut.items()}
        alone = {split: replace(known[split], x=x[split], unit=np.arange(len(x[split]))) for split in known}
        ways = {name: alone}
        if name == "clinical":
            both = {split: replace(k, x=np.concatenate([k.x, x[split][k.unit]], 1)) for split, k in known.items()}
            ways["image and clinical"] = both
        for way, rows in ways.items():
            found[way], other = _measured(protocol, task, fit_head(task.type, rows["train"], rows["validation"]), rows["test"])
            apart[way] = asdict(paired_bootstrap(image, other, known["test"].patients, n=protocol.draws))
        found[name]["columns"] = [*numeric, *words]
    return found, apart


def _columns(protocol: TenTasks, task: Graded | Timed, table: pd.DataFrame) -> dict[str, tuple[list[str], list[str]]]:
    def there(names: Sequence[str]) -> list[str]:
        return [c for c in names if c in table and table[c].notna().any()]

    out = {"clinical": (there(protocol.clinical.numeric), there(protocol.clinical.categorical))}
    out["size"] = (there([protocol.size] if protocol.size else []), [])
    return {name: columns for name, columns in out.items() if name not in task.not_beside}


def _phases(
    protocol: TenTasks, task: Graded | Timed, cut: Mapping[str, Lesions], known: Mapping[str, Known], fused: Any
) -> dict[str, Any]:
    """The mean over a lesion's scans against one of them, with the head's thresholds chosen on such scans of validation."""
    alone = {name: single_scans(cut[name], protocol.phases) for name in ("validation", "test")}
    if len(alone["test"].x) == len(cut["test"].x):
        return {"na": "every lesion has a single scan"}
    one = {name: replace(known[name], x=part.x, unit=part.unit) for name, part in alone.items()}
    head = fit_head(task.type, known["train"], one["validation"])
    found, statistic = _measured(protocol, task, head, one["test"])
    several = int((np.bincount(cut["test"].unit) > 1).sum())
    gain = asdict(paired_bootstrap(fused, statistic, known["test"].patients, n=protocol.draws))
    return {"with_several": several, "single": found, "fused_minus_single": gain}


def _curve(protocol: TenTasks, task: Graded | Timed, known: Mapping[str, Known]) -> tuple[Point, ...]:
    test = known["test"]

    def learn(rows: Any, _fraction: float, _seed: int) -> Any:
        head = fit_head(task.type, known["train"].take(rows), known["validation"])
        return main_statistic(task.type, head, test, head.scores(test))

    return efficiency(
        known["train"].patients, learn, test.patients, fractions=protocol.fractions, seeds=protocol.seeds, draws=CURVE_DRAWS
    )
