"""`medvl review`: labels and the audit log from the command line."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from medvl.review.desk import Reviews
from medvl.review.record import Choice, Decision, Person
from medvl_pipelines.cli import main

ME = Person("Anna Roth", "reviewer")


@pytest.fixture
def reviewed(tmp_path: Path) -> Path:
    """One signed study with one finding that the model got wrong."""
    path = tmp_path / "results" / "studies" / "abc" / "findings.json"
    path.parent.mkdir(parents=True)
    cyst = {"finding": "cyst", "label": "Cyst", "region": "kidney_left", "verdict": "present", "score": 0.8}
    bundle = {"name": "b", "sha256": "0" * 64}
    path.write_text(json.dumps({"schema": "medvl.findings/1", "status": "done", "bundle": bundle, "findings": [cyst]}))
    with Reviews(tmp_path / "results") as desk:
        seen = desk.review("abc").answers.sha256
        desk.save("abc", Decision("cyst@kidney_left", Choice.reject), ME, expected_version=0, results=seen)
        desk.sign("abc", ME, expected_version=desk.review("abc").version, results=seen)
    return tmp_path / "results"


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in argv])
    return int(left.value.code or 0)


def test_labels_and_what_they_say(reviewed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("review", "export", reviewed, "--out", tmp_path / "l.json", "--format", "json") == 0
    assert "1 labels of 1 studies, 1 of them against the model" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "l.json").read_text())
    assert (row["case_id"], row["finding"], row["region"], row["label"], row["source"]) == (
        "abc", "cyst", "kidney_left", "absent", "review")  # fmt: skip
    with Reviews(reviewed) as desk:
        assert desk.events()[-1]["what"] == "labels exported"


def test_the_log_is_checked(reviewed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("review", "audit", reviewed, "--verify", "--json") == 0
    head = json.loads(capsys.readouterr().out)["checked"]["head"]
    assert run("review", "audit", reviewed, "--since", head, "--out", tmp_path / "log.jsonl") == 0
    assert f"elsewhere: {head}" in capsys.readouterr().out
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == int(head.partition(":")[0])
    assert run("review", "audit", reviewed) == 0
    assert "Anna Roth (reviewer)  decision saved  abc" in capsys.readouterr().out
    with closing(sqlite3.connect(reviewed / "reviews.sqlite")) as db:
        db.executescript("DROP TRIGGER audit_no_update; UPDATE audit SET who = 'x' WHERE number = 2")
    assert run("review", "audit", reviewed, "--verify") == 5
    assert "TAMPERED  row 2 was altered" in capsys.readouterr().out


def test_a_folder_that_nobody_reviewed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("review", "audit", tmp_path) == 2
    assert "nobody reviewed anything" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
