"""Every faithful switch against a re-implementation of the release's equations in plain loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from references import cardiac_clip, medslip, renalclip
from scenes import KIDNEY, SIZES, B, H, found, scene
from scipy.special import log_softmax
from torch.nn import functional

from medvl.data.targets import agreement
from medvl.objectives.anatomy_finding import draw_negatives
from medvl.objectives.attributes import AttributeHeads
from medvl.objectives.balance import balance, balanced_cross_entropy
from medvl.objectives.registry import build_objective


def test_release_attributes_are_one_softmax_each_with_an_unweighted_sum() -> None:
    objective, given, known = build_objective("attributes", {"form": "release"}, SIZES), found(), scene()
    heads = objective.heads["kidney"]
    assert isinstance(heads, AttributeHeads)
    assert heads.sizes == [6, 3, 2, 0]
    raw = heads.linear(given["pooled"]).detach().numpy().astype(float)
    logits = [raw[:, 2 * k : 2 * k + 2].tolist() for k in range(3)] + [raw[:, 6:9].tolist(), raw[:, 9:11].tolist()]
    labels = np.concatenate([known.targets.binary, known.targets.classes], 1).tolist()
    expected = renalclip.attribute_classification(logits, labels)
    assert objective(given, known).item() == pytest.approx(expected, rel=1e-5)
    assert build_objective("attributes", {}, SIZES)(given, known).item() != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(("mode", "multiplier"), [("raw", math.log(1 / 0.07)), ("exp", 1 / 0.07)])
def test_identity_contrast_multiplies_by_the_raw_or_the_exponentiated_scale(mode: str, multiplier: float) -> None:
    given = found()
    objective = build_objective("image_text_contrastive", {"scale_mode": mode, "duplicates_as_positives": False}, SIZES)
    expected = renalclip.contrastive(given["image"].double().numpy(), given["text"].double().numpy(), multiplier)
    assert objective(given, scene()).item() == pytest.approx(expected, rel=1e-5)


RELEASED = {
    "targets": "label_similarity",
    "similarity": "cosine",
    "target_temperature": 1.0,
    "hard_weight": 0.0,
    "duplicates_as_positives": False,
    "transpose": "release",
    "scale_mode": "raw",
    "max_scale": None,
}


def test_cardiac_release_uses_the_transposed_targets_and_the_raw_scale() -> None:
    given, known = found(16), scene(16, seed=4)
    known.targets.binary[(known.targets.binary < 0).all(1), 0] = 1
    vectors = [[{1: 1, 0: -1, -1: 0}[int(v)] for v in row] for row in known.targets.binary]
    image, text = given["image"].double().numpy(), given["text"].double().numpy()
    expected = cardiac_clip.contrastive(image, text, vectors, math.log(1 / 0.07))
    assert build_objective("image_text_contrastive", RELEASED, SIZES)(given, known).item() == pytest.approx(expected, rel=1e-5)
    columns = np.array(cardiac_clip.row_softmax_targets(vectors)).sum(0)
    assert columns.min() < 0.98
    assert columns.max() > 1.02
    correct = build_objective("image_text_contrastive", {**RELEASED, "transpose": "correct"}, SIZES)
    assert correct(given, known).item() != pytest.approx(expected, rel=1e-4)


def test_masked_image_modeling_is_the_mean_over_hidden_patches_of_the_mean_over_voxels() -> None:
    rng = np.random.default_rng(0)
    whole, target = rng.normal(size=(B, 20, 8)), rng.normal(size=(B, 20, 8))
    hidden = np.argsort(rng.random((B, 20)), axis=1) < 15
    given = {
        "reconstruction": torch.tensor(whole[hidden].reshape(B, 15, 8)),
        "reconstruction_target": torch.tensor(target[hidden].reshape(B, 15, 8)),
    }
    expected = cardiac_clip.reconstruction(whole, target, hidden)
    assert build_objective("masked_image_modeling", {}, SIZES)(given, scene()).item() == pytest.approx(expected, rel=1e-6)


def test_existence_equals_the_loop() -> None:
    given, known = found(), scene()
    assert known.relations is not None
    known.relations[0, :, 1] = -1
    known.relations[1, 2, :] = -1
    expected = medslip.existence(given["finding_logits"].numpy(), given["anatomy_logits"].numpy(), known.relations.numpy())
    assert build_objective("existence", {}, SIZES)(given, known).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("scale", "divisor"), [("raw", 1.0), ("root_width", math.sqrt(H))])
def test_relation_prediction_equals_the_loop(scale: str, divisor: float) -> None:
    given, known = found(), scene()
    assert known.relations is not None
    states = (given[name].double().numpy() for name in ("anatomy_states", "finding_states"))
    expected = medslip.link_prediction(*states, known.relations.numpy(), divisor)
    assert build_objective("relation_prediction", {"scale": scale}, SIZES)(given, known).item() == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize(
    ("options", "measure"), [({"form": "raw"}, medslip.dot), ({}, medslip.cosine_over(0.1)), ({"n_negatives": 2}, None)]
)
def test_prototype_contrast_equals_the_loop(options: dict, measure: object) -> None:
    """Same negatives in both: the objective draws from a generator that the loop replays."""
    given, known = found(), scene()
    assert known.relations is not None
    assert known.concepts is not None
    present = known.relations == 1
    replay = torch.Generator().manual_seed(1)
    n_negatives, expected = options.get("n_negatives", 7), 0.0
    for stream, bank, turned in (
        ("finding_prototype", "anatomies", present),
        ("anatomy_prototype", "findings", present.transpose(1, 2)),
    ):
        drawn = draw_negatives(~turned.transpose(1, 2), n_negatives, replay).numpy()
        terms = medslip.prototype_terms(
            given[stream].double().numpy(),
            known.concepts[bank].double().numpy(),
            np.where(turned.numpy(), 1, 0),
            lambda b, q, drawn=drawn: np.flatnonzero(drawn[b, q]).tolist(),
            measure or medslip.cosine_over(0.1),
        )
        assert len(terms) > 5
        expected += sum(terms) / len(terms)
    again = replace(known, generator=torch.Generator().manual_seed(1))
    assert build_objective("prototype_contrastive", options, SIZES)(given, again).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("how", "switches", "share"),
    [("none", (0, 0), 0.2), ("loss", (0, 1), 0.5), ("sampler", (1, 0), 0.5), ("double_balancing", (1, 1), 0.8)],
)
def test_share_of_the_minority_at_80_to_320(how: str, switches: tuple[int, int], share: float) -> None:
    labels = torch.tensor([0] * 80 + [1] * 320)[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    made = balance(labels, 2, how)  # type: ignore[arg-type]
    weights = torch.ones(2) if made.weights is None else made.weights
    mass = [float(made.draw[labels == c].sum() * weights[c]) for c in (0, 1)]
    assert mass[0] / sum(mass) == pytest.approx(share, rel=1e-6)
    assert renalclip.minority_share((80, 320), *switches) == pytest.approx(share)


def test_double_balancing_divides_by_the_number_of_samples() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(10, 2)), rng.integers(0, 2, 10)
    made = balance(torch.tensor([0] * 80 + [1] * 320), 2, "double_balancing")
    expected = renalclip.weighted_per_sample(logits.tolist(), labels.tolist(), [1 / 80, 1 / 320])
    assert balanced_cross_entropy(torch.tensor(logits), torch.tensor(labels), made).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("duplicates", [False, True])
def test_sigmoid_pairs_equal_the_published_equation(duplicates: bool) -> None:
    given, known = found(), scene()
    assert known.duplicates is not None
    logits = 10 * given["image"].double().numpy() @ given["text"].double().numpy().T - 10
    total = 0.0
    for i in range(B):
        for j in range(B):
            same = i == j or (duplicates and known.duplicates[i] == known.duplicates[j])
            total += math.log1p(math.exp(-logits[i, j])) if same else math.log1p(math.exp(logits[i, j]))
    objective = build_objective("sigmoid_pairwise", {"duplicates_as_positives": duplicates}, SIZES)
    assert objective(given, known).item() == pytest.approx(total / B, rel=1e-5)


def test_default_attributes_equal_a_loop_over_binary_classes_and_numbers() -> None:
    objective, given, known = build_objective("attributes", {}, SIZES), found(), scene()
    raw = objective.heads["kidney"].linear(given["pooled"]).detach().numpy().astype(float)
    truth = known.targets
    binary = [
        np.logaddexp(0, (1 - 2 * truth.binary[b, k]) * raw[b, k]) for b in range(B) for k in range(3) if truth.binary[b, k] >= 0
    ]
    expected, start = np.mean(binary), len(KIDNEY.binary)
    for k, values in enumerate(KIDNEY.classes.values()):
        part = log_softmax(raw[:, start : start + len(values)], axis=1)
        expected += 0.3 * np.mean([-part[b, truth.classes[b, k]] for b in range(B) if truth.classes[b, k] >= 0])
        start += len(values)
    gaps = np.abs(raw[:, start:] - truth.numbers)[np.isfinite(truth.numbers)]
    expected += 0.5 * np.mean(np.where(gaps < 1, gaps**2 / 2, gaps - 0.5))
    assert objective(given, known).item() == pytest.approx(expected, rel=1e-5)


def test_marks_equal_a_loop_that_weighs_marked_cells() -> None:
    given, known = found(), scene()
    assert known.marks is not None
    cells, terms = known.marks.reshape(B, -1).numpy(), []
    for k in range(2):
        bits = (cells // 2**k) % 2
        weight = min(max(0.25 / min(max(bits.mean(), 1e-4), 0.5), 1.0), 12.0)
        z = given["marks"][..., k].double().numpy()
        each = np.where(bits == 1, weight * np.logaddexp(0, -z), np.logaddexp(0, z))
        terms.append(each.sum() / (weight * bits.sum() + 12.0))
    assert build_objective("marks", {}, SIZES)(given, known).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_assertions_start_where_the_demo_model_started() -> None:
    objective = build_objective("assertions", {}, SIZES)
    assert objective.scale.log_scale.item() == pytest.approx(2.3)
    assert objective.bias.item() == -2.0
    given = found()
    same = functional.cosine_similarity(given["image"][:, None], given["statements"][None], dim=-1).double().numpy()
    known = scene()
    assert known.statements is not None
    agrees = agreement(known.targets, known.statements, KIDNEY)
    logits = math.exp(2.3) * same - 2.0
    terms = [np.logaddexp(0, -logits)[agrees == 1].mean(), np.logaddexp(0, logits)[agrees == 0].mean()]
    assert objective(given, known).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_what_is_to_be_reconstructed_takes_no_gradient() -> None:
    given = {k: v.requires_grad_() for k, v in found().items() if k.startswith("reconstruction")}
    build_objective("masked_image_modeling", {}, SIZES)(given, scene()).backward()
    assert given["reconstruction"].grad is not None
    assert given["reconstruction_target"].grad is None
