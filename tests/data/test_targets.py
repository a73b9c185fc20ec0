"""Attribute arrays, and which statements agree with which regions, against plain loops."""

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from medvl.data.targets import OTHER_SIZE, SAME_SIZE, KindTargets, Targets, agreement, encode_labels, likeness

KIND = KindTargets(
    regions=("kidney_left", "kidney_right"),
    binary=("mass", "cyst", "stone"),
    classes={"pole": ("upper", "interpolar", "lower"), "grade": ("mild", "severe")},
    numbers={"mass_mm": (40.0, 20.0), "cyst_mm": (23.0, 10.0)},
)


def _rows(n: int, seed: int, silent: float = 0.6) -> list[dict[str, Any]]:
    """Random labels of which most are unknown in one of the ways the extractor says so."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        row: dict[str, Any] = {}
        for name in KIND.binary:
            row[name] = int(rng.choice([-1, 2])) if rng.random() < silent else int(rng.integers(2))
        for name, values in KIND.classes.items():
            row[name] = None if rng.random() < silent else values[int(rng.integers(len(values)))]
        for name in KIND.numbers:
            row[name] = None if rng.random() < silent else float(rng.choice([10.0, 11.0, 12.5, 14.0, 40.0]))
        rows.append(row)
    return rows


def test_labels_become_arrays() -> None:
    rows = [
        {"mass": 1, "cyst": 0, "stone": 2, "pole": "lower", "grade": None, "mass_mm": 60.0, "cyst_mm": None, "else": 5},
        {"mass": True, "cyst": -1, "pole": "elsewhere", "grade": "mild", "mass_mm": 0},
    ]
    found = encode_labels(rows, KIND)
    np.testing.assert_array_equal(found.binary, [[1, 0, -1], [1, -1, -1]])
    np.testing.assert_array_equal(found.classes, [[2, -1], [-1, 0]])
    np.testing.assert_array_equal(found.numbers, np.array([[1.0, np.nan], [-2.0, np.nan]], np.float32))
    assert [a.dtype for a in (found.binary, found.classes, found.numbers)] == [np.int8, np.int8, np.float32]
    assert len(found) == 2
    assert found[[1, 1, 0]].classes.tolist() == [[-1, 0], [-1, 0], [2, -1]]


def test_no_rows_and_a_kind_without_classes_and_numbers() -> None:
    empty = encode_labels([], KIND)
    assert (empty.binary.shape, empty.classes.shape, empty.numbers.shape) == ((0, 3), (0, 2), (0, 2))
    bare = KindTargets(regions=("chest",), binary=("a", "b"))
    found = encode_labels([{"a": 1}, {"b": 0}], bare)
    assert found.numbers.shape == (2, 0)
    np.testing.assert_array_equal(agreement(found, found, bare), [[1, -1], [-1, 1]])
    np.testing.assert_array_equal(likeness(found), np.eye(2))


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError):
        KindTargets.model_validate({"regions": ["x"], "binary": ["a"], "number": {}})


def _agrees(region: dict[str, Any], statement: dict[str, Any]) -> int:
    """One pair, straight from the labels."""
    said, borne_out = 0, 0
    for name in KIND.binary:
        if statement[name] in (0, 1):
            said += 1
            if region[name] in (0, 1):
                if region[name] != statement[name]:
                    return 0
                borne_out += 1
    for name in (*KIND.classes, *KIND.numbers):
        if statement[name] is not None:
            said += 1
            if region[name] is not None:
                if name in KIND.classes:
                    if region[name] != statement[name]:
                        return 0
                    borne_out += 1
                else:
                    ratio = max(region[name], statement[name]) / min(region[name], statement[name])
                    if ratio > OTHER_SIZE:
                        return 0
                    borne_out += ratio <= SAME_SIZE
    return 1 if said and borne_out == said else -1


def test_agreement_equals_a_loop_over_the_labels() -> None:
    regions, statements = _rows(40, 0, silent=0.35), _rows(60, 1, silent=0.75)
    found = agreement(encode_labels(regions, KIND), encode_labels(statements, KIND), KIND)
    expected = np.array([[_agrees(r, s) for s in statements] for r in regions])
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, expected)
    assert {v: bool((expected == v).sum() > 50) for v in (-1, 0, 1)} == {-1: True, 0: True, 1: True}


@pytest.mark.parametrize(
    ("region_mm", "said_mm", "expected"),
    [(30, 30, 1), (30, 33, 1), (33, 30, 1), (30, 36, -1), (36, 30, -1), (30, 40, 0), (40, 30, 0), (None, 30, -1), (30, None, -1)],
)
def test_sizes_agree_contradict_or_leave_open(region_mm: float | None, said_mm: float | None, expected: int) -> None:
    pair = [encode_labels([{"mass_mm": mm}], KIND) for mm in (region_mm, said_mm)]
    assert agreement(*pair, KIND).item() == expected


def test_one_contradiction_outweighs_any_agreement_and_silence_is_no_agreement() -> None:
    region = encode_labels([{"mass": 1, "cyst": 0, "mass_mm": 30.0}], KIND)
    for statement, expected in (
        ({"mass": 1, "cyst": 1, "mass_mm": 30.0}, 0),
        ({"mass": 1, "stone": 1}, -1),
        ({"mass": 1, "stone": 1, "cyst": 1}, 0),
        ({"mass": 1, "pole": "upper"}, -1),
        ({"mass": 2}, -1),
        ({}, -1),
    ):
        assert agreement(region, encode_labels([statement], KIND), KIND).item() == expected


def _alike(a: dict[str, Any], b: dict[str, Any]) -> float:
    points = []
    for name in KIND.binary:
        if a[name] in (0, 1) and b[name] in (0, 1):
            points.append(float(a[name] == b[name]))
    for name in KIND.classes:
        if a[name] is not None and b[name] is not None:
            points.append(float(a[name] == b[name]))
    for name, (_, spread) in KIND.numbers.items():
        if a[name] is not None and b[name] is not None:
            points.append(math.exp(-2 * ((a[name] - b[name]) / spread) ** 2))
    return sum(points) / len(points) if points else 0.0


def test_likeness_equals_a_loop_and_is_one_with_itself() -> None:
    rows = [*_rows(30, 2), {**dict.fromkeys(KIND.binary, -1), **dict.fromkeys([*KIND.classes, *KIND.numbers])}]
    found = likeness(encode_labels(rows, KIND))
    expected = np.array([[1.0 if i == j else _alike(a, b) for j, b in enumerate(rows)] for i, a in enumerate(rows)])
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-5)
    assert (found[-1, :-1] == 0).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert len(np.unique(found.round(3))) > 8


def test_likeness_leaves_the_targets_as_they_are() -> None:
    targets = encode_labels(_rows(6, 3), KIND)
    copies = [a.copy() for a in (targets.binary, targets.classes, targets.numbers)]
    likeness(targets)
    agreement(targets, targets, KIND)
    for before, after in zip(copies, (targets.binary, targets.classes, targets.numbers), strict=True):
        np.testing.assert_array_equal(before, after)
    assert isinstance(targets[2:4], Targets)
