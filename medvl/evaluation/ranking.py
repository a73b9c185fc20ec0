"""How well a gallery is ranked: recall, median rank, mean average precision and nDCG, ties at their expectation.

A score that cannot tell two candidates apart must not profit from the order in which they lie in memory, so every value here is
the mean over all ways to break ties. Every summary states the size of its gallery and what a constant score would get in it: a
recall at 5 of 0.5 is poor among 10 and excellent among 10 000.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from medvl.evaluation.intervals import Weighted, bootstrap
from medvl.evaluation.metrics import average_of, median_of

Array = NDArray[np.float64]
DEPTHS = (1, 5, 10)


def hits_at(similarity: NDArray[np.floating], k: int, relevant: NDArray[np.bool_] | None = None) -> Array:
    """(Q,) chance that a right answer is among the k most similar; over the ways to break ties.

    Args:
        similarity: (Q, G) of queries (rows) to the gallery (columns).
        k: how many are looked at.
        relevant: (Q, G) which answers are right, such as all reports of the same words; default: the diagonal.

    Raises:
        ValueError: a query has no right answer.
    """
    above, tied, right = _best_right(similarity, relevant)
    slots = np.clip(k - above, 0, tied)
    wrong = tied - right
    missed = np.zeros(len(slots))
    possible = slots <= wrong
    t, w, m = tied[possible], wrong[possible], slots[possible]
    missed[possible] = np.exp(_log_choose(w, m) - _log_choose(t, m))
    single = right == 1
    missed[single] = 1 - slots[single] / tied[single]
    return np.asarray(1 - missed)


def first_ranks(similarity: NDArray[np.floating], relevant: NDArray[np.bool_] | None = None) -> Array:
    """(Q,) expected rank (1 is best) of the first right answer; arguments as `hits_at`."""
    above, tied, right = _best_right(similarity, relevant)
    return np.asarray(above + (tied + 1) / (right + 1))


def _best_right(
    similarity: NDArray[np.floating], relevant: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Per query: candidates above the best right answer, level with it, and right ones among those level."""
    if relevant is None:
        own = np.diagonal(similarity)[: len(similarity), None]
        if len(own) < len(similarity):
            raise ValueError(f"{len(similarity)} queries for a gallery of {similarity.shape[1]}: say which answers are right")
        level = similarity == own
        return (similarity > own).sum(1), level.sum(1), np.ones(len(own), np.int64)
    _check(similarity, relevant)
    own = np.where(relevant, similarity, -np.inf).max(1)[:, None]
    level = similarity == own
    return (similarity > own).sum(1), level.sum(1), (level & relevant).sum(1)


def _check(similarity: NDArray[np.floating], relevant: NDArray[Any]) -> None:
    if similarity.shape != relevant.shape:
        raise ValueError(f"similarity is {similarity.shape}, what is right is {relevant.shape}")
    without = int((~(relevant > 0).any(1)).sum())
    if without:
        raise ValueError(f"{without} of {len(relevant)} queries have no right answer in the gallery; leave them out and say so")


def _log_choose(n: NDArray[np.int64], k: NDArray[np.int64]) -> Array:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def average_precisions(similarity: NDArray[np.floating], relevant: NDArray[np.bool_]) -> Array:
    """(Q,) average precision of each query's ranking, expected over ties.

    Source: McSherry & Najork 2008, Computing information retrieval performance measures efficiently in the presence of tied
    scores, section 2.5. Arguments and errors as `hits_at`.
    """
    _check(similarity, relevant)
    n = similarity.shape[1]
    place = np.arange(1, n + 1)
    out = np.empty(len(similarity))
    for q, (scores, right) in enumerate(zip(similarity, relevant, strict=True)):
        order = np.argsort(-scores, kind="stable")
        starts, sizes = _ties(scores[order])
        found = np.add.reduceat(right[order].astype(np.int64), starts)
        size, r = np.repeat(sizes, sizes), np.repeat(found, sizes)
        before = np.repeat(np.cumsum(found) - found, sizes)
        within = place - 1 - np.repeat(starts, sizes)
        expected = before + 1 + within * (r - 1) / np.maximum(size - 1, 1)
        out[q] = (r / size * expected / place).sum() / right.sum()
    return out


def ndcgs(similarity: NDArray[np.floating], gain: NDArray[np.floating], k: int | None = None) -> Array:
    """(Q,) normalised discounted cumulative gain of each query's ranking, expected over ties.

    Source: Järvelin & Kekäläinen 2002, with linear gain and discount 1 / log2(rank + 1); ties as McSherry & Najork 2008.

    Args:
        similarity: (Q, G).
        gain: (Q, G) not negative, how right each answer is.
        k: only the first k places count; default: all.

    Raises:
        ValueError: a query without gain anywhere, or a negative gain.
    """
    _check(similarity, gain)
    if (gain < 0).any():
        raise ValueError(f"a gain is negative: {float(gain.min())}")
    n = similarity.shape[1]
    discount = 1 / np.log2(np.arange(2, n + 2))
    discount[k if k is not None else n :] = 0
    ideal = -np.sort(-gain, axis=1) @ discount
    out = np.empty(len(similarity))
    for q, (scores, worth) in enumerate(zip(similarity, gain, strict=True)):
        order = np.argsort(-scores, kind="stable")
        starts, sizes = _ties(scores[order])
        out[q] = (np.add.reduceat(worth[order], starts) / sizes) @ np.add.reduceat(discount, starts)
    return np.asarray(out / ideal)


def _ties(ordered: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each run of equal scores begins, and how long it is."""
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return starts, np.diff(np.r_[starts, len(ordered)])


def shared_findings(one: NDArray[np.integer], other: NDArray[np.integer]) -> Array:
    """(Q, G) in [0, 1]: present in both as a share of present in either (Jaccard), over findings that both state.

    1 where both state something and neither anything present; 0 where no finding is stated by both.

    Args:
        one: (Q, F) labels, 1 present, 0 absent, -1 not stated.
        other: (G, F) the same findings of the gallery.
    """
    present_a, present_b = (one == 1).astype(np.float64), (other == 1).astype(np.float64)
    stated_a, stated_b = (one >= 0).astype(np.float64), (other >= 0).astype(np.float64)
    both = present_a @ present_b.T
    either = present_a @ stated_b.T + stated_a @ present_b.T - both
    stated = stated_a @ stated_b.T
    return np.asarray(np.where(either > 0, both / np.maximum(either, 1), stated > 0))


def same_text(texts: Sequence[str], gallery: Sequence[str] | None = None) -> NDArray[np.bool_]:
    """(Q, G) where two reports have the same words: case and spacing do not count."""
    plain = [np.array([" ".join(t.lower().split()) for t in side]) for side in (texts, texts if gallery is None else gallery)]
    return np.asarray(plain[0][:, None] == plain[1][None])


def retrieval_scores(
    similarity: NDArray[np.floating],
    patients: ArrayLike,
    *,
    relevant: NDArray[np.bool_] | None = None,
    gain: NDArray[np.floating] | None = None,
    gallery: int | None = None,
    depths: Sequence[int] = DEPTHS,
    draws: int = 1000,
) -> dict[str, Any]:
    """What a ranking is worth in galleries of one size, with what chance would get and intervals by patient.

    Args:
        similarity: (N, N) of every query to every candidate, the same cases in the same order.
        patients: (N,) whose each query is.
        relevant: (N, N) right answers; default: the diagonal. Also gives mean average precision when given.
        gain: (N, N) how alike two cases are, such as `shared_findings`; gives nDCG when given.
        gallery: cases drawn without overlap into galleries of this size (seed 0, the rest is left out); default: all.
        depths: k of recall.
        draws: of the bootstrap; 0 for none.

    Returns:
        `gallery`, `galleries`, `queries`, `without_answer` (queries left out of mAP or nDCG: nothing in their gallery is right),
        and by measure `{value, ci, chance}`: `recall_at_K`, `median_rank`, `mean_average_precision`, `ndcg`.

    Raises:
        ValueError: the gallery is larger than the number of cases, or the matrix is not square.
    """
    who = np.asarray(patients)
    size = len(similarity) if gallery is None else gallery
    if similarity.shape != (len(who), len(who)) or not 1 < size <= len(who):
        raise ValueError(f"similarity {similarity.shape}, {len(who)} patients and a gallery of {size} do not fit")
    order = np.random.default_rng(0).permutation(len(who)) if size < len(who) else np.arange(len(who))
    groups = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
    pieces = [by_query(similarity[np.ix_(g, g)], _cut(relevant, g), _cut(gain, g), depths) for g in groups]
    chance = [by_query(np.zeros((size, size)), _cut(relevant, g), _cut(gain, g), depths) for g in groups]
    out: dict[str, Any] = {"gallery": size, "galleries": len(groups), "queries": size * len(groups)}
    owners, without = who[np.concatenate(groups)], 0
    for name in pieces[0]:
        values, level = (np.concatenate([part[name] for part in parts]) for parts in (pieces, chance))
        known = np.isfinite(values)
        without = max(without, int((~known).sum()))
        if not known.any():
            raise ValueError(f"{name}: no query has a right answer in its gallery")
        summary = summary_of(name, values[known])
        ci = bootstrap(summary, owners[known], n=draws) if draws else ()
        everyone = np.arange(int(known.sum()))
        by_chance = float(summary_of(name, level[known])(everyone))
        out[name] = {"value": float(summary(everyone)), "ci": list(ci), "chance": by_chance}
    return {**out, "without_answer": without}


def _cut(matrix: NDArray[Any] | None, group: NDArray[np.int64]) -> NDArray[Any] | None:
    return None if matrix is None else matrix[np.ix_(group, group)]


def by_query(
    block: NDArray[np.floating],
    relevant: NDArray[np.bool_] | None = None,
    gain: NDArray[np.floating] | None = None,
    depths: Sequence[int] = DEPTHS,
) -> dict[str, Array]:
    """By measure of `retrieval_scores`, (Q,) values of the queries of one gallery (Q, G); NaN where nothing is right."""
    right = np.eye(block.shape[0], block.shape[1], dtype=bool) if relevant is None else relevant
    out = {f"recall_at_{k}": _where(right, block, lambda b, r, k=k: hits_at(b, k, r)) for k in depths}
    out["median_rank"] = _where(right, block, first_ranks)
    if relevant is not None:
        out["mean_average_precision"] = _where(right, block, average_precisions)
    if gain is not None:
        out["ndcg"] = _where(gain, block, ndcgs)
    return out


def _where(right: NDArray[Any], block: NDArray[np.floating], measure: Callable[..., Array]) -> Array:
    values = np.full(len(block), np.nan)
    some = (right > 0).any(1)
    if some.any():
        values[some] = measure(block[some], right[some])
    return values


def summary_of(name: str, values: Array) -> Weighted:
    """What stands for a measure of `by_query` over its queries: the median of ranks, the mean of everything else."""
    return median_of(values) if name == "median_rank" else average_of(values)
