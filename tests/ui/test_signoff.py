"""The sign-off pane without a browser: what a click keeps, what is refused and how that is said."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from results_folder import DONE, finding, study_json
from streamlit.testing.v1 import AppTest

from medvl.review.desk import Reviews
from medvl.review.record import Choice, Decision, Person, Status
from medvl_ui.reviews import reviews
from medvl_ui.station import open_station

PAGE = Path(__file__).with_name("signoff_page.py")
MASS, STONE, HYDRO = "renal_mass@kidney_right", "stone@kidney_left", "hydronephrosis@kidney_left"
BERT = Person("Bert Söll", "reviewer")


@pytest.fixture
def root(results: Path) -> Path:
    open_station(results)
    return results


@pytest.fixture
def desk(root: Path) -> Reviews:
    return reviews(root)


@pytest.fixture
def at(root: Path) -> Iterator[AppTest]:
    app = AppTest.from_file(str(PAGE), default_timeout=60).run()
    yield app
    assert not app.exception


def texts(at: AppTest) -> str:
    kinds = (at.markdown, at.text, at.caption, at.warning, at.info, at.error)
    return "\n".join(str(element.value) for kind in kinds for element in kind).replace("\\", "")


def click(at: AppTest, *parts: str) -> AppTest:
    return at.button(key="_".join(("signoff", DONE, *parts))).click().run()


def by_bert(desk: Reviews, decision: Decision) -> None:
    now = desk.review(DONE)
    desk.save(DONE, decision, BERT, expected_version=now.versions.get(decision.item, 0), results=now.answers.sha256)


def test_a_click_is_kept_and_leads_to_the_next(at: AppTest, desk: Reviews) -> None:
    assert "0 of 2 decided" in texts(at)
    assert "Before signing, decide: Renal mass, Stone" in texts(at)
    assert at.button(key=f"signoff_{DONE}_sign").disabled
    at.text_input(key=f"signoff_{DONE}_comment_{MASS}_0").set_value("32 mm").run()
    click(at, "accept", MASS)
    kept = desk.review(DONE).decisions[MASS]
    assert (kept.decision.choice, kept.decision.presence, kept.decision.comment) == (Choice.accept, "present", "32 mm")
    assert kept.by == "Anna Roth"
    assert at.session_state["finding"] == STONE
    assert at.button(key=f"signoff_{DONE}_reject_{STONE}").disabled  # an undecided answer has no opposite
    assert "1 of 2 decided" in texts(at)


def test_a_correction_says_what_is_right_and_where(at: AppTest, desk: Reviews) -> None:
    click(at, "correct", MASS)
    at.button_group[0].set_value("present").run()
    at.selectbox(key=f"signoff_{DONE}_region_{MASS}").set_value("kidney_left").run()
    click(at, "save", MASS)
    told = desk.review(DONE).decisions[MASS].decision
    assert (told.choice, told.presence, told.region) == (Choice.correct, "present", "kidney_left")


def test_everything_decided_can_be_signed_and_opened_again(at: AppTest, desk: Reviews) -> None:
    click(at, "reject", MASS)
    click(at, "accept", STONE)
    click(at, "sign")
    assert desk.review(DONE).status == Status.signed
    assert "✓ signed" in texts(at)
    assert f"signoff_{DONE}_accept_{STONE}" not in [b.key for b in at.button]
    click(at, "open")
    assert "say why" in texts(at)
    at.text_input(key=f"signoff_{DONE}_reason").set_value("arterial phase").run()
    click(at, "open")
    assert desk.review(DONE).status == Status.in_review
    assert "arterial phase" in texts(at)
    click(at, "row", MASS)
    click(at, "undo", MASS)
    assert MASS not in desk.review(DONE).decisions


def test_another_reviewer_who_was_faster_is_named(at: AppTest, desk: Reviews) -> None:
    by_bert(desk, Decision(MASS, Choice.accept, comment="seen in two planes"))
    click(at, "reject", MASS)
    said = texts(at)
    assert "**Bert Söll** was faster" in said
    assert "Renal mass accepted as present in kidney right (seen in two planes)" in said
    assert "Yours (reject) was not saved, and nothing was overwritten" in said
    assert desk.review(DONE).decisions[MASS].by == "Bert Söll"
    assert "was faster" not in texts(at.run())
    click(at, "reject", MASS)  # now with theirs in sight
    assert desk.review(DONE).decisions[MASS].by == "Anna Roth"


def test_new_answers_are_said_and_nothing_is_saved_on_them(at: AppTest, root: Path, desk: Reviews) -> None:
    click(at, "accept", MASS)
    path = root / "studies" / DONE / "findings.json"
    path.write_text(json.dumps(study_json(DONE, findings=[finding("renal_mass", "kidney_right", 0.1, "absent")])))
    click(at, "accept", STONE)
    said = texts(at)
    assert "answers about this study changed since you opened it" in said
    assert "The earlier decisions are kept as history" in said
    assert dict(desk.review(DONE).decisions) == {}


def test_a_missed_finding_is_added_and_dropped(at: AppTest, desk: Reviews) -> None:
    at.text_input(key=f"signoff_{DONE}_own").set_value("Horseshoe <b>kidney</b>").run()
    click(at, "add")
    (kept,) = desk.review(DONE).added
    assert kept.decision.label == "Horseshoe <b>kidney</b>"
    assert "Horseshoe <b>kidney</b>" in texts(at)
    assert "<b>" not in "".join(m.value.replace("\\<", "") for m in at.markdown)
    click(at, "drop", kept.decision.item)
    assert desk.review(DONE).added == ()


def test_a_reader_looks_and_what_they_saw_is_noted(root: Path, desk: Reviews) -> None:
    by_bert(desk, Decision(MASS, Choice.accept))
    at = AppTest.from_file(str(PAGE), default_timeout=60)
    at.session_state["role"], at.session_state["who"], at.session_state["finding"] = "reader", "Guest", MASS
    at.run().run()
    assert not at.exception
    assert "you may look, not decide" in texts(at)
    assert not [b.key for b in at.button if b.key and b.key.startswith(f"signoff_{DONE}_accept")]
    mine = [(row["what"], row["detail"].get("item")) for row in desk.events() if row["who"] == "Guest"]
    assert mine == [("view opened", None), ("finding viewed", MASS)]


def test_a_study_that_cannot_be_read_is_rejected(root: Path, desk: Reviews) -> None:
    at = AppTest.from_file(str(PAGE), default_timeout=60)
    at.session_state["case"] = "b0skipped"
    at.run()
    at.text_input(key="signoff_b0skipped_reason").set_value("motion").run()
    at.button(key="signoff_b0skipped_reject_study").click().run()
    assert not at.exception
    assert desk.review("b0skipped").status == Status.rejected
    assert "motion" in texts(at)


def test_a_record_that_cannot_be_written_is_said(at: AppTest, desk: Reviews) -> None:
    with desk.writing() as db:
        db.exec_driver_sql("DROP TABLE history")
    click(at, "accept", MASS)
    assert "cannot be written (OperationalError)" in texts(at)
    assert MASS not in desk.review(DONE).decisions
