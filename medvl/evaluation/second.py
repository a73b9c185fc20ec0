"""A second model on the same regions and patients: paired differences, their tests, and p values adjusted for their number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.evaluation.comparisons import adjust, delong
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.estimates import estimate, p_value
from medvl.evaluation.intervals import Draws, Weighted
from medvl.evaluation.metrics import auroc_of, average_of, harrell_of
from medvl.evaluation.protocol import Retrieval, Survival, ZeroShot
from medvl.evaluation.task_retrieval import patient_labels, patient_vectors, per_query
from medvl.evaluation.task_survival import outcomes
from medvl.evaluation.tasks import Setting, asked, scored

NOTE = (
    "Differences are this model minus the second, on regions and patients that both answered. Adjusted p values are Holm's "
    "over all "
    "{n} comparisons of this report: they bound the chance that any of the differences called significant is none. Unadjusted "
    "intervals of single differences do not."
)


def compare(first: Setting, second: Setting) -> dict[str, Any]:
    """AUROC by finding, recall at the first rank and concordance of two models, paired.

    Raises:
        ConfigError: the two cohorts share no region, or their labels differ.
    """
    one, two = aligned(first.table, second.table)
    draws = Draws(one.rows["patient_id"], first.protocol.draws, first.protocol.seed)
    a, b = (replace(s, table=t, draws=draws) for s, t in ((first, one), (second, two)))
    rows: list[dict[str, Any]] = []
    for task in first.protocol.tasks:
        if isinstance(task, ZeroShot):
            rows += _findings(a, b, task)
        elif isinstance(task, Retrieval):
            rows += _retrieval(a, b, task)
        elif isinstance(task, Survival):
            rows += _survival(a, b, task)
    tested = [row for row in rows if row.get("p") is not None]
    if tested:
        for row, p in zip(tested, adjust([row["p"] for row in tested]), strict=True):
            row["p_adjusted"] = float(p)
    return {
        "second": {"name": second.model.name, "sha256": second.model.sha256},
        "regions": {"shared": len(one), "only_first": len(first.table) - len(one), "only_second": len(second.table) - len(two)},
        "rows": rows,
        "note": NOTE.format(n=len(tested)),
    }


def aligned(one: Embedded, two: Embedded) -> tuple[Embedded, Embedded]:
    """Both cut to the regions that both hold, in one order; findings are matched by name when they are measured.

    Raises:
        ConfigError: no region is shared.
    """
    keys = [t.rows["patient_id"].astype(str) + "/" + t.rows["region"].astype(str) for t in (one, two)]
    shared = sorted(set(keys[0]) & set(keys[1]))
    if not shared:
        raise ConfigError("the two embedded cohorts share no region of a patient; embed the same patients with both bundles")
    places = [{k: i for i, k in enumerate(found)} for found in keys]
    first, second = (t.take(np.array([place[k] for k in shared])) for t, place in zip((one, two), places, strict=True))
    return first, second


def _findings(a: Setting, b: Setting, task: ZeroShot) -> list[dict[str, Any]]:
    rows = []
    for key in asked(a, task):
        row: dict[str, Any] = {"task": "zero_shot", "what": key, "metric": "AUROC"}
        if key not in a.model.calibrations or key not in b.model.calibrations or key not in b.table.findings:
            rows.append(row | {"na": "not asked of both models"})
            continue
        one, two = scored(a, task, key), scored(b, task, key)
        both, i, j = np.intersect1d(one.rows, two.rows, return_indices=True)
        if not np.array_equal(one.labels[i], two.labels[j]):
            raise ConfigError(f"labels of {key} differ between the two embedded cohorts; embed one cohort with both bundles")
        rows.append(row | _auroc(a, one.labels[i], one.probability[i], two.probability[j], one.patients[i]) | {"n": len(both)})
    return rows


def _auroc(
    setting: Setting,
    labels: NDArray[np.int64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    patients: NDArray[np.str_],
) -> dict[str, Any]:
    least = setting.protocol.minimum
    n_present = int(labels.sum())
    if n_present < least.present or len(labels) - n_present < least.absent:
        return {"na": f"{n_present} present and {len(labels) - n_present} absent among the shared regions"}
    told = _paired(setting, auroc_of(labels, a), auroc_of(labels, b), patients)
    try:
        found = delong(labels, a, b, patients)
    except ValueError:
        return told
    return told | {"p": found.p, "method": found.method}


def _paired(setting: Setting, first: Weighted, second: Weighted, patients: NDArray[np.str_]) -> dict[str, Any]:
    one, two = (setting.draws.values(statistic, patients) for statistic in (first, second))
    told = {"first": round(float(one[0]), 4), "second": round(float(two[0]), 4), "difference": estimate(one - two)}
    return told | {"p": p_value(one[1:] - two[1:]), "method": "paired bootstrap by patient"}


def _retrieval(a: Setting, b: Setting, task: Retrieval) -> list[dict[str, Any]]:
    (first, *one, _), (second, *two, _) = (patient_vectors(s.table) for s in (a, b))
    who, i, j = np.intersect1d(first, second, return_indices=True)
    vectors = [(np.asarray(side[0])[at], np.asarray(side[1])[at]) for side, at in ((one, i), (two, j))]
    rows: list[dict[str, Any]] = []
    for name, (ask, answer) in {"image to report": (0, 1), "report to image": (1, 0)}.items():
        row: dict[str, Any] = {"task": "retrieval", "what": name, "metric": "reciprocal rank", "n": len(who)}
        if len(who) < a.protocol.minimum.patients:
            rows.append(row | {"na": f"{len(who)} patients with image and report of both models"})
            continue
        labels, size = patient_labels(a.table, who), min(task.gallery, len(who))
        ranks = [per_query(side[ask], side[answer], labels, task, size, a.protocol.seed)["median_rank"] for side in vectors]
        rows.append(row | _paired(a, average_of(1 / ranks[0]), average_of(1 / ranks[1]), who))
    return rows


def _survival(a: Setting, b: Setting, task: Survival) -> list[dict[str, Any]]:
    row: dict[str, Any] = {"task": "survival", "what": task.endpoint, "metric": "Harrell's C"}
    if any(s.model.survival is None or s.model.survival.endpoint != task.endpoint for s in (a, b)):
        return [row | {"na": "not both bundles predict this endpoint"}]
    one, two = outcomes(a, task), outcomes(b, task)
    who, i, j = np.intersect1d(one.patients, two.patients, return_indices=True)
    if one.event[i].sum() < a.protocol.minimum.events:
        return [row | {"na": f"{int(one.event[i].sum())} events among the shared patients", "n": len(who)}]
    ours, theirs = (harrell_of(one.time[i], one.event[i], risk) for risk in (one.risk[i], two.risk[j]))
    return [row | _paired(a, ours, theirs, who) | {"n": len(who)}]
