"""`medvl draft` on a result of inference: templates, a file to read and one to parse, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medvl.errors import ConfigError
from medvl.models.bundle import open_bundle
from medvl_pipelines import draft as verb
from medvl_pipelines.built_in import bundle_folder

BUNDLE = "phantom-demo"


def result(folder: Path, **changes: object) -> Path:
    opened = open_bundle(bundle_folder(BUNDLE))

    def row(finding: str, region: str, verdict: str, score: float) -> dict[str, object]:
        told = [{"code": "near_threshold", "message": "score 0.40 lies between 0.30 and 0.50"}] if verdict == "undecided" else []
        peak = [1.0, 2.0, 3.0] if verdict == "present" else None
        return {"finding": finding, "region": region, "verdict": verdict, "score": score, "reasons": told, "peak_lps": peak}

    record = {
        "schema": "medvl.findings/1",
        "case_id": "0a1b2c3d4e5f",
        "bundle": {"name": opened.name, "sha256": opened.sha256},
        "status": "done",
        "findings": [
            row("renal_mass", "kidney_left", "present", 0.9),
            row("renal_cyst", "kidney_left", "absent", 0.1),
            row("hydronephrosis", "kidney_left", "undecided", 0.4),
        ],
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "findings.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_a_result_becomes_a_draft_that_says_it_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = result(tmp_path / "study")
    assert verb.run(source, bundle=BUNDLE, out=tmp_path / "draft") == 0
    text = (tmp_path / "draft" / "draft.txt").read_text(encoding="utf-8")
    assert "DRAFT, NOT REVIEWED" in text and "There is a renal mass in the left kidney." in text
    draft = json.loads((tmp_path / "draft" / "draft.json").read_text(encoding="utf-8"))["retrieval"]
    assert (draft["status"], draft["review"], draft["case_id"]) == ("draft: not reviewed", None, "0a1b2c3d4e5f")
    first = draft["sentences"][0]
    assert first["peaks_lps"] == {"renal_mass": [1.0, 2.0, 3.0]} and first["probabilities"] == {"renal_mass": 0.9}
    capsys.readouterr()
    verb.run(source / "findings.json", bundle=BUNDLE, as_json=True)
    assert json.loads(capsys.readouterr().out)["retrieval"] == draft
    verb.run(source, bundle=BUNDLE)
    assert "No simple renal cyst in the left kidney." in capsys.readouterr().out


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    source = result(tmp_path / "study")
    for option in ("reports", "captioner"):
        with pytest.raises(ConfigError, match="give the study itself"):
            verb.run(source, bundle=BUNDLE, **{option: tmp_path})  # type: ignore[arg-type]
    other = result(tmp_path / "other", bundle={"name": "older", "sha256": "00"})
    with pytest.raises(ConfigError, match="older"):
        verb.run(other, bundle=BUNDLE)
