"""The release's number stripping: the damage that its documentation names, and what it protects."""

import pytest

from medvl.text.faithful import strip_numbers
from medvl.text.report import split_sentences


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("2-3 cm", "3 cm."),
        ("35-40 HU", "40 HU."),
        ("Bosniak grade 2.", "Bosniak grade."),
        ("T11-12.", "T11-."),
        ("1. Mass of 3.5 cm.\n2) Cyst", "Mass of 3.5 cm.\nCyst."),
        ("R.E.N.A.L score of 7.5 mm", "R.E.N.A.L score of 7.5 mm."),
        ("3、囊肿。", "囊肿。"),
        ("", ""),
    ],
)
def test_as_in_the_release(text: str, stripped: str) -> None:
    assert strip_numbers(text) == stripped


def test_our_own_sentences_are_not_stripped() -> None:
    assert split_sentences("A mass of 2-3 cm at T11-12. It has 35-40 HU.") == ["A mass of 2-3 cm at T11-12.", "It has 35-40 HU."]
