"""`medvl evaluate` on a small trained bundle: from phantoms or a folder to a record, a report and an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pretend_lesions import LABELS, cohorts
from tiny import Tiny

from medvl.models.bundle import open_bundle
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
    assert "ten-tasks: R.E.N.A.L. parts, malignancy" in shown


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


def test_ten_tasks_on_ones_own_cohorts_and_labels(tiny_run: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = str(tiny_run.bundle)
    given: list[str] = []
    for split, (table,) in cohorts(model_sha256=open_bundle(tiny_run.bundle).sha256, cohort="ours").items():
        table.save(tmp_path / split)
        given += ["--embedded" if split == "test" else "--training", str(tmp_path / split)]
    LABELS.to_csv(tmp_path / "lesions.csv", index=False)
    built = (Path(__file__).parents[2] / "configs" / "protocols" / "ten-tasks.yaml").read_text(encoding="utf-8")
    quick = tmp_path / "quick.yaml"
    quick.write_text(
        built.replace("image_cosine: 0.99", "image_cosine: 1.0").replace("fractions: [0.01, 0.05", "fractions: [0.4] #")
    )

    labels = ("--labels", str(tmp_path / "lesions.csv"))
    asked = ("evaluate", bundle, "--protocol", str(quick), "--draws", "100", *given)
    assert run(*asked, *labels, "--against", f"{bundle}={tmp_path}", "--out", str(tmp_path / "out")) == 0
    shown = capsys.readouterr()
    assert "RFS: not measured (the labels have no column rfs_days, rfs_event)" in shown.err
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert found["tasks"]["R"]["image"]["quadratic kappa"]["ci"][0] > 0.5
    assert found["tasks"]["OS"]["difference"]["second"]["value"] == 0
    assert {"report.html", "report.md", "figures", "results.json"} == {p.name for p in (tmp_path / "out").iterdir()}

    assert run(*asked) == 2
    assert "cohort ours is not of phantoms" in capsys.readouterr().err
    assert run("evaluate", bundle, "--protocol", "ten-tasks", *given[:2], *labels) == 2
    assert "no validation and no test cohort" in capsys.readouterr().err
    assert run("evaluate", bundle, *labels) == 2
    assert "takes one embedded folder and no labels" in capsys.readouterr().err
