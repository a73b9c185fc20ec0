"""Decisions: kept, never overwritten, tied to the answers they are about."""

import hashlib
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from reviewed import ANNA, BERT, CASE, CYST, GUEST, MASS, STONE, answer, results_of, save, signed, write

from medvl.errors import ConfigError, InputError
from medvl.review.desk import Reviews
from medvl.review.record import (
    AnswersChangedError,
    Choice,
    ConflictError,
    Decision,
    NotAllowedError,
    ReviewError,
    Status,
    UnfinishedError,
)


def test_files_are_for_their_owner_alone(desk: Reviews) -> None:
    for name in ("reviews.sqlite", "reviews.key"):
        assert stat.S_IMODE((desk.folder / name).stat().st_mode) == 0o600


def test_a_decision_says_what_follows_from_the_answer(desk: Reviews) -> None:
    assert save(desk, MASS, "accept").decision.presence == "present"
    assert save(desk, MASS, "reject").decision.presence == "absent"
    assert save(desk, STONE, "reject").decision.presence == "present"
    assert save(desk, CYST, "accept").decision.presence == "undecided"
    kept = save(desk, MASS, "correct", presence="present", region="kidney_right", comment="  other side ")
    assert (kept.decision.region, kept.asked_of, kept.said) == ("kidney_right", "kidney_left", "present")
    assert (kept.decision.comment, kept.decision.label, kept.version) == ("other side", "Renal mass", 3)
    raw = (desk.folder / "studies" / CASE / "findings.json").read_bytes()
    assert kept.results == hashlib.sha256(raw).hexdigest()
    assert (kept.bundle, kept.by, kept.role) == ("ab" * 32, "Anna Roth", "reviewer")


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        (Decision(CYST, Choice.reject), "neither right nor wrong"),
        (Decision(MASS, Choice.correct), "present, absent or undecided"),
        (Decision("gout@knee", Choice.accept), "no such answer"),
        (Decision(MASS, Choice.correct, presence="absent", region="kidney_right"), "only be given for a finding that is present"),
        (Decision("added:1", Choice.added), "which finding"),
        (Decision(MASS, Choice.added, label="x"), "which finding"),
    ],
)
def test_decisions_that_mean_nothing_are_refused(desk: Reviews, decision: Decision, told: str) -> None:
    with pytest.raises(ReviewError, match=told):
        desk.save(CASE, decision, ANNA, expected_version=0, results=results_of(desk.folder))
    assert desk.review(CASE).status == Status.unread
    assert len(desk.events()) == 1


def test_two_reviewers_at_once_one_is_told_of_the_other(desk: Reviews) -> None:
    seen = desk.review(CASE)
    first = save(desk, MASS, "accept", comment="2 cm")
    with pytest.raises(ConflictError, match=r"Anna Roth changed this at \d{4}-.* UTC: .*accepted as present.*2 cm") as told:
        desk.save(CASE, Decision(MASS, Choice.reject), BERT, expected_version=0, results=seen.answers.sha256)
    assert (told.value.by, told.value.at, told.value.theirs) == ("Anna Roth", first.at, first)
    assert desk.review(CASE).decisions[MASS] == first
    save(desk, CYST, "accept", BERT)  # another finding of the same study is no conflict
    save(desk, MASS, "reject", BERT)  # with the newest in sight it is one more change
    assert [row["by"] for row in desk.history(CASE) if row["item"] == MASS] == ["Anna Roth", "Bert Söll"]


def test_the_same_click_twice_is_one_decision(desk: Reviews) -> None:
    seen = results_of(desk.folder)
    for _ in range(2):
        desk.save(CASE, Decision(MASS, Choice.accept), ANNA, expected_version=0, results=seen)
    assert len(desk.history(CASE)) == 1


def test_only_one_of_many_wins(desk: Reviews) -> None:
    seen, start = results_of(desk.folder), threading.Barrier(8)

    def decide(k: int) -> bool:
        start.wait()
        try:
            desk.save(CASE, Decision(MASS, Choice.accept, comment=str(k)), ANNA, expected_version=0, results=seen)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(decide, range(8)))
    assert sum(won) == 1
    assert desk.review(CASE).decisions[MASS].decision.comment == str(won.index(True))


def test_a_decision_taken_back_stays_in_the_history(desk: Reviews) -> None:
    save(desk, MASS, "accept")
    now = desk.review(CASE)
    desk.withdraw(CASE, MASS, BERT, expected_version=1, results=now.answers.sha256)
    now = desk.review(CASE)
    assert MASS not in now.decisions
    assert now.versions[MASS] == 2
    with pytest.raises(ConflictError, match="Bert Söll"):
        desk.save(CASE, Decision(MASS, Choice.accept), ANNA, expected_version=1, results=now.answers.sha256)
    assert [row["what"] for row in desk.history(CASE)] == ["decision saved", "decision withdrawn"]


def test_signing_needs_everything_but_the_absent_decided(desk: Reviews) -> None:
    save(desk, MASS, "accept")
    with pytest.raises(UnfinishedError, match="renal_cyst@kidney_right") as told:
        signed(desk)
    assert [item.name for item in told.value.missing] == [CYST]
    save(desk, CYST, "correct", presence="absent")
    assert signed(desk).status == Status.signed
    assert desk.statuses() == {CASE: Status.signed}
    with pytest.raises(ConflictError, match="the study is signed; open it again first"):
        save(desk, MASS, "reject", BERT)
    now = desk.review(CASE)
    with pytest.raises(ReviewError, match="say why"):
        desk.unsign(CASE, BERT, " ", expected_version=now.version, results=now.answers.sha256)
    again = desk.unsign(CASE, BERT, "saw the arterial phase", expected_version=now.version, results=now.answers.sha256)
    assert (again.status, again.comment, set(again.decisions)) == (Status.in_review, "saw the arterial phase", {MASS, CYST})
    save(desk, MASS, "reject", BERT)
    assert [row["what"] for row in desk.history(CASE)][2:] == ["signed", "opened again", "decision saved"]


def test_nobody_signs_what_they_did_not_see(desk: Reviews) -> None:
    save(desk, MASS, "accept")
    save(desk, CYST, "accept")
    seen = desk.review(CASE)
    save(desk, MASS, "reject", BERT)
    with pytest.raises(ConflictError, match=r"Bert Söll .*rejected, so absent"):
        desk.sign(CASE, ANNA, expected_version=seen.version, results=seen.answers.sha256)
    assert desk.review(CASE).status == Status.in_review


def test_new_answers_reopen_and_keep_the_old_decisions_as_history(desk: Reviews) -> None:
    save(desk, MASS, "accept")
    save(desk, CYST, "accept")
    old = signed(desk)
    write(desk.folder, findings=[answer("renal_mass", "kidney_left", "absent", 0.1)])
    assert desk.statuses() == {CASE: Status.unread}
    now = desk.review(CASE)
    assert (now.status, dict(now.decisions), now.earlier) == (Status.unread, {}, True)
    with pytest.raises(AnswersChangedError):
        desk.save(CASE, Decision(MASS, Choice.accept), BERT, expected_version=1, results=old.answers.sha256)
    assert desk.opened(CASE, BERT).status == Status.unread
    assert save(desk, MASS, "accept", BERT).decision.presence == "absent"
    kept = [(row["what"], row["results"]) for row in desk.history(CASE)]
    assert kept[-2:] == [(what, now.answers.sha256) for what in ("reopened by new answers", "decision saved")]
    assert {results for _, results in kept[:-2]} == {old.answers.sha256}
    assert desk.verify().problems == ()


def test_findings_that_the_model_missed_are_added(desk: Reviews) -> None:
    save(desk, "added:1", "added", finding="stone", label="Stone", region="kidney_right")
    save(desk, "added:2", "added", label="  Horseshoe\nkidney ", comment="free words")
    assert [(k.decision.label, k.said) for k in desk.review(CASE).added] == [("Stone", ""), ("Horseshoe kidney", "")]


def test_who_may_only_look_changes_nothing(desk: Reviews) -> None:
    with pytest.raises(NotAllowedError, match="reader may look but not decide"):
        save(desk, MASS, "accept", GUEST)
    desk.opened(CASE, GUEST)
    assert desk.history(CASE) == []


def test_studies_without_answers_can_be_rejected_but_not_signed(desk: Reviews) -> None:
    write(desk.folder, "skipped", status="skipped", findings=[])
    now = desk.review("skipped")
    with pytest.raises(ReviewError, match="reject it instead"):
        desk.sign("skipped", ANNA, expected_version=0, results=now.answers.sha256)
    gone = desk.reject("skipped", ANNA, "motion", expected_version=0, results=now.answers.sha256)
    assert (gone.status, gone.comment) == (Status.rejected, "motion")


def test_reading_time_adds_up_by_person(desk: Reviews) -> None:
    seen = results_of(desk.folder)
    for who, seconds in ((ANNA, 20), (ANNA, 12.5), (BERT, 3)):
        desk.add_time(CASE, seen, who, seconds)
    assert desk.review(CASE).seconds == {"Anna Roth": 32.5, "Bert Söll": 3}
    for wrong in (-1, 1e9, float("nan")):
        with pytest.raises(ReviewError, match="no reading time"):
            desk.add_time(CASE, seen, ANNA, wrong)


@pytest.mark.parametrize("case", ["../0123", "gone", ""])
def test_no_such_study(desk: Reviews, case: str) -> None:
    with pytest.raises(InputError, match="results_unreadable"):
        desk.review(case)


def test_a_lost_key_or_another_version_is_said(desk: Reviews) -> None:
    (desk.folder / "reviews.key").rename(desk.folder / "elsewhere")
    with pytest.raises(ConfigError, match="key of the reviews is gone"):
        Reviews(desk.folder)
    with desk.writing() as db:
        db.exec_driver_sql("UPDATE about SET value = '7' WHERE name = 'schema'")
    with pytest.raises(ConfigError, match="schema 7"):
        Reviews(desk.folder, key_file=desk.folder / "elsewhere")
