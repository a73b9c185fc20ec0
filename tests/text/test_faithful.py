"""The release's number stripping against a re-implementation in plain loops: the damage it does, and what it protects."""

import random

import pytest
from references import release_text

from medvl.data.cohort import describe
from medvl.text.faithful import strip_numbers
from medvl.text.report import split_sentences


@pytest.mark.parametrize(("text", "stripped"), release_text.HAND.items())
def test_as_in_the_release(text: str, stripped: str) -> None:
    assert strip_numbers(text) == stripped
    assert release_text.strip_numbers(text) == stripped


def test_phantom_reports_are_cleaned_alike() -> None:
    cases = [describe(11, number) for number in range(150)]
    texts = [text for case in cases for text in (case["report"], *case["region_texts"].values())]
    cleaned = [strip_numbers(text) for text in texts]
    assert cleaned == [release_text.strip_numbers(text) for text in texts]
    assert sum(a != b for a, b in zip(texts, cleaned, strict=True)) > 50


def test_any_text_is_cleaned_alike() -> None:
    rng = random.Random(0)
    parts = ["1", "23", "٣", *".,)、-;；!?。_ ", "  ", "\n", "\t", "a", "mm", "R.E.N.A.L"]
    for _ in range(20_000):
        text = "".join(rng.choices(parts, k=rng.randrange(14)))
        assert strip_numbers(text) == release_text.strip_numbers(text), text


def test_our_own_sentences_are_not_stripped() -> None:
    assert split_sentences("A mass of 2-3 cm at T11-12. It has 35-40 HU.") == ["A mass of 2-3 cm at T11-12.", "It has 35-40 HU."]
