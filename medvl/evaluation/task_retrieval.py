"""Scan to report and back, by patient: over shared regions, in galleries of a stated size, ties at their expected place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.evaluation.embedded import Embedded
from medvl.evaluation.protocol import Retrieval
from medvl.evaluation.ranking import first_ranks, hits_at, ndcgs, shared_findings
from medvl.evaluation.resampling import estimate, missing, rate, weighted_mean
from medvl.evaluation.tasks import Setting

Array = NDArray[np.float64]


def retrieval(setting: Setting, task: Retrieval) -> dict[str, Any]:
    """Recall at k, ranks both ways, and nDCG by findings that two patients share; with who was left out."""
    who, images, texts, excluded = patient_vectors(setting.table)
    told: dict[str, Any] = {"patients": len(who), "excluded": excluded}
    if len(who) < setting.protocol.minimum.patients:
        return told | {
            "na": f"{len(who)} patients have image and report; at least {setting.protocol.minimum.patients} are needed"
        }
    size = min(task.gallery, len(who))
    told |= {"gallery": size, "chance": {str(k): round(min(k / size, 1.0), 4) for k in task.ranks}}
    weights, labels = setting.draws.weights(who), patient_labels(setting.table, who)
    sides = {"image_to_report": (images, texts), "report_to_image": (texts, images)}
    for way, (ask, answer) in sides.items():
        found = per_query(ask, answer, labels, task, size, setting.protocol.seed)
        told[way] = {
            "recall": {str(k): rate(found[f"hits_{k}"], who, setting.draws) for k in task.ranks},
            "median_rank": estimate(_weighted_median(found["rank"], weights), 1),
            "mean_reciprocal_rank": estimate(weighted_mean(1 / found["rank"], weights)),
            "ndcg_shared_findings": estimate(weighted_mean(found["ndcg"], weights)),
            "ndcg_chance": round(float(np.nanmean(found["ndcg_chance"])), 4) if np.isfinite(found["ndcg_chance"]).any() else None,
        }
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
    """(P,) of each patient as a query: chance of its own match within the first k, rank of the match, and nDCG beside chance."""
    out = {name: np.full(len(ask), np.nan) for name in (*(f"hits_{k}" for k in task.ranks), "rank", "ndcg", "ndcg_chance")}
    for members, asking in galleries(len(ask), size, seed):
        mine = members[asking]
        similarity = np.round(ask[mine] @ answer[members].T, 7)
        for k in task.ranks:
            out[f"hits_{k}"][mine] = hits_at(similarity, k)
        out["rank"][mine] = first_ranks(similarity)
        gain = shared_findings(labels[mine], labels[members])
        some = gain.any(1)
        if some.any():
            out["ndcg"][mine[some]] = ndcgs(similarity[some], gain[some])
            out["ndcg_chance"][mine[some]] = ndcgs(np.zeros_like(similarity[some]), gain[some])
    return out


def _weighted_median(values: Array, weights: Array) -> Array:
    order = np.argsort(values, kind="stable")
    total = weights[:, order].cumsum(1)
    half = total[:, -1:] / 2
    lower = values[order][(total >= half).argmax(1)]
    upper = values[order][(total > half).argmax(1)]
    return np.asarray((lower + upper) / 2, dtype=np.float64)


def pointing(setting: Setting) -> dict[str, Any]:
    """The pointing game by finding: peak in the lesion, near it, and what a random place would score."""
    told = setting.table.evidence
    if told is None or not len(told):
        return {
            "na": "the embedded cohort compared no maps with lesions; phantoms through scans do (medvl embed without --crops)"
        }
    out: dict[str, Any] = {}
    for name in ("all", *sorted(told["finding"].unique())):
        part = told if name == "all" else told[told["finding"] == name]
        if len(part) < setting.protocol.minimum.present:
            out[name] = {"n": len(part)} | missing(f"{len(part)} lesions; at least {setting.protocol.minimum.present} are needed")
            continue
        out[name] = {
            "n": len(part),
            "rate": rate(part["hit"], part["patient_id"], setting.draws),
            "near": rate(part["near"], part["patient_id"], setting.draws),
            "chance": round(float(part["share"].mean()), 4),
        }
    return {"findings": out}
