"""A draft says what the verdicts say, shows what it rests on, and is never final by itself."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime

import numpy as np
import pytest

from medvl.errors import ConfigError
from medvl.evaluation.calibration import Calibration
from medvl.heads.draft_compose import captioned_draft, grounded_draft
from medvl.heads.draft_library import SIZE_MARK, ReportLibrary, reusable
from medvl.heads.draft_statements import ontology_for, statements_of
from medvl.heads.draft_verdicts import verdicts_of_margins, verdicts_of_record
from medvl.heads.drafts import NOT_REVIEWED, Draft, Verdict
from medvl.text.labels import extract_text
from medvl.text.prompts import FindingList, load_findings
from medvl.text.report import parse_report

KIDNEY = ("renal_mass", "renal_cyst", "renal_stone", "hydronephrosis")
TRAITS = ("mass_large", "mass_cystic", "mass_exophytic", "mass_necrosis", "mass_calcification", "mass_avid")
CHEST = (
    "coronary_calcification",
    "cardiomegaly",
    "pericardial_effusion",
    "aortic_aneurysm",
    "pleural_effusion_left",
    "pleural_effusion_right",
)
CODE = {"present": 1, "absent": 0, "undecided": 2}


def asked(region: str, **verdicts: str) -> list[Verdict]:
    return [Verdict(f"ask_{k}", k, k.replace("_", " "), region, v, 0.5) for k, v in verdicts.items()]  # type: ignore[arg-type]


def library(*texts: tuple[str, str, list[float]]) -> ReportLibrary:
    vectors = np.array([v for _, _, v in texts], np.float32)
    return ReportLibrary(
        vectors, tuple(f"P{k}" for k in range(len(texts))), tuple(r for r, _, _ in texts), tuple(t for _, t, _ in texts)
    )


@pytest.mark.parametrize("region", ["kidney_left", "kidney_right", "chest"])
def test_templates_read_back_as_the_verdicts_they_were_made_from(region: str) -> None:
    keys = CHEST if region == "chest" else KIDNEY
    for values in itertools.product(CODE, repeat=len(keys)):
        if keys is CHEST and values.count("undecided") not in (0, 1, 6):
            continue
        verdicts = asked(region, **dict(zip(keys, values, strict=True)))
        draft = Draft(grounded_draft(verdicts))
        labels = extract_text(draft.regions()[region], ontology_for(region))
        assert {k: labels[k] for k in keys} == {k: CODE[v] for k, v in zip(keys, values, strict=True)}
        assert all(s.supported for s in draft.sentences)


def test_traits_of_a_present_mass_are_told_and_those_of_no_mass_are_not() -> None:
    for values in itertools.product(("present", "absent"), repeat=5):
        traits = dict(zip(TRAITS[1:], values, strict=True))
        draft = Draft(grounded_draft(asked("kidney_left", renal_mass="present", **traits)))
        labels = extract_text(draft.regions()["kidney_left"], ontology_for("kidney_left"))
        assert {k: labels[k] for k in traits} == {k: CODE[v] for k, v in traits.items()}
        assert all(s.supported for s in draft.sentences)
    assert labels["mass_size_mm"] is None
    for large in CODE:
        [*_, last] = grounded_draft(asked("kidney_left", renal_mass="present", mass_large=large))
        size = extract_text(last.text, ontology_for("kidney_left"))["mass_size_mm"]
        assert size is None and ("large" in last.text) == (large != "absent") and not any(c.isdigit() for c in last.text)
    undecided = grounded_draft(asked("kidney_left", renal_mass="undecided", mass_cystic="undecided"))
    assert len(undecided) == 1 and "cannot be decided" in undecided[0].text
    gone = grounded_draft(asked("kidney_left", renal_mass="absent", mass_cystic="present"))
    assert [s.text for s in gone] == ["No renal mass in the left kidney."]


def test_the_whole_draft_parsed_as_a_report_gives_each_side_its_own() -> None:
    verdicts = asked("kidney_left", renal_mass="present", renal_cyst="absent") + asked(
        "kidney_right", renal_mass="absent", renal_cyst="present"
    )
    regions = parse_report(Draft(grounded_draft(verdicts)).text()).regions
    for region, mass in (("kidney_left", 1), ("kidney_right", 0)):
        labels = extract_text(regions[region], ontology_for(region))
        assert (labels["renal_mass"], labels["renal_cyst"]) == (mass, 1 - mass)


def test_present_findings_are_told_in_the_nearest_report_that_says_just_that() -> None:
    known = library(
        ("kidney_left", "There is a 3.1 cm cyst in the lower pole of the left kidney.", [1, 0]),  # a place nobody asked for
        ("kidney_left", "Left renal cyst and left renal stone.", [0.99, 0.1]),  # more than the cyst
        ("kidney_right", "Right renal cyst.", [1, 0]),  # the other side
        ("kidney_left", "A cyst of 14 mm is seen in the left kidney.", [0.9, 0.4]),
        ("kidney_left", "Simple cyst of the left kidney.", [0.6, 0.8]),
    )
    verdicts = asked("kidney_left", renal_cyst="present", renal_stone="absent")
    first, second = grounded_draft(verdicts, known, {"kidney_left": [1.0, 0.0]})
    assert (first.source, first.neighbours) == ("retrieved", ("P3",))
    assert first.text == f"A cyst of {SIZE_MARK} is seen in the left kidney."
    assert (second.source, second.text) == ("template", "No kidney stone in the left kidney.")
    again = grounded_draft(verdicts, known, {"kidney_left": [1.0, 0.0]}, exclude=["P3"])
    assert again[0].neighbours == ("P4",)
    few = grounded_draft(verdicts, known, {"kidney_left": [1.0, 0.0]}, neighbours=2)
    assert few[0].source == "template"


@pytest.mark.parametrize(
    "sentence",
    [
        "There are two cysts in the left kidney.",
        "Cyst in the upper pole of the left kidney.",
        "Severe hydronephrosis on the left.",
        "Right renal cyst.",
        "Bilateral renal cysts.",
        "Left renal mass, suspicious for carcinoma.",
        "The mass is avidly enhancing.",
        "Small left renal stone.",
        "Left renal cyst, no follow-up needed.",
        "Cyst of the left kidney and fatty liver.",
        "The bowel is unremarkable.",
        "Increased cyst of the left kidney.",
    ],
)
def test_what_no_verdict_bears_out_is_not_said_again(sentence: str) -> None:
    assert reusable(sentence, "kidney_left") == ()


def test_of_a_comparison_only_what_the_scan_shows_is_said_again() -> None:
    (stated,) = reusable("Cyst of the left kidney, unchanged since the previous CT.", "kidney_left")
    assert (stated.text, stated.status) == ("Cyst of the left kidney.", {"renal_cyst": 1})


def test_no_number_of_another_patient_gets_into_a_draft() -> None:
    [again] = reusable("A solid mass of 26 x 24 x 22 mm in the left kidney.", "kidney_left")
    assert again.text == f"A solid mass of {SIZE_MARK} in the left kidney."
    assert again.status == {"renal_mass": 1, "mass_cystic": 0}


def test_generated_sentences_are_held_against_the_verdicts() -> None:
    verdicts = asked("kidney_left", renal_mass="absent", renal_cyst="present", renal_stone="undecided", hydronephrosis="absent")
    text = (
        "The left kidney measures 11.2 cm. There is a 2.1 cm cyst in the left kidney. A solid mass is seen. It enhances avidly. "
        "There is a stone. Possible stone. No hydronephrosis."
    )
    got = captioned_draft(verdicts, {"kidney_left": (text, -0.25)})
    assert [s.support for s in got] == [
        "not checked",
        "supported",
        "not supported",
        "not supported",
        "not supported",
        "supported",
        "supported",
    ]
    assert got[1].findings == ("ask_renal_cyst",) and "cyst_size_mm" in got[1].unverified
    assert got[2].against == ("renal_mass", "mass_cystic") and got[3].against == ("mass_avid",)
    assert got[0].unverified == ("kidney_length_mm",) and got[0].log_probability == -0.25
    shown = Draft(got).text()
    assert shown.count("[not supported by the model's findings]") == 3 and shown.count("[not checked]") == 1
    assert "mass" not in Draft(got).regions(supported_only=True)["kidney_left"]


def test_a_size_that_the_verdict_denies_is_flagged() -> None:
    verdicts = asked("kidney_left", renal_mass="present", mass_large="absent")
    one = captioned_draft(verdicts, {"kidney_left": ("There is a mass of 52 mm in the left kidney.", 0.0)})[0]
    assert one.against == ("mass_large",)


def test_later_sentences_are_read_in_context() -> None:
    found = statements_of("There is a mass in the left kidney. It is avidly enhancing.", ontology_for("kidney_left"))
    assert found[1].status == {"mass_avid": 1} and found[1].refers and not found[0].refers


def test_only_a_named_reviewer_changes_the_status() -> None:
    verdicts = asked("kidney_left", renal_mass="absent")
    said = "There is a mass in the left kidney. No fracture."
    draft = Draft(captioned_draft(verdicts, {"kidney_left": (said, 0.0)}), "case", {"name": "m", "sha256": "0"})
    assert draft.status == NOT_REVIEWED == draft.as_dict()["status"]
    assert draft.text().startswith("DRAFT, NOT REVIEWED") and draft.text().endswith("Status: draft: not reviewed.")
    now = datetime(2026, 1, 2, tzinfo=UTC)
    for by, at, drop, words in (
        ("  ", now, [0], "name"),
        ("Dr A", datetime(2026, 1, 2), [0], "time zone"),
        ("Dr A", now, [], "not supported"),
        ("Dr A", now, [7], "0 to 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            draft.reviewed(by, at, drop=drop)
    signed = draft.reviewed("Dr A", now, drop=[0])
    assert signed.status == "reviewed by Dr A at 2026-01-02T00:00:00+00:00"
    assert [s.text for s in signed.sentences] == ["No fracture."] and signed.review is not None
    assert signed.review.dropped == ("There is a mass in the left kidney.",)
    assert draft.status == NOT_REVIEWED and len(draft.reviewed("Dr A", now, accept=[0]).sentences) == 2
    with pytest.raises(ConfigError, match="was reviewed"):
        signed.reviewed("Dr B", now)
    json.dumps(signed.as_dict(), allow_nan=False)


def findings() -> FindingList:
    frame = {"region": "kidney", "present": ["a"], "absent": ["b"]}
    return load_findings(
        {
            "name": "two",
            "findings": [
                {"key": "mass", "label": "Mass", "truth": "renal_mass", **frame},
                {"key": "cystic", "label": "Cystic mass", "truth": "mass_cystic", "given": "mass", **frame},
            ],
        }
    )


def test_verdicts_follow_the_rules_of_inference() -> None:
    rule = Calibration(1.0, 0.0, 0.5, 0.4, 0.6, 9, 9)
    kinds = {"kidney": ("kidney_left", "kidney_right")}
    table = {"kidney_left": 3.0, "kidney_right": -3.0}

    def ask(shift: float) -> dict[tuple[str, str], str]:
        found = verdicts_of_margins(
            findings(),
            kinds,
            {"mass": rule, "cystic": rule},
            list(table),
            lambda f, r: table[r] * shift if f.key == "mass" else 3.0,
        )
        return {(v.finding, v.region): v.verdict for v in found}

    assert ask(1) == {
        ("mass", "kidney_left"): "present",
        ("mass", "kidney_right"): "absent",
        ("cystic", "kidney_left"): "present",
    }
    assert set(ask(0).values()) == {"undecided"} and len(ask(0)) == 4


def test_a_record_of_inference_gives_the_same_verdicts_with_peaks_and_reasons() -> None:
    row = {"finding": "mass", "region": "kidney_left", "verdict": "present", "score": 0.9, "reasons": [], "peak_lps": [1, 2, 3]}
    lost = {
        "finding": "mass",
        "region": "kidney_right",
        "verdict": "undecided",
        "score": None,
        "reasons": [{"code": "region_incomplete", "message": "the scan covers 10% of kidney_right"}],
        "peak_lps": None,
    }
    record = {"schema": "medvl.findings/1", "status": "done", "findings": [row, lost]}
    draft = Draft(grounded_draft(verdicts_of_record(record, findings())))
    assert draft.sentences[0].peaks_lps == {"mass": (1.0, 2.0, 3.0)} and draft.sentences[0].probabilities == {"mass": 0.9}
    assert draft.sentences[1].text == "Right kidney not assessed: the scan covers 10% of kidney_right."
    for wrong in ({**record, "schema": "x"}, {**record, "status": "skipped"}):
        with pytest.raises(ConfigError):
            verdicts_of_record(wrong, findings())


def test_a_library_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="finite"):
        ReportLibrary(np.full((1, 2), np.nan, np.float32), ("P",), ("chest",), ("x",))
    with pytest.raises(ConfigError, match="no ontology"):
        ontology_for("brain")
