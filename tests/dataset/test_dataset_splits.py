"""Splits are by patient, and pairs that may be one patient are found and kept together or told."""

import numpy as np
import pytest
from dataset_files import MASS, NORMAL, body

from medvl.dataset.labels import settled
from medvl.dataset.leaks import Facts, Pair, find_pairs
from medvl.dataset.likeness import near_pairs, picture, unpacked
from medvl.dataset.splits import Who, assign
from medvl.geometry import Geometry
from medvl.imaging.phantom.write import split_of

LONG = "FINDINGS: " + " ".join(f"word{k} stands {k} mm from landmark{k}." for k in range(12))


def _facts(patient: str, seed: int, report: str = "", accession: str = "") -> Facts:
    hu = body(seed)
    return Facts(patient, accession, str(seed), picture(hu, Geometry.centered((0, 0, 0), hu.shape, (4, 4, 4))), report)  # type: ignore[arg-type]


def test_pairs_by_accession_image_and_report() -> None:
    cases = [
        _facts("A", 1, LONG, "77"),
        _facts("B", 2, LONG + " And more."),
        _facts("C", 1),
        _facts("D", 4, NORMAL, "77"),
        _facts("A", 1),
    ]
    found = {(p.first, p.second, p.kind) for p in find_pairs(cases)}
    assert found == {(0, 1, "report"), (0, 2, "image"), (0, 3, "accession"), (2, 4, "image")}


def test_boilerplate_that_many_share_is_no_pair() -> None:
    assert find_pairs([_facts(f"P{k}", k, LONG) for k in range(8)]) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_same_body_is_known_again_and_another_is_not(seed: int) -> None:
    hu = body(seed, (48, 64, 64))
    grid = Geometry.centered((0, 0, 0), hu.shape, (2, 4, 4))  # type: ignore[arg-type]
    flipped = Geometry(grid.shape_dhw, grid.affine_lps @ np.diag([-1.0, 1, 1, 1]))
    noisy = (hu + np.random.default_rng(1).normal(0, 25, hu.shape)).astype(np.int16)
    thick = hu.reshape(24, 2, 64, 64).mean(1).astype(np.int16)
    thick_grid = Geometry.centered((0, 0, 0), thick.shape, (4, 4, 4))  # type: ignore[arg-type]
    other = body(seed + 50, (48, 64, 64))
    made = [picture(hu, grid), picture(hu[::-1], flipped), picture(noisy, grid), picture(thick, thick_grid), picture(other, grid)]
    found = {(i, j) for i, j, _ in near_pairs(np.stack([unpacked(text) for text in made]), 0.975)}
    assert found == {(i, j) for i in range(4) for j in range(i + 1, 4)}


def test_drawn_splits_keep_pairs_together_and_move_nobody_else() -> None:
    cases = [Who(f"P{k}", "", "") for k in range(40)]
    plain = assign(cases, [], seed=3)
    assert plain.of == tuple(split_of(3, case.patient) for case in cases)
    apart = next(k for k in range(1, 40) if plain.of[k] != plain.of[0])
    joined = assign(cases, [Pair(0, apart, "image", 1.0)], seed=3)
    assert joined.of[0] == joined.of[apart]
    assert sum(a != b for a, b in zip(plain.of, joined.of, strict=True)) == 1


def test_given_splits_stay_unless_joined() -> None:
    cases = [Who("A", "train", ""), Who("B", "test", ""), Who("C", "validation", ""), Who("C", "", "")]
    pairs = [Pair(0, 1, "report", 0.9)]
    assert assign(cases, pairs).of == ("train", "test", "validation", "validation")
    joined = assign(cases, pairs, policy="join")
    assert (joined.of, joined.moved) == (("test", "test", "validation", "validation"), {"joined": 1})


def test_a_patient_in_two_given_splits_is_a_conflict_or_joined() -> None:
    cases = [Who("A", "train", ""), Who("A", "test", "")]
    found = assign(cases, [])
    assert (found.of, found.conflicts) == (("train", "test"), (Pair(0, 1, "patient", 1.0),))
    assert assign(cases, [], policy="join").of == ("test", "test")


def test_a_held_out_site_takes_its_patients_wholly() -> None:
    cases = [Who("A", "train", "North"), Who("A", "train", "South"), Who("B", "train", "South"), Who("C", "", "North")]
    found = assign(cases, [], held_out=("North",))
    assert found.of == ("test", "test", "train", "test")
    assert (found.moved, found.both_sites) == ({"held_out": 1}, 1)


@pytest.mark.parametrize(
    ("told", "report", "labels", "left"),
    [
        ({("renal_mass", ""): 0}, "", {"kidney_left": 0, "kidney_right": 0}, ()),
        ({("renal_mass", ""): 1}, MASS, {"kidney_left": 1}, ()),
        ({("renal_mass", ""): 1}, "", {}, ("renal_mass",)),
        ({("renal_mass", ""): 1, ("renal_mass", "kidney_left"): 0}, "", {"kidney_left": 0, "kidney_right": 1}, ()),
        ({("renal_mass", ""): 2}, MASS, {"kidney_left": 2, "kidney_right": 2}, ()),
        ({("renal_mass", "kidney_right"): 1}, MASS, {"kidney_right": 1}, ()),
    ],
)
def test_labels_without_a_side_go_where_it_is_known(
    told: dict[tuple[str, str], int], report: str, labels: dict[str, int], left: tuple[str, ...]
) -> None:
    given = settled(told, report)
    assert {region: value for (_, region), value in given.labels.items()} == labels
    assert given.open == left


def test_a_clinician_stands_above_the_table() -> None:
    place = ("renal_mass", "kidney_left")
    given = settled({place: 1}, MASS, [{place: 0}])
    assert (given.labels[place], given.sources[place]) == (0, "review")
