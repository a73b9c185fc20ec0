"""The audit log: everything is in it, and whoever alters it is found out."""

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from reviewed import ANNA, BERT, CASE, CYST, GUEST, MASS, save, signed

from medvl.errors import ConfigError
from medvl.review.desk import Reviews


@pytest.fixture
def busy(desk: Reviews) -> Reviews:
    """A study was opened, decided and signed."""
    desk.log(GUEST, "sign-in failed")
    desk.opened(CASE, ANNA)
    desk.log(ANNA, "finding viewed", CASE, item=MASS)
    save(desk, MASS, "accept")
    save(desk, CYST, "accept", BERT)
    signed(desk)
    desk.log(ANNA, "exported", CASE, kind="json")
    assert desk.verify().problems == ()
    return desk


@contextmanager
def raw(desk: Reviews) -> Iterator[sqlite3.Connection]:
    """The database as somebody with the file opens it, triggers taken away."""
    with closing(sqlite3.connect(desk.folder / "reviews.sqlite")) as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        yield db
        db.commit()


def test_everything_is_told_in_order(busy: Reviews) -> None:
    told = [(row["number"], row["who"], row["what"], row["case_id"]) for row in busy.events()]
    assert told == [
        (1, "medvl", "log begun", ""),
        (2, "Guest", "sign-in failed", ""),
        (3, "Anna Roth", "view opened", CASE),
        (4, "Anna Roth", "finding viewed", CASE),
        (5, "Anna Roth", "decision saved", CASE),
        (6, "Bert Söll", "decision saved", CASE),
        (7, "Anna Roth", "signed", CASE),
        (8, "Anna Roth", "exported", CASE),
    ]


def test_the_chain_is_what_it_says_it_is(busy: Reviews) -> None:
    """Worked out anew from the file and the key alone."""
    folder_key = bytes.fromhex((busy.folder / "reviews.key").read_text())
    key = hmac.new(folder_key, b"medvl audit chain", "sha256").digest()
    before = "0" * 64
    with closing(sqlite3.connect(busy.folder / "reviews.sqlite")) as db:
        for *values, digest in db.execute("SELECT number, at, who, role, what, case_id, detail, digest FROM audit"):
            assert digest == hmac.new(key, (before + json.dumps(values)).encode(), hashlib.sha256).hexdigest()
            before = digest
    assert busy.verify().head == f"8:{before}"


@pytest.mark.parametrize("table", ["audit", "history"])
@pytest.mark.parametrize("change", ["DELETE FROM {}", "UPDATE {} SET role = 'admin'"])
def test_rows_are_only_ever_added(busy: Reviews, table: str, change: str) -> None:
    with (
        closing(sqlite3.connect(busy.folder / "reviews.sqlite")) as db,
        pytest.raises(sqlite3.IntegrityError, match="only ever added"),
    ):
        db.execute(change.format(table))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE audit SET who = 'Bert Söll' WHERE number = 5", "row 5 was altered"),
        ("UPDATE audit SET at = at + 1 WHERE number = 3", "row 3 was altered"),
        ("DELETE FROM audit WHERE number = 4", "rows 4 to 4 were removed"),
        ("DELETE FROM audit WHERE number > 6", "the seal names row 8, the log ends at row 6"),
        ("DELETE FROM audit", "the seal names row 8"),
        ("DELETE FROM audit; DELETE FROM about WHERE name = 'audit head'", "seal of the log's end is broken"),
        ("INSERT INTO audit SELECT 9, at, who, role, what, case_id, detail, digest FROM audit WHERE number = 8", "row 9 was"),
        (
            "UPDATE audit SET number = 99 WHERE number = 4; UPDATE audit SET number = 4 WHERE number = 5; "
            "UPDATE audit SET number = 5 WHERE number = 99",
            "row 4 was altered, or moved",
        ),
        ("UPDATE audit SET detail = 'x' WHERE number = 5", "row 5 was altered"),
        ("UPDATE history SET content = replace(content, 'present', 'absent')", "row 1 of the history was altered"),
        ("UPDATE history SET content = 'x' WHERE number = 3", "row 3 of the history was altered"),
        ("DELETE FROM history WHERE number = 2", "row 2 of the history was removed"),
        (
            "INSERT INTO history SELECT 77, at, by, role, case_id, results, what, item, version, content FROM history LIMIT 1",
            "row 77 of the history was added from outside",
        ),
        ("UPDATE decisions SET presence = 'absent'", "the decision on renal_mass@kidney_left"),
        ("DELETE FROM decisions", "the decision on renal_cyst@kidney_right"),
        ("UPDATE studies SET status = 'in review'", f"the status of study {CASE}"),
    ],
)
def test_tampering_is_found(busy: Reviews, change: str, told: str) -> None:
    with raw(busy) as db:
        db.executescript(change)
    assert any(told in problem for problem in busy.verify().problems), busy.verify().problems


def test_an_old_copy_put_back_is_found_by_a_noted_head(busy: Reviews) -> None:
    with closing(sqlite3.connect(busy.folder / "reviews.sqlite")) as db, closing(sqlite3.connect(":memory:")) as copy:
        db.backup(copy)
        busy.log(ANNA, "exported", CASE)
        noted = busy.verify().head
        copy.backup(db)
    assert busy.verify().problems == ()
    assert "row 9 was noted" in busy.verify(noted).problems[0]
    busy.log(BERT, "exported", CASE)
    assert "not the one that was noted" in busy.verify(noted).problems[0]
    with pytest.raises(ConfigError, match="looks like"):
        busy.verify("nonsense")
