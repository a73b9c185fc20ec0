"""Region texts and the pool of statements."""

import numpy as np
import pytest

from medvl.data.cohort import describe
from medvl.data.statements import ontology_of, region_texts, statements
from medvl.data.targets import KindTargets, agreement
from medvl.text.labels import extract_text
from medvl.text.report import split_sentences

KIDNEY = KindTargets(
    regions=("kidney_left", "kidney_right"),
    binary=("renal_mass", "renal_cyst", "renal_stone", "hydronephrosis"),
    classes={"hydronephrosis_grade": ("mild", "moderate", "severe")},
    numbers={"cyst_size_mm": (23, 10), "kidney_length_mm": (108, 9)},
)
CHEST = KindTargets(regions=("chest",), binary=("cardiomegaly", "pericardial_effusion"))
COLUMNS = ("chest", "kidney_right", "kidney_left")


@pytest.fixture(scope="module")
def cases() -> list[dict]:
    return [describe(11, number) for number in range(12)]


def test_each_kind_has_its_ontology() -> None:
    assert (ontology_of(KIDNEY).name, ontology_of(CHEST).name) == ("kidney", "heart")


def test_rows_are_the_usable_regions_that_have_text(cases: list[dict]) -> None:
    usable = np.ones((12, 3), bool)
    usable[2, 1] = usable[7, 2] = False
    found = region_texts(cases, KIDNEY, COLUMNS, usable)
    expected = {
        (row, COLUMNS.index(name))
        for row, case in enumerate(cases)
        for name in KIDNEY.regions
        if case["region_texts"][name] and usable[row, COLUMNS.index(name)]
    }
    pairs = list(zip(found.rows.tolist(), found.columns.tolist(), strict=True))
    assert set(pairs) == expected
    assert len(pairs) == len(found) == len(found.targets) == len(expected) > 12
    assert len(expected) < 22
    for i, (row, column) in enumerate(pairs):
        name = COLUMNS[column]
        assert found.sentences[i] == split_sentences(cases[row]["region_texts"][name])
        for k, key in enumerate(KIDNEY.binary):
            value = cases[row]["labels"][name][key]
            assert found.targets.binary[i, k] == (value if value in (0, 1) else -1)


def test_no_usable_region_gives_no_row(cases: list[dict]) -> None:
    found = region_texts(cases, CHEST, COLUMNS, np.zeros((12, 3), bool))
    assert len(found) == 0
    assert found.rows.shape == found.columns.shape == (0,)
    assert statements(found, CHEST, 10, 0).texts == []


def test_statements_are_different_true_to_their_words_and_assert_something(cases: list[dict]) -> None:
    texts = region_texts(cases, KIDNEY, COLUMNS, np.ones((12, 3), bool))
    pool = statements(texts, KIDNEY, 1000, 0)
    corpus = {s for parts in texts.sentences for s in parts}
    assert len(pool.texts) == len(set(pool.texts)) == len(pool.targets)
    assert set(pool.texts) <= corpus
    silent = corpus - set(pool.texts)
    ontology = ontology_of(KIDNEY)
    for text in silent:
        labels = extract_text(text, ontology)
        assert not any(labels[k] in (0, 1) for k in KIDNEY.binary), text
        assert all(labels[k] is None for k in (*KIDNEY.classes, *KIDNEY.numbers)), text
    known = (pool.targets.binary >= 0).any(1) | (pool.targets.classes >= 0).any(1) | np.isfinite(pool.targets.numbers).any(1)
    assert known.all()
    assert len(pool.texts) > 20


def test_every_region_agrees_with_most_of_its_own_sentences_and_contradicts_none_of_them(cases: list[dict]) -> None:
    texts = region_texts(cases, KIDNEY, COLUMNS, np.ones((12, 3), bool))
    pool = statements(texts, KIDNEY, 1000, 0)
    found = agreement(texts.targets, pool.targets, KIDNEY)
    own = np.array([[text in parts for text in pool.texts] for parts in texts.sentences])
    assert (found[own] == 1).mean() > 0.9
    assert (found[own] == 0).mean() < 0.03
    assert (found[~own] == 0).mean() > 0.15


def test_the_draw_is_limited_and_repeats_by_seed(cases: list[dict]) -> None:
    texts = region_texts(cases, KIDNEY, COLUMNS, np.ones((12, 3), bool))
    few = statements(texts, KIDNEY, 9, 4)
    assert len(few.texts) == len(few.targets) == 9
    assert statements(texts, KIDNEY, 9, 4).texts == few.texts
    assert statements(texts, KIDNEY, 9, 5).texts != few.texts
    assert statements(texts, KIDNEY, 15, 4).texts[:9] == few.texts
