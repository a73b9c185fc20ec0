"""What every objective promises: finite, silent about the unknown, its inputs unchanged, equal however a batch was computed."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scenes import CHEST, KIDNEY, SHARED, SIZES, A, B, F, L, S, found, leaves, rows, scene, targets
from torch import Tensor, nn

from medvl.data.targets import Targets
from medvl.errors import ConfigError
from medvl.objectives.registry import OBJECTIVES, Scene, build_objective

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "attributes": [{"form": "release"}],
    "image_text_contrastive": [
        {"targets": "label_similarity"},
        {"targets": "label_similarity", "similarity": "cosine", "hard_weight": 0.0, "transpose": "release"},
        {"scale_mode": "raw", "max_scale": None, "duplicates_as_positives": False},
    ],
    "sigmoid_pairwise": [{"negatives": "contradicted"}, {"duplicates_as_positives": False}],
    "prototype_contrastive": [{"form": "raw", "n_negatives": 40}, {"exclude_anatomies": [-1, 0], "exclude_findings": [1]}],
    "relation_prediction": [{"scale": "raw"}],
    "survival": [{"ties": "breslow", "hidden": 3}, {"form": "hazards", "cuts_days": [0, 500, 800]}],
}
CASES = [(name, options) for name in OBJECTIVES for options in [{}, *VARIANTS.get(name, [])]]
every = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Layers of the objectives start the same in every run."""
    torch.manual_seed(0)


def fresh(what: Scene) -> Scene:
    """The scene with its generator as at the start, so that what is sampled is sampled again."""
    return replace(what, generator=torch.Generator().manual_seed(1))


def run(objective: nn.Module, given: Mapping[str, Tensor], what: Scene) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and the gradients of every representation that it reached."""
    loss = objective(given, fresh(what))
    loss.backward()
    return loss.detach(), {k: v.grad for k, v in given.items() if v.grad is not None}


@every
def test_each_reaches_all_that_it_needs_and_nothing_else(name: str, options: dict) -> None:
    objective = build_objective(name, options, SIZES)
    loss, gradients = run(objective, leaves(found()), scene())
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss > 0
    assert set(gradients) == set(objective.needs) - {"reconstruction_target", "text_mask"}
    assert all((g != 0).any() for g in gradients.values())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [200.0, -200.0])
def test_logits_of_200_stay_finite(name: str, options: dict, dtype: torch.dtype, size: float) -> None:
    objective = build_objective(name, options, SIZES)
    if hasattr(objective, "scale"):
        if hasattr(objective.options, "max_scale"):
            objective.options = objective.options.model_copy(update={"max_scale": None})
        raw = getattr(objective.options, "scale_mode", "exp") == "raw"
        nn.init.constant_(objective.scale.log_scale, 200.0 if raw else np.log(200.0))
    given = found(size=size)
    given["text"] = np.sign(size) * given["image"]
    given["statements"] = np.sign(size) * given["image"].repeat(2, 1)[:S]
    loss, gradients = run(objective, leaves(given, dtype), scene())
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients.values())
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters() if p.grad is not None)


@every
def test_autocast_leaves_comparisons_in_full_precision(name: str, options: dict) -> None:
    objective = build_objective(name, options, SIZES)
    with torch.no_grad():
        plain = objective(found(), fresh(scene()))
        with torch.autocast("cpu", torch.bfloat16):
            cast = objective(found(), fresh(scene()))
    assert torch.allclose(plain, cast, rtol=0.02 if "attributes" in name else 1e-6)


@every
def test_one_sample_and_no_label_at_all_are_finite(name: str, options: dict) -> None:
    objective = build_objective(name, options, SIZES)
    for what in (scene(1), unknown(scene(3))):
        loss, gradients = run(objective, leaves(found(len(what.targets))), what)
        assert torch.isfinite(loss)
        assert all(torch.isfinite(g).all() for g in gradients.values())


def unknown(what: Scene) -> Scene:
    """The scene with nothing known of any sample."""
    values = Targets(
        np.full_like(what.targets.binary, -1), np.full_like(what.targets.classes, -1), np.full_like(what.targets.numbers, np.nan)
    )
    assert what.relations is not None
    return replace(what, targets=values, relations=torch.full_like(what.relations, -1))


@every
def test_batches_are_never_changed(name: str, options: dict) -> None:
    given, what = found(), scene()
    before = {k: v.clone() for k, v in given.items()}, copy.deepcopy({**vars(what), "generator": None})
    objective = build_objective(name, options, SIZES)
    state = {k: v.clone() for k, v in objective.state_dict().items()}
    run(objective, {k: v.requires_grad_() if v.is_floating_point() else v for k, v in given.items()}, what)
    assert all(torch.equal(v, before[0][k]) for k, v in given.items())
    for key, value in before[1].items():
        now = getattr(what, key)
        if isinstance(value, Tensor):
            torch.testing.assert_close(now, value, rtol=0, atol=0, equal_nan=True, msg=key)
        elif isinstance(value, Targets):
            assert all(np.array_equal(getattr(now, f), v, equal_nan=v.dtype.kind == "f") for f, v in vars(value).items()), key
    assert all(torch.equal(v, state[k]) for k, v in objective.state_dict().items())


@every
def test_order_of_samples_does_not_matter(name: str, options: dict) -> None:
    if name == "prototype_contrastive":
        options = {**options, "n_negatives": A}
    objective, order = build_objective(name, options, SIZES), torch.tensor([3, 0, 5, 1, 4, 2])
    given, what = found(), scene()
    turned = {k: v if k in SHARED else v[order] for k, v in given.items()}
    with torch.no_grad():
        assert torch.allclose(objective(given, fresh(what)), objective(turned, rows(what, order)), rtol=1e-5)


@every
def test_gradients_through_pieces_equal_those_of_the_whole_batch(name: str, options: dict) -> None:
    """Represent in three pieces, compare the gathered values once, and send each piece its share of the gradient."""
    objective, what, width = build_objective(name, options, SIZES), scene(), 9
    torch_rng = torch.Generator().manual_seed(5)
    inputs = torch.randn(B, width, generator=torch_rng)
    shapes = {k: v.shape[1:] for k, v in found().items() if k in objective.needs and k not in ("text_mask", *SHARED)}
    tower = {k: torch.randn(width, int(np.prod(s)), generator=torch_rng) for k, s in shapes.items()}
    fixed = {k: v for k, v in found().items() if k in ("text_mask", *SHARED)}

    def represent(part: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raw = {k: (part @ weights[k]).unflatten(1, s) if len(s) > 1 else part @ weights[k] for k, s in shapes.items()}
        return {k: nn.functional.normalize(v, dim=-1) if k in ("image", "text") or "_tokens" in k else v for k, v in raw.items()}

    whole = {k: v.clone().requires_grad_() for k, v in tower.items()}
    objective({**represent(inputs, whole), **fixed}, fresh(what)).backward()

    pieced = {k: v.clone().requires_grad_() for k, v in tower.items()}
    with torch.no_grad():
        parts = [represent(piece, pieced) for piece in inputs.split([1, 3, 2])]
    gathered = {k: torch.cat([p[k] for p in parts]).requires_grad_() for k in shapes}
    objective({**gathered, **fixed}, fresh(what)).backward()
    for number, piece in enumerate(inputs.split([1, 3, 2])):
        again = represent(piece, pieced)
        shares = [gathered[k].grad for k in shapes if gathered[k].grad is not None]
        keys = [k for k in shapes if gathered[k].grad is not None]
        torch.autograd.backward([again[k] for k in keys], [g.split([1, 3, 2])[number] for g in shares])
    for k, values in whole.items():
        if values.grad is not None:
            assert torch.allclose(values.grad, pieced[k].grad, rtol=1e-4, atol=1e-5 * values.grad.abs().max().item()), k


@pytest.mark.parametrize("name", ["existence", "relation_prediction", "prototype_contrastive"])
def test_unmentioned_relations_are_never_taken_for_absent_or_present(name: str) -> None:
    """A finding that no anatomy mentions has no gradient, and its representation does not reach the loss."""
    what = scene()
    assert what.relations is not None
    what.relations[:, :, 2] = -1
    objective = build_objective(name, {"n_negatives": A} if name == "prototype_contrastive" else {}, SIZES)
    stream = next(need for need in objective.needs if need.startswith("finding"))
    _, gradients = run(objective, leaves(found()), what)
    assert (gradients[stream][:, 2] == 0).all()
    assert (gradients[stream][:, [0, 1, 3]] != 0).any()


@pytest.mark.parametrize("options", [{}, {"form": "release"}])
def test_unknown_attributes_pull_no_head(options: dict) -> None:
    objective, what = build_objective("attributes", options, SIZES), scene()
    what.targets.binary[:, 1] = -1
    what.targets.classes[:, 0] = -1
    objective(found(), what).backward()
    heads = objective.heads["kidney"]
    gradient = heads.linear.weight.grad
    cut = slice(2, 4) if options else slice(1, 2)
    start = 6 if options else 3
    assert (gradient[cut] == 0).all()
    assert (gradient[start : start + 3] == 0).all()
    assert (gradient[start + 3 : start + 5] != 0).any()


def test_heads_of_one_kind_learn_from_it_alone() -> None:
    objective = build_objective("attributes", {}, SIZES)
    assert list(objective.heads) == ["kidney", "chest"]
    what = replace(scene(), kind="chest", targets=targets(B, 3, CHEST))
    objective(found(), what).backward()
    assert objective.heads["kidney"].linear.weight.grad is None
    assert objective.heads["chest"].linear.weight.grad.abs().sum() > 0
    binary, *classes, numbers = objective.heads["kidney"](found()["pooled"])
    assert [tuple(v.shape) for v in (binary, *classes, numbers)] == [(B, 3), (B, 3), (B, 2), (B, 1)]
    binary, *classes, numbers = build_objective("attributes", {"form": "release"}, SIZES).heads["kidney"](found()["pooled"])
    assert [tuple(v.shape) for v in (binary, *classes, numbers)] == [(B, 3), (B, 3), (B, 2), (B, 0)]


@pytest.mark.parametrize(
    ("name", "options", "missing", "message"),
    [
        ("assertions", {}, "statements", "no statements"),
        ("marks", {}, "marks", "no marks of kidney"),
        ("existence", {}, "relations", "no relations"),
        ("relation_prediction", {}, "relations", "no relations"),
        ("prototype_contrastive", {}, "relations", "no relations"),
        ("prototype_contrastive", {}, "concepts", "lacks a generator or the banks"),
        ("prototype_contrastive", {}, "generator", "lacks a generator"),
        ("image_text_contrastive", {}, "duplicates", "duplicates_as_positives: false"),
        ("sigmoid_pairwise", {}, "duplicates", "duplicates_as_positives: false"),
    ],
)
def test_what_a_scene_lacks_is_said(name: str, options: dict, missing: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_objective(name, options, SIZES)(found(), replace(scene(), **{missing: None}))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("image_text_contrastive", {"target_temperature": 0}, "target_temperature"),
        ("image_text_contrastive", {"hard_weight": 1.5}, "hard_weight"),
        ("image_text_contrastive", {"scale_mode": "log"}, "scale_mode"),
        ("prototype_contrastive", {"n_negatives": 0}, "n_negatives"),
        ("attributes", {"foam": "release"}, "foam"),
    ],
)
def test_options_that_make_no_sense_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_objective(name, options, SIZES)


def test_heads_cannot_change_their_form_between_stages() -> None:
    objective = build_objective("attributes", {}, SIZES)
    objective.options = build_objective("attributes", {"form": "release"}, SIZES).options
    with pytest.raises(ConfigError, match="another form than release"):
        objective(found(), scene())


def test_marks_on_another_grid_are_refused_and_kinds_without_marks_give_nothing() -> None:
    objective, what = build_objective("marks", {}, SIZES), scene()
    with pytest.raises(ConfigError, match=rf"{L} cells|\({B}, {L}, 2\), its marks need \({B}, 6, 2\)"):
        objective(found(), replace(what, marks=torch.zeros(B, 1, 2, 3, dtype=torch.uint8)))
    given = leaves(found())
    loss, gradients = run(objective, given, replace(what, kind="chest", marks=None))
    assert loss == 0
    assert (gradients["marks"] == 0).all()


def test_an_excluded_concept_that_is_none_is_refused() -> None:
    objective = build_objective("prototype_contrastive", {"exclude_findings": [F]}, SIZES)
    with pytest.raises(ConfigError, match=f"cannot exclude .* of {F} concepts"):
        objective(found(), scene())


def test_names_of_kinds_and_their_attributes_fit_the_tests() -> None:
    assert len(set(KIDNEY.marks)) == 2
    assert set(VARIANTS) <= set(OBJECTIVES)
