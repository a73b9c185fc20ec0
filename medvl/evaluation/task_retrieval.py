"""Scan to report and back, by patient: over shared regions, in galleries of a stated size, ties at their expected place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.evaluation.embedded import Embedded
from medvl.evaluation.estimates import estimate, rate
from medvl.evaluation.metrics import average_of
from medvl.evaluation.protocol import Retrieval
from medvl.evaluation.ranking import by_query, shared_findings, summary_of
from medvl.evaluation.tasks import Setting

Array = NDArray[np.float64]
ALIKE = 0.5


def retrieval(setting: Setting, task: Retrieval) -> dict[str, Any]:
    """Recall at k and ranks both ways; nDCG and mean average precision by findings that two patients share; who was left out.

    For nDCG an answer is worth the share of present findings that both have (`shared_findings`); for average precision it is
    right where that share is `ALIKE` or more. Patients whose report states no finding do not ask for these two.
    """
    who, images, texts, excluded = patient_vectors(setting.table)
    told: dict[str, Any] = {"patients": len(who), "excluded": excluded}
    if len(who) < setting.protocol.minimum.patients:
        return told | {
            "na": f"{len(who)} patients have image and report; at least {setting.protocol.minimum.patients} are needed"
        }
    size = min(task.gallery, len(who))
    told |= {"gallery": size, "chance": {str(k): round(min(k / size, 1.0), 4) for k in task.ranks}}
    labels = patient_labels(setting.table, who)
    told |= {"labelled": int((labels >= 0).any(1).sum()), "alike": ALIKE}
    sides = {"image_to_report": (images, texts), "report_to_image": (texts, images)}
    for way, (ask, answer) in sides.items():
        found = per_query(ask, answer, labels, task, size, setting.protocol.seed)
        told[way] = {
            "recall": {str(k): rate(found[f"recall_at_{k}"], who, setting.draws) for k in task.ranks},
            "median_rank": estimate(setting.draws.values(summary_of("median_rank", found["median_rank"]), who), 1),
            "mean_reciprocal_rank": estimate(setting.draws.values(average_of(1 / found["median_rank"]), who)),
        }
        for short, name in (("ndcg", "ndcg"), ("map", "mean_average_precision")):
            level = found[f"{name}_chance"]
            told[way][f"{short}_shared_findings"] = estimate(setting.draws.values(average_of(found[name]), who))
            told[way][f"{short}_chance"] = round(float(np.nanmean(level)), 4) if np.isfinite(level).any() else None
    return told


def patient_vectors(table: Embedded) -> tuple[NDArray[np.str_], Array, Array, list[dict[str, Any]]]:
    """Patients (P,), their image and report vectors (P, R * E) of unit length, regions side by side, and who was left out.

    A region that one of the two lacks is a zero there, so it adds nothing to the similarity but to the length.
    """
    who = table.rows["patient_id"].to_numpy(dtype=str)
    names, place = np.unique(who, return_inverse=True)
    regions, column = np.unique(table.rows["region"].to_numpy(dtype=str), return_inverse=True)
    width = table.embedding.shape[1]
    sides = []
    for vectors in (table.embedding, table.report_embedding):
        known = np.isfinite(vectors).all(1) & (table.usable if vectors is table.embedding else True)
        out = np.zeros((len(names), len(regions), width))
        out[place[known], column[known]] = vectors[known]
        flat = out.reshape(len(names), -1)
        sides.append(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12))
    has = [side.any(1) for side in sides]
    both = has[0] & has[1]
    reasons = {"no_usable_region": ~has[0], "no_report": has[0] & ~has[1]}
    excluded = [{"reason": code, "patients": int(gone.sum())} for code, gone in reasons.items() if gone.any()]
    return names[both], sides[0][both], sides[1][both], excluded


def galleries(n: int, size: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(members, which of them ask) of each gallery: everybody asks once, in a gallery of exactly `size`.

    Patients that are left over ask in a gallery filled up with others, who only answer there.
    """
    order = np.random.default_rng(seed).permutation(n)
    full = n // size
    found = [(order[i * size : (i + 1) * size], np.arange(size)) for i in range(full)]
    rest = n - full * size
    if rest:
        found.append((np.concatenate([order[full * size :], order[: size - rest]]), np.arange(rest)))
    return found


def patient_labels(table: Embedded, who: NDArray[np.str_]) -> NDArray[np.int8]:
    """(P, R * F) what each patient's report says, region by region; -1 where it says nothing."""
    regions, column = np.unique(table.rows["region"].to_numpy(dtype=str), return_inverse=True)
    place = np.searchsorted(who, patients := table.rows["patient_id"].to_numpy(dtype=str))
    mine = np.isin(patients, who)
    out = np.full((len(who), len(regions), len(table.findings)), -1, dtype=np.int8)
    out[place[mine], column[mine]] = table.said[mine]
    return out.reshape(len(who), -1)


def per_query(ask: Array, answer: Array, labels: NDArray[np.int8], task: Retrieval, size: int, seed: int) -> dict[str, Array]:
    """By measure of `ranking.by_query`, (P,) of each patient as a query; of those by shared findings also what chance gives."""
    out: dict[str, Array] = {}
    for members, asking in galleries(len(ask), size, seed):
        mine = members[asking]
        similarity = np.round(ask[mine] @ answer[members].T, 7)
        gain = shared_findings(labels[mine], labels[members])
        found = by_query(similarity, gain=gain, depths=task.ranks) | _precision(similarity, gain)
        level = np.zeros_like(similarity)
        chance = by_query(level, gain=gain, depths=()) | _precision(level, gain)
        found |= {f"{name}_chance": chance[name] for name in ("ndcg", "mean_average_precision")}
        for name, values in found.items():
            out.setdefault(name, np.full(len(ask), np.nan))[mine] = values
    return out


def _precision(similarity: Array, gain: Array) -> dict[str, Array]:
    name = "mean_average_precision"
    return {name: by_query(similarity, gain >= ALIKE, depths=())[name]}
