"""Sections, sentences, sides."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvl.text.report import REGIONS, parse_report, side_pieces, split_sections, split_sentences

REPORT = """CLINICAL HISTORY: Hematuria.
TECHNIQUE: CT of the abdomen, portal venous phase, 2.5 mm.
FINDINGS:
Right kidney: 11.2 cm. There is a 3.4 x 3.1 cm heterogeneously enhancing mass in the lower pole
which is predominantly exophytic. No hydronephrosis.
Left kidney: Normal in size. Simple cyst measuring 14 mm in the mid pole. No stones.
Liver: Simple hepatic cyst of 9 mm.
Heart and pericardium: Heart size normal. No pericardial effusion.
IMPRESSION: 1. 3.4 cm right lower pole renal mass. 2. Hepatic cyst.
"""


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("A 2.3 x 2.1 cm mass. It is solid.", 2),
        ("Attenuation of 35-40 HU. No stone.", 2),
        ("A Bosniak 2F lesion at T11-12. No mass.", 2),
        ("1. Left renal mass. 2. Right renal cyst.", 2),
        ("Seen by Dr. Smith vs. the earlier study, approx. 3 mm.", 1),
        ("The kidney measures 11.2 cm. 2 cysts are seen.", 2),
        ("", 0),
    ],
)
def test_sentences_are_not_cut_inside_numbers_or_abbreviations(text: str, n: int) -> None:
    sentences = split_sentences(text)
    assert len(sentences) == n
    for kept in ("2.3 x 2.1 cm", "35-40 HU", "Bosniak 2F", "T11-12", "11.2 cm"):
        assert (kept in text) == any(kept in s for s in sentences)


def test_list_numbers_are_dropped() -> None:
    assert split_sentences("1. Left renal mass. 2. Right renal cyst.") == ["Left renal mass.", "Right renal cyst."]


def test_sections_by_header() -> None:
    sections = split_sections(REPORT)
    assert list(sections) == ["history", "technique", "findings", "impression"]
    assert sections["history"] == "Hematuria."
    assert sections["technique"].endswith("2.5 mm.")
    assert sections["impression"].startswith("1. 3.4 cm")


@pytest.mark.parametrize("header", ["Findings:\n", "FINDINGS\n", "CT findings: ", "Description:\n", "  REPORT : "])
def test_section_headers_in_any_dress(header: str) -> None:
    assert split_sections(f"{header}Kidneys are normal.\nConclusion: Normal.") == {
        "findings": "Kidneys are normal.",
        "impression": "Normal.",
    }


def test_a_header_in_the_middle_of_a_line_is_found_in_capitals_only() -> None:
    assert split_sections("FINDINGS: No stone. IMPRESSION: Normal.")["impression"] == "Normal."
    assert set(split_sections("FINDINGS: No stone. Impression is: normal.")) == {"findings"}


def test_text_without_headers_is_findings() -> None:
    assert split_sections("No stone.") == {"findings": "No stone."}
    assert split_sections("CT of 2020.\nFINDINGS: No stone.") == {"preamble": "CT of 2020.", "findings": "No stone."}


def test_regions_follow_sub_headers() -> None:
    regions = parse_report(REPORT).regions
    assert "3.4 x 3.1 cm" in regions["kidney_right"]
    assert "lower pole which is predominantly exophytic" in regions["kidney_right"]  # the wrapped line is joined
    assert "No hydronephrosis." in regions["kidney_right"]
    assert "No hydronephrosis." not in regions["kidney_left"]
    assert "14 mm" in regions["kidney_left"]
    assert "14 mm" not in regions["kidney_right"]
    assert "epatic" not in " ".join(regions.values())
    assert regions["chest"] == "Heart size normal. No pericardial effusion."


@pytest.mark.parametrize(
    ("sentence", "left", "right"),
    [
        ("The right kidney measures 11.2 cm and the left 10.5 cm.", "10.5 cm", "11.2 cm"),
        ("Kidneys measure 11.2 cm on the right and 10.5 cm on the left.", "10.5 cm", "11.2 cm"),
        ("Left and right kidneys measure 10.5 and 11.2 cm, respectively.", "10.5 cm", "11.2 cm"),
        ("Both kidneys are normal apart from a 5 mm stone in the left.", "5 mm", "normal"),
        ("Stone in the right kidney; the left kidney is normal.", "normal", "Stone"),
    ],
)
def test_one_sentence_with_two_sides_is_shared_out(sentence: str, left: str, right: str) -> None:
    regions = parse_report(sentence).regions
    assert left in regions["kidney_left"]
    assert right in regions["kidney_right"]
    assert left not in regions["kidney_right"]


@pytest.mark.parametrize(
    "sentence", ["No renal stone on either side.", "The kidneys are normal.", "No hydronephrosis in the right or left kidney."]
)
def test_statements_on_both_sides_go_to_both(sentence: str) -> None:
    regions = parse_report(sentence).regions
    assert regions["kidney_left"] == regions["kidney_right"] == sentence


def test_a_sentence_that_refers_back_keeps_the_side_of_what_it_names() -> None:
    text = "The left kidney harbors a 5 cm tumor; the right kidney is normal. The tumor is calcified."
    regions = parse_report(text).regions
    assert "calcified" in regions["kidney_left"]
    assert "calcified" not in regions["kidney_right"]


def test_pieces_without_a_verb_get_the_beginning_back() -> None:
    pieces = side_pieces("Stones are seen in the right kidney (5 mm) and left kidney (3 mm).")
    assert [side for side, _ in pieces] == ["right", "left"]
    assert pieces[1][1] == "Stones are seen left kidney (3 mm)."


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="FINDGS:leftrighkdny 0123456789.x,;()\ncm-", max_size=200))
def test_any_text_gives_every_region(text: str) -> None:
    assert tuple(parse_report(text).regions) == REGIONS
