"""Report texts: versions, conflicts, history, exports; a draft until somebody signs."""

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from reviewed import ANNA, BERT, CASE, CYST, GUEST, MASS, results_of, save, signed, write

from medvl.review.desk import Reviews
from medvl.review.export import export
from medvl.review.record import ConflictError, NotAllowedError, Person, ReportText, Review, ReviewError, Status

DRAFT = "Left kidney: A mass is seen."
MINE = "Left kidney: An exophytic mass of 32 mm is seen."


def write_text(desk: Reviews, text: str, who: Person = ANNA, expected: int | None = None) -> ReportText | None:
    now = desk.review(CASE)
    version = now.text_version if expected is None else expected
    return desk.save_text(CASE, text, who, proposed=DRAFT, expected_version=version, results=now.answers.sha256)


def tampered(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "reviews.sqlite")) as db, db:
        db.execute(statement)


def test_every_version_is_kept_and_the_last_one_stands(desk: Reviews) -> None:
    assert desk.review(CASE).text is None
    write_text(desk, MINE)
    kept = write_text(desk, f"  {MINE} No stone. \n", BERT)
    found = desk.review(CASE)
    assert found.text == kept
    assert (kept.text, kept.by, kept.version, kept.changed) == (f"{MINE} No stone.", "Bert Söll", 2, True)
    assert found.status == Status.in_review
    told = [(row["by"], row["what"], row["content"]["text"]) for row in desk.history(CASE)]
    assert told == [
        ("Anna Roth", "report text saved", MINE),
        ("Bert Söll", "report text saved", f"{MINE} No stone."),
    ]
    assert [row["what"] for row in desk.events()][-2:] == ["report text saved"] * 2
    assert all("mass" not in json.dumps(row["detail"]) for row in desk.events())  # the log tells that, not what
    with Reviews(desk.folder) as again:
        assert again.review(CASE).text == kept
    assert desk.verify().problems == ()


def test_two_writers_at_once_lose_nothing(desk: Reviews) -> None:
    write_text(desk, MINE)
    with pytest.raises(ConflictError, match="Anna Roth changed this"):
        write_text(desk, "Bert was slower.", BERT, expected=0)
    assert desk.review(CASE).text.text == MINE
    assert write_text(desk, MINE, BERT, expected=0).version == 1  # the same words, sent twice
    assert write_text(desk, "Now he knows.", BERT).version == 2


def test_a_text_taken_back_counts_on(desk: Reviews) -> None:
    write_text(desk, MINE)
    assert write_text(desk, "  ") is None
    found = desk.review(CASE)
    assert (found.text, found.text_version) == (None, 2)
    with pytest.raises(ConflictError, match="taken back"):
        write_text(desk, "x", BERT, expected=1)
    assert write_text(desk, "Again.").version == 3
    assert desk.verify().problems == ()


def test_who_may_write_and_how_much(desk: Reviews) -> None:
    with pytest.raises(NotAllowedError):
        write_text(desk, MINE, GUEST)
    with pytest.raises(ReviewError, match="20001 characters"):
        write_text(desk, "x" * 20_001)
    assert desk.review(CASE).version == 0


def finished(desk: Reviews) -> Review:
    save(desk, MASS, "accept")
    save(desk, CYST, "accept")
    write_text(desk, MINE)
    return signed(desk)


def test_nothing_is_final_before_somebody_signs(desk: Reviews) -> None:
    write_text(desk, MINE)
    told = json.loads(export(desk, CASE, "json", ANNA))["report"]
    assert (told["final"], told["text"], told["proposed_by_software"], told["by"]) == (False, MINE, DRAFT, "Anna Roth")
    finished(desk)
    told = json.loads(export(desk, CASE, "json", ANNA))["report"]
    assert (told["final"], told["changed_by_human"], told["version"]) == (True, True, 1)
    with pytest.raises(ConflictError, match="open it again first"):
        write_text(desk, "After the signature.")
    assert desk.history(CASE)[-1]["content"]["text"] == 1
    now = desk.review(CASE)
    desk.unsign(CASE, ANNA, "a word was wrong", expected_version=now.version, results=now.answers.sha256)
    assert json.loads(export(desk, CASE, "json", ANNA))["report"]["final"] is False


def test_a_text_changes_what_a_signature_is_about(desk: Reviews) -> None:
    save(desk, MASS, "accept")
    save(desk, CYST, "accept")
    before = desk.review(CASE)
    write_text(desk, MINE, BERT)
    with pytest.raises(ConflictError):
        desk.sign(CASE, ANNA, expected_version=before.version, results=before.answers.sha256)


def test_new_answers_begin_without_a_text(desk: Reviews) -> None:
    write_text(desk, MINE)
    write(desk.folder, made_at="2026-02-01T00:00:00+00:00")
    assert desk.review(CASE).text is None
    assert desk.history(CASE)[0]["content"]["text"] == MINE


@pytest.mark.parametrize("final", [False, True])
def test_the_pdf_says_whether_the_text_is_a_report(desk: Reviews, tmp_path: Path, *, final: bool) -> None:
    pytest.importorskip("matplotlib")
    if final:
        finished(desk)
    else:
        write_text(desk, MINE)
    path = tmp_path / "review.pdf"
    path.write_bytes(export(desk, CASE, "pdf", ANNA))
    told = subprocess.run(["pdftotext", "-layout", str(path), "-"], capture_output=True, text=True, check=True).stdout
    assert MINE in told
    assert ("Report text, signed with the study" in told) == final
    assert ("DRAFT of a report, not signed" in told) != final
    assert "edited from a draft by software; saved by Anna Roth" in told


def test_an_altered_text_is_found_out(desk: Reviews) -> None:
    write_text(desk, MINE)
    tampered(desk.folder, "UPDATE texts SET text = 'Normal.'")
    assert desk.verify().problems == (f"the report text of study {CASE} is not as its history says",)


def test_a_database_of_before_is_brought_up_to_date(desk: Reviews) -> None:
    save(desk, MASS, "accept")
    desk.close()
    tampered(desk.folder, "DROP TABLE texts")
    tampered(desk.folder, "UPDATE about SET value = '1' WHERE name = 'schema'")
    with Reviews(desk.folder) as again:
        assert MASS in again.review(CASE).decisions
        assert write_text(again, MINE).version == 1
        assert again.verify().problems == ()
        assert "log of an older medvl continued" in [row["what"] for row in again.events()]
    assert results_of(desk.folder)
