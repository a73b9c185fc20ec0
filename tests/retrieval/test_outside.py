"""Neighbours of a case that is not in the index: never of the same patient, whatever that patient is called there."""

from pathlib import Path

import numpy as np
from cases import SPACE, entries

from medvl.retrieval.outside import neighbours_of
from medvl.retrieval.store import Index


def index_of(folder: Path) -> tuple[Index, np.ndarray]:
    """40 kidneys of 20 patients with random unit vectors (40, 24)."""
    made = np.random.default_rng(5).normal(size=(40, SPACE.width))
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    index = Index.create(folder, SPACE)
    index.add(entries(40), {"image": made, "report": made}, SPACE)
    return index, made


def expected(made: np.ndarray, query: np.ndarray, k: int, *, gone: set[str]) -> list[str]:
    order = np.argsort(-(made @ query))
    return [e.id for e in (entries(40)[i] for i in order) if e.patient not in gone][:k]


def test_a_stranger_has_all_neighbours(tmp_path: Path) -> None:
    index, made = index_of(tmp_path)
    query = np.random.default_rng(9).normal(size=SPACE.width)
    found = neighbours_of(index, query, 5)
    assert found.same == ()
    assert [hit.entry.id for hit in found.hits] == expected(made, query, 5, gone=set())
    assert found.n_searched == 40


def test_who_has_the_same_images_is_left_out_with_all_cases(tmp_path: Path) -> None:
    index, made = index_of(tmp_path)
    found = neighbours_of(index, made[6].astype(np.float32), 40)
    assert found.same == ("P3",)
    assert len(found.hits) == 38
    assert [hit.entry.id for hit in found.hits] == expected(made, made[6], 40, gone={"P3"})


def test_patients_named_by_the_reader_and_other_regions_are_left_out(tmp_path: Path) -> None:
    index, made = index_of(tmp_path)
    found = neighbours_of(index, made[6], 40, where="region=kidney_left", without=["P0", "P7"])
    assert {hit.entry.region for hit in found.hits} == {"kidney_left"}
    assert not {"P0", "P3", "P7"} & {hit.entry.patient for hit in found.hits}
    assert len(found.hits) == 17
