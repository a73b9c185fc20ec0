"""Sentences of the page: each says what the numbers say, and nothing from a file becomes markup."""

import pytest
from results_folder import finding, study_json

from medvl_ui.study import FindingRecord, RegionRecord, Study, ranked
from medvl_ui.wording import headline, plain, reason_lines, region_facts, score_text, spoken, why


def record(score: float | None, verdict: str, **more: object) -> FindingRecord:
    return FindingRecord.model_validate(finding("cyst", "kidney_left", score, verdict, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("score", "verdict", "withheld"),
    [
        (0.93, "present", False),
        (0.60, "present", False),
        (0.59, "undecided", False),
        (0.39, "absent", False),
        (0.93, "undecided", True),
        (0.10, "undecided", True),
    ],
)
def test_a_verdict_against_its_own_score_is_said_to_be_withheld(score: float, verdict: str, withheld: bool) -> None:
    assert ("withheld" in why(record(score, verdict))) == withheld


def test_missing_numbers_are_said_to_be_missing() -> None:
    assert why(record(None, "undecided")) == "No score was computed."
    assert "no thresholds" in why(record(0.5, "undecided", threshold_low=None))
    assert score_text(record(None, "undecided")) == "no score"


def test_markup_is_escaped_and_lines_are_joined() -> None:
    assert plain("**b** :red[x]\n# h <i> $a$ `c`") == r"\*\*b\*\* \:red\[x\] \# h \<i\> \$a\$ \`c\`"


def test_sides_are_spoken_first() -> None:
    assert spoken("kidney_left") == "left kidney"
    assert spoken("pleural_effusion_right") == "right pleural effusion"
    assert spoken("chest") == "chest"


def test_reading_order_is_by_verdict_then_score() -> None:
    rows = [
        record(0.9, "absent"),
        record(None, "undecided"),
        record(0.6, "present"),
        record(0.5, "undecided"),
        record(0.8, "present"),
    ]
    assert [(r.verdict, r.score) for r in ranked(tuple(rows))] == [
        ("present", 0.8),
        ("present", 0.6),
        ("undecided", 0.5),
        ("undecided", None),
        ("absent", 0.9),
    ]


def test_regions_with_little_known_about_them() -> None:
    assert region_facts(RegionRecord(name="chest", found=False)) == "not found"
    ood = {"distance": 1.5, "limit": None, "out": False}
    assert region_facts(RegionRecord.model_validate({"name": "chest", "ood": ood})).endswith("trained on (distance 1.50)")


def test_headlines() -> None:
    assert headline(Study.model_validate(study_json("a"))) == "no findings"
    absent = Study.model_validate(study_json("a", findings=[finding("cyst", "chest", 0.1, "absent")]))
    assert headline(absent) == "nothing present. Top: Cyst 0.10, chest"
    assert headline(Study.model_validate(study_json("a", status="failed"))) == "no reason was recorded"


def test_a_reason_without_a_sentence_shows_its_code() -> None:
    entry = record(0.5, "undecided", reasons=[{"code": "low_score", "message": ""}, {"code": "", "message": ""}])
    assert reason_lines(entry.reasons) == ["low_score"]


def test_addresses_make_no_links_and_nothing_turns_the_text_round() -> None:
    joined = plain("http://a.example www.a.example me@a.example :material/home: a\u202eb").replace("\\", "")
    assert joined == "http:\u2060//a.example www\u2060.a.example me@\u2060a.example :\u2060material/home: ab"
