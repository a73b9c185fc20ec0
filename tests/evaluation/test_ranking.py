"""Rankings against scikit-learn, torchmetrics and every order that ties allow."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, ndcg_score
from torchmetrics.functional.retrieval import retrieval_hit_rate

from medvl.evaluation.ranking import (
    average_precisions,
    first_ranks,
    hits_at,
    ndcgs,
    retrieval_scores,
    same_text,
    shared_findings,
)


def orders(row: np.ndarray) -> list[tuple[int, ...]]:
    """Every order of the candidates that respects their scores."""
    return [o for o in permutations(range(len(row))) if all(row[a] >= row[b] for a, b in pairwise(o))]


def average_precision(order: tuple[int, ...], right: np.ndarray) -> float:
    """By the definition: the mean over right answers of the precision at their place."""
    places = [i + 1 for i, c in enumerate(order) if right[c]]
    return float(np.mean([(n + 1) / place for n, place in enumerate(places)]))


@pytest.fixture
def tied() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    right = rng.random((8, 6)) < 0.35
    right[:, 0] |= ~right.any(1)
    return rng.integers(0, 3, (8, 6)).astype(float), right


def test_one_right_answer_is_the_mean_over_all_ways_to_break_ties() -> None:
    similarity = np.random.default_rng(2).integers(0, 3, (5, 5)).astype(float)
    ranks = [[o.index(i) + 1 for o in orders(row)] for i, row in enumerate(similarity)]
    assert any(len(set(r)) > 1 for r in ranks)
    for k in range(1, 6):
        assert hits_at(similarity, k).mean() == pytest.approx(np.mean([np.mean([r <= k for r in row]) for row in ranks]))
    assert np.median(first_ranks(similarity)) == pytest.approx(np.median([np.mean(row) for row in ranks]))


def test_several_right_answers_are_the_mean_over_all_ways_to_break_ties(tied: tuple[np.ndarray, np.ndarray]) -> None:
    similarity, right = tied
    assert right.sum(1).max() > 1
    for q, (row, truth) in enumerate(zip(similarity, right, strict=True)):
        first = [min(o.index(c) + 1 for c in np.flatnonzero(truth)) for o in orders(row)]
        for k in range(1, 7):
            assert hits_at(similarity, k, right)[q] == pytest.approx(np.mean([f <= k for f in first]))
        assert first_ranks(similarity, right)[q] == pytest.approx(np.mean(first))
        expected = np.mean([average_precision(o, truth) for o in orders(row)])
        assert average_precisions(similarity, right)[q] == pytest.approx(expected)


def test_hits_equal_torchmetrics_without_ties() -> None:
    rng = np.random.default_rng(0)
    similarity, right = rng.normal(size=(20, 30)), rng.random((20, 30)) < 0.1
    right[:, 3] = True
    for k in (1, 5, 30):
        theirs = [
            retrieval_hit_rate(torch.tensor(s), torch.tensor(r), top_k=k).item() for s, r in zip(similarity, right, strict=True)
        ]
        np.testing.assert_allclose(hits_at(similarity, k, right), theirs, atol=1e-12)


def test_average_precision_equals_sklearn_without_ties() -> None:
    rng = np.random.default_rng(1)
    similarity, right = rng.normal(size=(20, 50)), rng.random((20, 50)) < 0.2
    right[:, 0] = True
    theirs = [average_precision_score(r, s) for s, r in zip(similarity, right, strict=True)]
    np.testing.assert_allclose(average_precisions(similarity, right), theirs, atol=1e-12)


@pytest.mark.parametrize("k", [None, 1, 7])
@pytest.mark.parametrize("levels", [3, 10**9])
def test_ndcg_equals_sklearn_with_and_without_ties(levels: int, k: int | None) -> None:
    rng = np.random.default_rng(3)
    similarity, gain = rng.integers(levels, size=(20, 40)).astype(float), rng.integers(0, 4, (20, 40)) / 3
    np.testing.assert_allclose(
        ndcgs(similarity, gain, k),
        [ndcg_score(g[None], s[None], k=k) for g, s in zip(gain, similarity, strict=True)],
        atol=1e-12,
    )


def test_a_constant_model_gets_chance_not_a_perfect_score() -> None:
    flat = np.zeros((8, 8))
    assert hits_at(flat, 1).mean() == pytest.approx(1 / 8)
    assert hits_at(flat, 5).mean() == pytest.approx(5 / 8)
    assert np.median(first_ranks(flat)) == 4.5
    assert hits_at(np.eye(8), 1).mean() == 1.0
    assert hits_at(-np.eye(8), 7).mean() == 0.0
    assert np.median(first_ranks(-np.eye(8))) == 8.0


def test_retrieval_looks_along_rows() -> None:
    similarity = np.array([[0.9, 0.1, 0.2], [0.95, 0.5, 0.4], [0.97, 0.6, 0.3]])
    assert hits_at(similarity, 1).mean() == pytest.approx(1 / 3)
    assert hits_at(similarity.T, 1).mean() == pytest.approx(0)


def test_shared_findings_by_hand() -> None:
    one = np.array([[1, 1, 0, -1], [0, 0, 0, 0], [-1, -1, -1, 1]])
    other = np.array([[1, 0, 1, 1], [0, -1, -1, -1], [1, 1, 0, -1]])
    # (1,1,0,-) with (1,0,1,1): stated by both are the first three; present in both 1, in either 3.
    np.testing.assert_allclose(shared_findings(one, other), [[1 / 3, 0, 1], [0, 1, 0], [1, 0, 0]])


def test_same_text_forgives_case_and_spacing() -> None:
    assert same_text(["A  cyst.", "No cyst."], ["a cyst.\n", "a mass."]).tolist() == [[True, False], [False, False]]


def test_scores_state_gallery_chance_and_intervals() -> None:
    rng = np.random.default_rng(5)
    n = 120
    truth = rng.normal(size=(n, 8))
    similarity = truth @ (truth + rng.normal(size=(n, 8))).T
    said = rng.integers(0, 2, (n, 4))
    alike = shared_findings(said, said)
    patients = np.arange(n) // 2
    told = retrieval_scores(similarity, patients, relevant=alike >= 1, gain=alike, gallery=50, draws=200)
    assert (told["gallery"], told["galleries"], told["queries"]) == (50, 2, 100)
    plain = retrieval_scores(similarity, patients, gallery=50, draws=200)
    assert plain["recall_at_5"]["chance"] == pytest.approx(0.1)
    assert plain["median_rank"]["chance"] == 25.5
    for name in ("recall_at_1", "median_rank", "mean_average_precision", "ndcg"):
        low, high = told[name]["ci"]
        assert low <= told[name]["value"] <= high
    assert plain["recall_at_5"]["value"] > plain["recall_at_5"]["ci"][0] > 0.1
    order = np.random.default_rng(0).permutation(n)
    blocks = [similarity[np.ix_(g, g)] for g in (order[:50], order[50:100])]
    assert plain["recall_at_5"]["value"] == pytest.approx(np.mean([hits_at(b, 5).mean() for b in blocks]))


def test_what_does_not_fit_is_an_error_and_what_has_no_answer_is_counted() -> None:
    similarity = np.random.default_rng(0).normal(size=(4, 4))
    right = np.eye(4, dtype=bool)
    right[2] = False
    with pytest.raises(ValueError, match="1 of 4 queries have no right answer"):
        hits_at(similarity, 1, right)
    with pytest.raises(ValueError, match="negative"):
        ndcgs(similarity, np.eye(4) - 0.5)
    with pytest.raises(ValueError, match="say which answers are right"):
        hits_at(similarity[:, :3], 1)
    with pytest.raises(ValueError, match="gallery of 9"):
        retrieval_scores(similarity, np.arange(4), gallery=9)
    told = retrieval_scores(similarity, np.arange(4), relevant=right, draws=0)
    assert told["without_answer"] == 1
    assert told["recall_at_1"]["ci"] == []
