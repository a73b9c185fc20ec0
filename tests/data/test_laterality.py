"""Left and right change places with the image, and never come to stand for each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medvl.data.laterality import mirror_order, mirrored, swap_sides, swap_targets
from medvl.data.targets import KindTargets, Targets, encode_labels

ANATOMIES = ("aorta", "kidney_left", "left lower lobe", "kidney_right", "right lower lobe", "right middle lobe")
FINDINGS = ("mass", "pleural_effusion_right", "pleural_effusion_left")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("kidney_left", "kidney_right"),
        ("kidney_right", "kidney_left"),
        ("left lower lobe", "right lower lobe"),
        ("lobe|left|lower", "lobe|right|lower"),
        ("Right Atrium", "Left Atrium"),
        ("LEFT", "RIGHT"),
        ("left-to-right shunt", "right-to-left shunt"),
        ("aorta", "aorta"),
        ("cleft", "cleft"),
        ("leftover", "leftover"),
        ("bright_band", "bright_band"),
        ("left2", "left2"),
    ],
)
def test_only_whole_words_are_mirrored(name: str, other: str) -> None:
    assert mirrored(name) == other
    assert mirrored(other) == name


def test_order_names_the_counterpart_or_says_there_is_none() -> None:
    assert mirror_order(ANATOMIES).tolist() == [0, 3, 4, 1, 2, -1]
    assert mirror_order(FINDINGS).tolist() == [0, 2, 1]
    assert mirror_order(()).tolist() == []


@given(hnp.arrays(np.int8, st.tuples(st.integers(0, 3), st.just(5), st.just(3)), elements=st.integers(-1, 1)))
def test_swapping_twice_changes_nothing_when_every_side_has_its_other(relations: np.ndarray) -> None:
    before = relations.copy()
    once = swap_sides(relations, ANATOMIES[:5], FINDINGS)
    assert np.array_equal(swap_sides(once, ANATOMIES[:5], FINDINGS), relations)
    assert np.array_equal(relations, before)
    assert sorted(once.ravel()) == sorted(relations.ravel())


def test_a_cell_moves_in_both_directions_at_once() -> None:
    relations = np.full((2, 6, 3), -1, np.int8)
    relations[0, 1, 1] = 1  # right effusion at the left kidney: nonsense, but it shows both moves
    relations[1, 0, 2] = 0
    swapped = swap_sides(relations, ANATOMIES, FINDINGS)
    assert swapped[0, 3, 2] == 1
    assert swapped[1, 0, 1] == 0
    assert (swapped >= 0).sum() == 2
    assert np.array_equal(swap_sides(relations[0], ANATOMIES, FINDINGS), swapped[0])


def test_what_has_no_counterpart_becomes_unknown_and_nothing_lands_on_it() -> None:
    relations = np.ones((1, 6, 3), np.int8)
    swapped = swap_sides(relations, ANATOMIES, FINDINGS)
    assert (swapped[:, 5] == -1).all()
    assert (swapped[:, :5] == 1).all()


KIND = KindTargets(
    regions=("chest",),
    binary=("cardiomegaly", "effusion_left", "effusion_right", "stent_left"),
    classes={
        "arch": ("left", "right", "double"),
        "grade_left": ("mild", "severe"),
        "grade_right": ("severe", "mild", "moderate"),
    },
    numbers={"aorta_mm": (36.0, 7.0), "width_left_mm": (20.0, 4.0), "width_right_mm": (30.0, 5.0)},
)


def test_attributes_change_sides_with_their_class_names_and_scales() -> None:
    row = {
        "cardiomegaly": 1,
        "effusion_left": 1,
        "effusion_right": 0,
        "stent_left": 1,
        "arch": "left",
        "grade_left": "mild",
        "aorta_mm": 43.0,
        "width_left_mm": 24.0,
    }
    turned = {
        "cardiomegaly": 1,
        "effusion_left": 0,
        "effusion_right": 1,
        "arch": "right",
        "grade_right": "mild",
        "aorta_mm": 43.0,
        "width_right_mm": 24.0,
    }
    found, expected = swap_targets(encode_labels([row], KIND), KIND), encode_labels([turned], KIND)
    assert found.binary.tolist() == expected.binary.tolist() == [[1, 0, 1, -1]]
    assert found.classes.tolist() == expected.classes.tolist()
    assert np.allclose(found.numbers, expected.numbers, atol=1e-6, equal_nan=True)
    assert [found.binary.dtype, found.classes.dtype, found.numbers.dtype] == [np.int8, np.int8, np.float32]


def test_a_class_that_the_other_side_does_not_have_becomes_unknown() -> None:
    found = swap_targets(encode_labels([{"grade_right": "moderate"}, {"grade_right": "severe"}, {}], KIND), KIND)
    assert found.classes[:, 1].tolist() == [-1, 1, -1]


@given(st.integers(0, 2**32 - 1))
def test_attributes_swapped_twice_are_as_before(seed: int) -> None:
    kind = KindTargets(
        regions=("chest",),
        binary=KIND.binary[:3],
        classes={"arch": KIND.classes["arch"], "grade_left": ("mild", "severe"), "grade_right": ("severe", "mild")},
        numbers=KIND.numbers,
    )
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(4, 3)).astype(np.float32)
    numbers[rng.random((4, 3)) < 0.3] = np.nan
    before = Targets(rng.integers(-1, 2, (4, 3)).astype(np.int8), rng.integers(-1, 2, (4, 3)).astype(np.int8), numbers)
    kept = Targets(before.binary.copy(), before.classes.copy(), before.numbers.copy())
    again = swap_targets(swap_targets(before, kind), kind)
    for name in ("binary", "classes"):
        assert np.array_equal(getattr(again, name), getattr(before, name))
        assert np.array_equal(getattr(kept, name), getattr(before, name))
    assert np.allclose(again.numbers, before.numbers, atol=1e-5, equal_nan=True)


def test_kinds_without_attributes_of_a_sort_are_fine() -> None:
    kind = KindTargets(regions=("chest",), binary=())
    empty = encode_labels([{}, {}], kind)
    assert swap_targets(empty, kind).binary.shape == (2, 0)
