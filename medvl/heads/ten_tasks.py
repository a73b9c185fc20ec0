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
from medvl.heads.few_shot import Point, efficiency
from medvl.heads.lesions import Lesions, by_patient, lesions, only, single_scans
from medvl.heads.task_heads import MAIN, Head, Known, fit_head, main_statistic, measures
from medvl.heads.task_list import Graded, TenTasks, Timed
from medvl.survival.covariates import fit_covariates

SPLITS = ("train", "validation", "test")
CURVE_DRAWS = 500


def run_ten_tasks(
    protocol: TenTasks,
    cohorts: Mapping[str, Sequence[Embedded]],
    labels: pd.DataFrame,
    *,
    second: Mapping[str, Sequence[Embedded]] | None = None,
    curve: bool = True,
) -> dict[str, Any]:
    """`cohort`, what there was in each split, and `tasks`, every one measured or refused; JSON-ready.

    Args:
        protocol: what is asked.
        cohorts: `train`, `validation` and `test`, each one or more embedded cohorts; several are several scans of the patients,
            told apart by the column `phase` of their patients.
        labels: one row a lesion: `patient_id`, `region` (may be absent where a patient has one region only), and label columns.
        second: the same cohorts under another encoder, such as one trained on these labels alone, to set beside.
        curve: whether to learn from shares of the training patients too, where the protocol names any.

    Raises:
        ConfigError: a split is missing, a patient is in two splits, or the table has no lesion of a split.
    """
    parts = _splits(protocol, cohorts, labels)
    other = None if second is None else _splits(protocol, second, labels)
    told: dict[str, Any] = {"cohort": {name: part.told for name, part in parts.items()}, "tasks": {}}
    for task in protocol.tasks:
        head = {"label": task.label or task.name, "type": task.type}
        try:
            told["tasks"][task.name] = head | _run(protocol, task, parts, other, curve and bool(protocol.fractions))
        except (ConfigError, ValueError) as error:
            told["tasks"][task.name] = head | {"na": str(error)}
    return told


def _splits(protocol: TenTasks, cohorts: Mapping[str, Sequence[Embedded]], labels: pd.DataFrame) -> dict[str, Lesions]:
    missing = [name for name in SPLITS if not cohorts.get(name)]
    if missing:
        lacking = " and no ".join(missing)
        raise ConfigError(f"no {lacking} cohort; heads learn on train, choose on validation, answer on test (--training FOLDER)")
    parts = {name: lesions(cohorts[name], labels, protocol.kind, protocol.features) for name in SPLITS}
    seen: dict[str, str] = {}
    for name, part in parts.items():
        for patient in part.table["patient_id"].unique():
            if seen.setdefault(patient, name) != name:
                raise ConfigError(f"patient {patient} is in {seen[patient]} and in {name}; split by patient")
    return parts


def _run(
    protocol: TenTasks, task: Graded | Timed, parts: Mapping[str, Lesions], second: Mapping[str, Lesions] | None, curve: bool
) -> dict[str, Any]:
    cut, told = _asked(protocol, task, parts)
    known = {name: _known(task, part, told) for name, part in cut.items()}
    head = fit_head(task.type, known["train"], known["validation"])
    found, image = _measured(protocol, task, head, known["test"])
    told |= {"main": MAIN[task.type], "head": head.told, "image": found}
    told["beside"], told["difference"] = _beside(protocol, task, cut, known, image)
    if second is not None and "second" not in task.not_beside:
        found, apart = _second(protocol, task, told, second, (head, cut["test"], known["test"]))
        told["beside"]["second"] = found
        told["difference"] |= {"second": apart} if apart else {}
    told["phases"] = _phases(protocol, task, cut, known, image)
    if curve:
        told["curve"] = [asdict(point) for point in _curve(protocol, task, known)]
    return told


def _second(
    protocol: TenTasks,
    task: Graded | Timed,
    told: dict[str, Any],
    parts: Mapping[str, Lesions],
    ours: tuple[Head, Lesions, Known],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The same task under another encoder, and image minus it on the lesions, or patients, that both answered."""
    head, mine, known = ours
    try:
        cut = _asked(protocol, task, parts)[0]
        if isinstance(task, Graded):
            cut = {name: only(part, part.table[task.column].isin(told["classes"]).to_numpy()) for name, part in cut.items()}
        same = {name: _known(task, part, told) for name, part in cut.items()}
        other = fit_head(task.type, same["train"], same["validation"])
        columns = ["patient_id", "region"] if isinstance(task, Graded) else ["patient_id"]
        keys = [pd.Index(part.table[columns].agg("/".join, axis=1)) for part in (mine, cut["test"])]
        shared = sorted(set(keys[0]) & set(keys[1]))
        a, b = (rows.take(key.get_indexer(pd.Index(shared))) for rows, key in zip((known, same["test"]), keys, strict=True))
        one, two = (main_statistic(task.type, h, rows, h.scores(rows)) for h, rows in ((head, a), (other, b)))
        apart = asdict(paired_bootstrap(one, two, a.patients, n=protocol.draws)) | {"n": len(shared)}
    except (ConfigError, ValueError) as error:
        return {"na": str(error)}, None
    return _measured(protocol, task, other, same["test"])[0], apart


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
