"""The page's logic without a browser: what is listed, said and hidden, for good and for broken results."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from results_folder import DONE, SCRIPT, finding, study_json, write_study
from streamlit.testing.v1 import AppTest

import medvl_ui
from medvl.records import RESEARCH_USE
from medvl_ui.station import open_station

PAGE = Path(medvl_ui.__file__).with_name("viewer_page.py")


def page(root: Path) -> AppTest:
    open_station(root)
    return AppTest.from_file(str(PAGE), default_timeout=60).run()


@pytest.fixture
def at(results: Path) -> Iterator[AppTest]:
    """The page on the folder of all cases; whatever a test does, no exception may reach the reader."""
    app = page(results)
    yield app
    assert not app.exception


def texts(at: AppTest) -> str:
    """Everything the page says, with the backslashes of escaped Markdown taken away."""
    kinds = (at.markdown, at.text, at.caption, at.warning, at.info, at.subheader, at.code)
    return "\n".join(str(element.value) for kind in kinds for element in kind).replace("\\", "")


def opened(at: AppTest, case_id: str) -> AppTest:
    return at.button(key=f"case_{case_id}").click().run()


def cases(at: AppTest) -> list[str]:
    """The studies that the list shows, in its order."""
    return [button.key.removeprefix("case_") for button in at.sidebar.button if button.key.startswith("case_")]


def test_lists_every_study_and_opens_the_first(at: AppTest) -> None:
    assert cases(at) == [DONE, "c0hostile", "c1sourceless", "b0skipped", "b1failed", "d0corrupt"]  # read ones first
    assert "6 studies" in texts(at)
    assert f"#### {DONE}" in texts(at)
    assert "1 present, 1 undecided. Top: Renal mass 0.93, right kidney" in texts(at)
    assert texts(at).count(RESEARCH_USE) == 2


def test_findings_say_score_calibration_verdict_and_reason(at: AppTest) -> None:
    said = texts(at)
    keys = [button.key for button in at.main.button]
    assert keys == ["finding_renal_mass@kidney_right", "finding_stone@kidney_left", "finding_hydronephrosis@kidney_left"]
    assert "0.93 :small[:gray[cal.]]" in said
    assert "0.55 :small[:gray[uncal.]]" in said
    for badge in (":orange-badge[▲ present]", ":gray-badge[? undecided]", ":blue-badge[– absent]"):
        assert badge in said
    assert "The left kidney looks unlike the training data." in said


def test_the_top_finding_is_in_focus_with_prompts_thresholds_and_deletion_test(at: AppTest) -> None:
    said = texts(at)
    assert "There is a renal mass." in said
    assert "No renal mass is seen." in said
    assert "absent below 0.40, present from 0.60" in said
    assert "takes the score from 0.93 to 0.21" in said
    assert "There is a stone." not in said


def test_a_click_brings_another_finding_into_focus(at: AppTest) -> None:
    said = texts(at.button(key="finding_stone@kidney_left").click().run())
    assert "There is a stone." in said
    assert "There is a renal mass." not in said
    assert "not calibrated: read it as an order" in said


def test_absent_findings_can_be_hidden(at: AppTest) -> None:
    at.toggle(key="hide_absent").set_value(True).run()
    assert [b.key for b in at.main.button] == ["finding_renal_mass@kidney_right", "finding_stone@kidney_left"]


def test_a_missing_heat_map_is_said_and_the_page_goes_on(at: AppTest) -> None:
    said = texts(at.button(key="finding_hydronephrosis@kidney_left").click().run())
    assert "heat map of this finding is not in the results folder" in said
    assert "No hydronephrosis is seen." in said


def test_regions_series_and_prognosis_are_told(at: AppTest) -> None:
    said = texts(at)
    assert "outside what the model was trained on (distance 5.20, limit 3.40)" in said
    assert "within what the model was trained on (distance 1.20, limit 3.40)" in said
    assert "The gantry was tilted by 12 degrees." in said
    assert "Why this series: the thinnest soft-tissue series" in said
    at.session_state["pane"] = "Prognosis"
    assert "Higher predicted risk than 71 % of the reference patients." in texts(at.run())


@pytest.mark.parametrize(
    ("case_id", "sentence", "reason"),
    [
        ("b0skipped", "This study was skipped", "One gap of 5.0 mm among 2.5 mm"),
        ("b1failed", "This study failed", "The model ran out of memory."),
        ("d0corrupt", "cannot be read", "not valid JSON at line 1"),
    ],
)
def test_studies_without_findings_say_why(at: AppTest, case_id: str, sentence: str, reason: str) -> None:
    said = texts(opened(at, case_id))
    assert sentence in said
    assert reason in said
    assert not [button for button in at.main.button if button.key.startswith("finding_")]


def test_without_the_source_the_findings_stay(at: AppTest) -> None:
    said = texts(opened(at, "c1sourceless"))
    assert "no longer where they were read from" in said
    assert "There is a cyst." in said


def test_texts_from_files_stay_texts(at: AppTest) -> None:
    opened(at, "c0hostile")
    assert SCRIPT in [text.value for text in at.text]  # st.text shows letters only
    for element in (*at.markdown, *at.caption, *at.warning):
        assert not getattr(element.proto, "allow_html", False)
        assert "<script" not in element.value.replace("\\<", "")
    assert "outside its study folder" in texts(at)


def test_plain_images_take_the_viewers_place(at: AppTest) -> None:
    at.toggle(key="plain").set_value(True).run()
    assert "without evidence maps" in texts(at)
    assert at.slider[0].value == 30  # the slice of the finding's peak
    assert at.slider[0].max == 39
    at.selectbox(key="plain_plane").set_value("Sagittal").run()
    assert at.slider[0].max == 47


@pytest.mark.parametrize("make", [lambda root: None, lambda root: (root / "studies").mkdir()])
def test_an_empty_folder_says_what_to_do(tmp_path: Path, make) -> None:
    make(tmp_path)
    at = page(tmp_path)
    assert not at.exception
    assert "No results yet" in texts(at)
    assert "medvl infer" in texts(at)
    assert RESEARCH_USE in texts(at)


def test_a_rewritten_study_is_read_anew(results: Path) -> None:
    at = page(results)
    path = results / "studies" / DONE / "findings.json"
    path.write_text(json.dumps(study_json(DONE, findings=[finding("cyst", "kidney_left", 0.7, "present")])))
    assert "There is a cyst." in texts(at.run())


def test_a_study_without_findings_names_no_finding(tmp_path: Path) -> None:
    write_study(tmp_path, study_json("e0none"), image=True)
    said = texts(page(tmp_path))
    assert "No findings were scored in this study." in said
