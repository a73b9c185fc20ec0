"""What is wrong with a findings list, found before anything is computed."""

from typing import Any

import pytest

from medvl.heads.listcheck import check_list
from medvl.text.prompts import load_findings

KINDS = {"kidney": ("kidney_left", "kidney_right"), "chest": ("chest",)}
GOOD: dict[str, Any] = {
    "key": "mass",
    "label": "Mass",
    "region": "kidney",
    "truth": "renal_mass",
    "templates": ["{}.", "There is {}."],
    "present": ["a mass in the {side} kidney", "a {side} renal tumour"],
    "absent": ["no mass in the {side} kidney", "no {side} renal tumour"],
}


def _told(*changes: dict[str, Any]) -> list[tuple[str, str]]:
    findings = [{**GOOD, **change} for change in changes]
    return [(p.level, p.message) for p in check_list(load_findings({"name": "x", "findings": findings}), KINDS)]


def test_a_good_list_has_no_problem() -> None:
    assert _told({}) == []


@pytest.mark.parametrize(
    ("change", "level", "said"),
    [
        ({"region": "liver"}, "error", "region liver is not known; the bundle knows kidney, chest"),
        ({"absent": []}, "error", "at least one present and one absent"),
        ({"region": "chest"}, "error", "uses {side}, but chest has no sides"),
        ({"present": ["a mass", "a tumour"], "absent": ["no mass", "no tumour"]}, "warning", "never says {side}"),
        ({"templates": ["There is {}.", "Nothing."]}, "error", "'Nothing.' needs exactly one {}"),
        ({"absent": ["a mass in the {side} kidney", "no {side} mass"]}, "error", "is both present and absent"),
        ({"present": ["a {site} mass of the {side} kidney", "b"]}, "error", "still holds a brace"),
        ({"present": ["a {side} mass", "a {side} mass"]}, "warning", "the same present sentence twice"),
        ({"templates": [], "absent": ["No {side} mass."]}, "warning", "one absent wording only"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], level: str, said: str) -> None:
    assert any(found == level and said in message for found, message in _told(change)), _told(change)


def test_two_names_for_one_question() -> None:
    told = _told({}, {"key": "tumour", "present": GOOD["present"][::-1]})
    assert told == [("error", "asks the very same as mass; remove one of them")]
