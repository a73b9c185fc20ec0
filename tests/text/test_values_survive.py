"""Values come through sections, regions, sentences and the visible filter character by character."""

import pytest

from medvl.text.report import parse_report, split_sections, split_sentences
from medvl.text.visible import visible_sentences

VALUES = (
    "2-3 cm",
    "35-40 HU",
    "-20 HU",
    "Bosniak 2F",
    "Bosniak IIF",
    "T11-12",
    "L1-2",
    "1.2 x 3.4 cm",
    "1.2x3.4x5 cm",
    "2,5 cm",
    "14 mm",
    "R.E.N.A.L. score 7",
    "R.E.N.A.L. Score 7p",
    "e.g. 4 mm",
    "4 mm vs. 3 mm",
    "approx. 3.5 mm",
    "5.5-6.0 mm",
    "< 3 mm",
    "50%",
    "segment 7-8",
    "series 3 image 129",
    "(5:36)",
    "7.5 Fr",
)
FRAMES = (
    "A lesion of the left kidney, {}, is seen. No stone.",
    "No stone. The left kidney has a lesion, {}.",
    "1. Left kidney lesion, {}. 2. Right renal cyst. 10. Scar.",
    "Left kidney: lesion {}, follow-up is recommended.",
)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("frame", FRAMES)
def test_values_survive_every_step(value: str, frame: str) -> None:
    text = frame.format(value)
    assert value in split_sections(f"FINDINGS: {text}\nIMPRESSION: {text}")["findings"]
    sentences = split_sentences(text)
    assert sum(value in sentence for sentence in sentences) == 1
    assert sum(value in sentence for sentence in visible_sentences(sentences).kept) == 1
    assert value in parse_report(text).regions["kidney_left"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("1. Cyst of 2 cm. 2. Stone of 3 mm. 10. Scar.", ["Cyst of 2 cm.", "Stone of 3 mm.", "Scar."]),
        ("1) Cyst. 2) Stone.", ["Cyst.", "Stone."]),
        ("- Cyst.", ["Cyst."]),
        ('" Cyst of 5 mm" Stone." Scar', ["Cyst of 5 mm", "Stone.", "Scar"]),
        ("• Cyst. • Stone.", ["Cyst.", "Stone."]),
        ("2 cysts are seen. 3 stones too.", ["2 cysts are seen.", "3 stones too."]),
    ],
)
def test_only_list_marks_are_taken_off(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences
