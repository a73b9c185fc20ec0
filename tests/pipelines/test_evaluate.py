"""`medvl evaluate` on a small trained bundle: from phantoms or a folder to a record, a report and an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import Tiny

from medvl_pipelines.cli import main


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(argv)
    return int(left.value.code or 0)


def test_protocols_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "--protocol", "list") == 0
    shown = capsys.readouterr().out
    assert "phantom-held-out: " in shown
    assert "reports-held-out: " in shown


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--protocol", "phantom-held-outt", "b"], "did you mean phantom-held-out?"),
        ([], "name the bundle to evaluate"),
        (["no-such-bundle"], "no bundle called no-such-bundle"),
    ],
)
def test_what_is_missing_is_named(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", *argv) == 2
    assert says in capsys.readouterr().err


def test_phantoms_to_report_and_back(tiny_run: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, out = str(tiny_run.bundle), tmp_path / "out"
    assert run("evaluate", bundle, "--out", str(out), "--draws", "100") == 0
    shown = capsys.readouterr()
    assert "Not a medical device" in shown.out
    assert "no other split was given" in shown.err
    told = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert told["cohort"]["patients"] == 2
    assert told["protocol"]["name"] == "phantom-held-out"
    assert {"report.html", "report.md", "figures", "embedded"} <= {p.name for p in out.iterdir()}

    again = ("evaluate", bundle, "--embedded", str(out / "embedded"), "--draws", "100", "--json")
    assert run(*again) == 0
    assert json.loads(capsys.readouterr().out) == told

    assert run(*again, "--training", str(out / "embedded"), "--against", f"{bundle}={out / 'embedded'}") == 5
    found = json.loads(capsys.readouterr().out)
    assert found["leaks"]["splits"]["test (phantom seed 11)"]["patients"]["n"] == 2
    assert found["comparison"]["regions"]["shared"] == 6
