"""Targets of the image-text objectives, and the scale they own."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scenes import KIDNEY, SIZES, B, found, scene

from medvl.data.targets import Targets, agreement
from medvl.objectives.contrastive import same_text
from medvl.objectives.image_text import any_known, label_cosine
from medvl.objectives.registry import Scene, build_objective
from medvl.objectives.scale import Scale

CPU = torch.device("cpu")
LABELS = hnp.arrays(np.int8, st.tuples(st.integers(1, 7), st.just(3)), elements=st.integers(-1, 1))


def _scene(labels: np.ndarray, numbers: list[int]) -> Scene:
    n = len(labels)
    what = Targets(labels, np.full((n, 2), -1, np.int8), np.full((n, 1), np.nan, np.float32))
    return Scene("kidney", 0, what, duplicates=torch.tensor((numbers * n)[:n]))


@settings(max_examples=30, deadline=None)
@given(
    labels=LABELS,
    numbers=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    similarity=st.sampled_from(["likeness", "cosine"]),
    temperature=st.sampled_from([0.01, 0.1, 1.0, 50.0]),
    hard_weight=st.sampled_from([0.0, 0.4, 1.0]),
    duplicates=st.booleans(),
)
def test_target_rows_sum_to_one_both_ways_whatever_is_known(
    labels: np.ndarray, numbers: list[int], similarity: str, temperature: float, hard_weight: float, duplicates: bool
) -> None:
    options = {
        "targets": "label_similarity",
        "similarity": similarity,
        "target_temperature": temperature,
        "hard_weight": hard_weight,
        "duplicates_as_positives": duplicates,
    }
    what = _scene(labels, numbers)
    targets = build_objective("image_text_contrastive", options, SIZES).targets(what, CPU)
    hard = same_text(what.duplicates) if duplicates else torch.eye(len(labels))
    for matrix in targets:
        assert torch.isfinite(matrix).all()
        assert (matrix >= 0).all()
        assert torch.allclose(matrix.sum(1), torch.ones(len(labels)), atol=1e-5)
        for i in np.flatnonzero((labels < 0).all(1)):
            assert torch.allclose(matrix[i], hard[i])


def test_label_cosine_is_that_of_signed_vectors_and_zero_for_a_row_of_zeros() -> None:
    labels = np.array([[1, 0, -1], [1, 1, 1], [-1, -1, -1], [0, 1, -1]], np.int8)
    root = 1 / math.sqrt(6)
    expected = [[1, 0, 0, -1], [0, 1, 0, 0], [0, 0, 0, 0], [-1, 0, 0, 1]]
    assert np.allclose(label_cosine(Targets(labels, labels[:, :0], np.zeros((4, 0), np.float32))), expected, atol=1e-6)
    labels[1] = [1, 0, 0]
    found_ = label_cosine(Targets(labels, labels[:, :0], np.zeros((4, 0), np.float32)))
    assert found_[0, 1] == pytest.approx(2 * root, rel=1e-6)


def test_known_looks_at_every_sort_of_attribute() -> None:
    blank = {"binary": np.full((4, 3), -1), "classes": np.full((4, 2), -1), "numbers": np.full((4, 1), np.nan)}
    blank["binary"][1, 2], blank["classes"][2, 0], blank["numbers"][3, 0] = 0, 0, -1.5
    assert any_known(Targets(**blank)).tolist() == [False, True, True, True]


def test_equal_texts_share_the_target_and_are_no_negatives() -> None:
    what, given_ = replace(scene(), duplicates=torch.tensor([0, 1, 0, 2, 1, 0])), found()
    forward, backward = build_objective("image_text_contrastive", {}, SIZES).targets(what, CPU)
    assert torch.equal(forward, backward)
    assert forward[0].tolist() == pytest.approx([1 / 3, 0, 1 / 3, 0, 0, 1 / 3])
    assert forward[3].tolist() == [0, 0, 0, 1, 0, 0]
    given_["text"] = given_["text"][what.duplicates]
    given_["image"] = given_["text"].clone()
    sharp = {"initial_scale": 99.0}
    shared = build_objective("image_text_contrastive", sharp, SIZES)(given_, what)
    apart = build_objective("image_text_contrastive", {**sharp, "duplicates_as_positives": False}, SIZES)(given_, what)
    assert shared.item() == pytest.approx((3 * math.log(3) + 2 * math.log(2)) / 6, rel=1e-3)
    assert shared.item() == pytest.approx(apart.item(), rel=1e-3)
    given_["image"].requires_grad_()
    build_objective("image_text_contrastive", sharp, SIZES)(given_, what).backward()
    assert given_["image"].grad.abs().max() < 0.01  # what the targets ask for is reached: nothing pulls equal texts apart


def test_all_texts_different_is_the_identity() -> None:
    given_, what = found(), replace(scene(), duplicates=torch.arange(B))
    shared = build_objective("image_text_contrastive", {}, SIZES)(given_, what)
    plain = build_objective("image_text_contrastive", {"duplicates_as_positives": False}, SIZES)(given_, what)
    assert shared.item() == pytest.approx(plain.item(), rel=1e-6)


def test_contradicted_negatives_leave_out_what_labels_do_not_settle() -> None:
    what = scene()
    objective = build_objective("sigmoid_pairwise", {"negatives": "contradicted", "duplicates_as_positives": False}, SIZES)
    agrees = objective.agrees(what, B)
    said = agreement(what.targets, what.targets, KIDNEY)
    off = ~np.eye(B, dtype=bool)
    assert (agrees.diagonal() == 1).all()
    assert np.array_equal(agrees.numpy()[off], said[off])
    assert set(said[off].tolist()) == {-1, 0}
    given_ = found()
    loss = objective(given_, what)
    image, text = given_["image"].double().numpy(), given_["text"].double().numpy()
    logits = 10 * image @ text.T - 10
    terms = np.where(agrees.numpy() == 1, np.logaddexp(0, -logits), np.logaddexp(0, logits))[agrees.numpy() >= 0]
    assert loss.item() == pytest.approx(terms.sum() / B, rel=1e-5)


def test_without_labels_own_and_equal_texts_stay_positive_and_the_rest_is_unknown() -> None:
    what = _scene(np.full((4, 3), -1, np.int8), [7, 8, 7, 9])
    agrees = build_objective("sigmoid_pairwise", {"negatives": "contradicted"}, SIZES).agrees(what, 4)
    assert agrees.tolist() == [[1, -1, 1, -1], [-1, 1, -1, -1], [1, -1, 1, -1], [-1, -1, -1, 1]]


def test_cosine_targets_fall_back_where_no_binary_attribute_is_known_even_if_others_are() -> None:
    what = _scene(np.array([[-1, -1, -1], [1, 0, 1], [1, 0, -1]], np.int8), [0, 1, 2])
    what.targets.classes[:] = 1
    options = {"targets": "label_similarity", "hard_weight": 0.0, "target_temperature": 1.0}
    forward, _ = build_objective("image_text_contrastive", {**options, "similarity": "cosine"}, SIZES).targets(what, CPU)
    assert forward[0].tolist() == [1, 0, 0]
    forward, _ = build_objective("image_text_contrastive", {**options, "similarity": "likeness"}, SIZES).targets(what, CPU)
    assert forward[0].tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(("mode", "start"), [("exp", 1 / 0.07), ("raw", math.log(1 / 0.07))])
def test_scale_starts_where_it_should_and_stays_in_bounds(mode: str, start: float) -> None:
    scale = Scale(1 / 0.07)
    assert scale(100.0, mode).item() == pytest.approx(start, rel=1e-6)
    for value, bound in ((9.0, math.log(100)), (-3.0, 0.0)):
        torch.nn.init.constant_(scale.log_scale, value)
        assert scale(100.0, mode).item() == pytest.approx(math.exp(bound) if mode == "exp" else bound, rel=1e-5)


def test_a_bound_lets_the_scale_come_back_but_not_go_further() -> None:
    scale = Scale(14.0)
    for value, towards, moves in ((9.0, -1, False), (9.0, 1, True), (-3.0, 1, False), (-3.0, -1, True), (2.0, 1, True)):
        torch.nn.init.constant_(scale.log_scale, value)
        scale.log_scale.grad = None
        (towards * scale(100.0)).backward()
        assert (scale.log_scale.grad != 0) == moves


def test_without_bounds_the_scale_goes_anywhere() -> None:
    scale = Scale(14.0)
    torch.nn.init.constant_(scale.log_scale, 6.0)
    assert scale().item() == pytest.approx(math.exp(6.0), rel=1e-6)
