"""What no image can show goes, with its reason; everything else stays as it was written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvl.text.visible import visible_sentences


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("Clinical correlation is recommended.", "recommendation"),
        ("It is recommended to evaluate the nodule together with earlier scans.", "recommendation"),
        ("Follow-up is appropriate.", "recommendation"),
        ("No significant change was detected compared to the previous CT.", "comparison"),
        ("The current examination was compared with the CT of 2021.", "comparison"),
        ("It is stable.", "comparison"),
        ("Unchanged since the CT of last year.", "comparison"),
        ("Compared with the previous examination there is no relevant change.", "comparison"),
        ("Further evaluation with MRI is suggested.", "recommendation"),
        ("History of colon cancer.", "history"),
        ("In the patient with a history of smoking.", "history"),
    ],
)
def test_whole_sentences_go_with_their_reason(sentence: str, reason: str) -> None:
    seen = visible_sentences(["Heart is normal.", sentence])
    assert seen.kept == ("Heart is normal.",)
    assert seen.dropped == ((sentence, reason),)


@pytest.mark.parametrize(
    ("sentence", "kept", "reason"),
    [
        (
            "A nodule of 5 mm in the left lung, follow-up CT is recommended.",
            "A nodule of 5 mm in the left lung.",
            "recommendation",
        ),
        ("Compared to the previous CT, a new nodule is seen.", "A new nodule is seen.", "comparison"),
        ("A mass of 66 mm (74 mm in the previous examination) in the lung.", "A mass of 66 mm in the lung.", "comparison"),
        (
            "Soft tissue lesion on the left (tissue diagnosis is recommended).",
            "Soft tissue lesion on the left.",
            "recommendation",
        ),
    ],
)
def test_only_the_invisible_part_of_a_sentence_goes(sentence: str, kept: str, reason: str) -> None:
    seen = visible_sentences([sentence])
    assert seen.kept == (kept,)
    assert [why for _, why in seen.dropped] == [reason]


@pytest.mark.parametrize(
    "sentence",
    [
        "A nodule of 5 mm is seen, stable compared to the previous CT of 4 mm.",
        "Compared with the right, the left lung is smaller and measures 20 cm.",
        "No pneumothorax was detected.",
        "Further nodules are present in both lungs.",
        "There is no change in the calibre of the aorta.",
        "Unchanged kidney stone on the left.",
        "The ground-glass areas described before are not observed in the current examination.",
        "Comparison shows consolidation of 3 cm.",
        "A stent is present in the left main coronary artery.",
        "Nodules (largest 5 mm, at T11-12) in the right lung, 35-40 HU, Bosniak 2F.",
    ],
)
def test_what_an_image_shows_stays_to_the_letter(sentence: str) -> None:
    seen = visible_sentences([sentence])
    assert seen.kept == (sentence,)
    assert seen.dropped == ()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet="recommended stable ,;().12 mm", max_size=40), max_size=4))
def test_any_sentences_are_taken(sentences: list[str]) -> None:
    seen = visible_sentences(sentences)
    assert len(seen.kept) <= len(sentences)
    assert {reason for _, reason in seen.dropped} <= {"recommendation", "comparison", "history"}
