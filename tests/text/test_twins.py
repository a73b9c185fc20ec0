"""Short statements get a negated twin, and what is none is left as it is."""

import pytest

from medvl.text.twins import twins


@pytest.mark.parametrize(
    "text",
    [
        "a large mass in the left kidney",
        "A large mass in the left kidney.",
        "There is a large mass in the left kidney",
        "CT shows a large mass in the left kidney.",
        "a large mass in the left kidney is seen",
    ],
)
def test_ways_to_say_one_thing_ask_one_thing(text: str) -> None:
    assert twins(text) == (
        [
            "A large mass in the left kidney.",
            "There is a large mass in the left kidney.",
            "CT shows a large mass in the left kidney.",
        ],
        [
            "No large mass in the left kidney.",
            "There is no large mass in the left kidney.",
            "No evidence of large mass in the left kidney.",
        ],
    )


@pytest.mark.parametrize("text", ["no stone", "There is no stone.", "Without evidence of stone", "no evidence of stone is seen"])
def test_a_denial_is_the_other_way_round(text: str) -> None:
    held, denied = twins("stone") or ([], [])
    assert twins(text) == (denied, held)


def test_abbreviations_keep_their_letters() -> None:
    assert (twins("IVC thrombus") or ([], []))[0][1] == "There is IVC thrombus."


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "No",
        "There is no no mass",
        "The left kidney is normal. The right kidney holds a cyst.",
        "Impression: mass",
        "a mass " * 9,
    ],
)
def test_what_is_no_short_statement_has_no_twin(text: str) -> None:
    assert twins(text) is None
