"""Existence, prototypes and negatives where counting by hand is possible."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from references import medslip
from scenes import SIZES, A, C, F, found, leaves, scene

from medvl.objectives.anatomy_finding import draw_negatives, existence_labels, prototype_contrast
from medvl.objectives.registry import build_objective


@given(hnp.arrays(np.int8, (2, 3, 4), elements=st.integers(-1, 1)))
def test_existence_is_present_if_anywhere_then_absent_if_anywhere_then_unknown(relations: np.ndarray) -> None:
    findings, anatomies = existence_labels(torch.tensor(relations))

    def of(seen: list[int]) -> int:
        return 1 if 1 in seen else 0 if 0 in seen else -1

    assert findings.tolist() == [[of(relations[b, :, f].tolist()) for f in range(4)] for b in range(2)]
    assert anatomies.tolist() == [[of(relations[b, a].tolist()) for a in range(3)] for b in range(2)]


def test_negatives_are_uniform_without_replacement_and_never_other_than_candidates() -> None:
    candidates = torch.tensor([True, False, True, True, False, True, True]).expand(30000, 7)
    drawn = draw_negatives(candidates, 2, torch.Generator().manual_seed(0))
    assert (drawn.sum(1) == 2).all()
    assert not drawn[:, [1, 4]].any()
    share = drawn.float().mean(0)[[0, 2, 3, 5, 6]]
    assert torch.allclose(share, torch.full((5,), 2 / 5), atol=4 * math.sqrt(0.24 / 30000))
    pairs = {tuple(row.nonzero().flatten().tolist()) for row in drawn[:500]}
    assert len(pairs) == 10


@pytest.mark.parametrize("n", [5, 6, 50])
def test_where_fewer_negatives_exist_all_are_taken(n: int) -> None:
    candidates = torch.tensor([[True, False, True, True, False, True, True], [False] * 7])
    assert torch.equal(draw_negatives(candidates, n, torch.Generator().manual_seed(0)), candidates)


def test_the_same_seed_draws_the_same_negatives_and_another_seed_others() -> None:
    objective, given_, what = build_objective("prototype_contrastive", {}, SIZES), found(), scene()
    values = [objective(given_, replace(what, generator=torch.Generator().manual_seed(s))).item() for s in (7, 7, 8)]
    assert values[0] == values[1] != values[2]


@settings(max_examples=25, deadline=None)
@given(relations=hnp.arrays(np.int8, (2, 5, 3), elements=st.integers(-1, 1)), raw=st.booleans(), seed=st.integers(0, 99))
def test_prototypes_by_einsum_equal_the_loop_for_any_relations(relations: np.ndarray, raw: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, bank = rng.normal(size=(2, 3, 4)), rng.normal(size=(5, 4))
    present = torch.tensor(relations == 1).transpose(1, 2)
    terms = medslip.prototype_terms(
        queries,
        bank,
        relations,
        lambda b, q: np.flatnonzero(relations[b, :, q] != 1).tolist(),
        medslip.dot if raw else medslip.cosine_over(0.3),
    )
    loss = prototype_contrast(torch.tensor(queries), torch.tensor(bank), present, ~present, None if raw else 0.3)
    assert loss.item() == pytest.approx(sum(terms) / len(terms) if terms else 0.0, rel=1e-4, abs=1e-6)


def test_a_query_at_every_anatomy_has_no_negative_and_does_not_count() -> None:
    what, given_ = scene(), leaves(found())
    assert what.relations is not None
    what.relations[0, :, 1] = 1
    build_objective("prototype_contrastive", {"n_negatives": A}, SIZES)(given_, what).backward()
    gradient = given_["finding_prototype"].grad
    assert (gradient[0, 1] == 0).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("numbers", [[-1, 0], [12, -13]])
def test_excluded_concepts_are_neither_prototype_nor_negative_nor_query(numbers: list[int]) -> None:
    what, options = scene(), {"n_negatives": A, "exclude_anatomies": numbers, "exclude_findings": [2]}
    assert what.relations is not None
    assert what.concepts is not None
    given_ = leaves(found())
    loss = build_objective("prototype_contrastive", options, SIZES)(given_, what)
    loss.backward()
    places, names = list(range(1, A - 1)), [0, 1, 3]
    less = replace(
        what,
        relations=what.relations[:, places][:, :, names],
        concepts={"anatomies": what.concepts["anatomies"][places], "findings": what.concepts["findings"][names]},
    )
    small = {
        "finding_prototype": given_["finding_prototype"][:, names],
        "anatomy_prototype": given_["anatomy_prototype"][:, places],
    }
    expected = build_objective("prototype_contrastive", {"n_negatives": A}, SIZES)(small, less)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (given_["finding_prototype"].grad[:, 2] == 0).all()
    assert (given_["anatomy_prototype"].grad[:, [0, A - 1]] == 0).all()


def test_cosines_do_not_grow_with_the_length_of_queries_but_raw_products_do() -> None:
    what = scene()
    for form, changes in (("cosine", False), ("raw", True)):
        objective = build_objective("prototype_contrastive", {"form": form, "n_negatives": A}, SIZES)
        short, long = ({k: v * size for k, v in found().items() if "prototype" in k} for size in (1.0, 3.0))
        assert (objective(short, what).item() != pytest.approx(objective(long, what).item(), rel=1e-4)) == changes


def test_sizes_of_the_scene_differ_so_that_no_axis_can_be_confused() -> None:
    assert len({A, F, C}) == 3
