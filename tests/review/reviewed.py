"""Results folders to be reviewed: findings.json as `medvl infer` writes it, without a model."""

import json
from pathlib import Path
from typing import Any

from medvl.review.answers import read_answers
from medvl.review.desk import Reviews
from medvl.review.record import Choice, Decision, Person, Review

CASE = "0123456789ab"
ANNA, BERT, GUEST = Person("Anna Roth", "reviewer"), Person("Bert Söll", "reviewer"), Person("Guest", "reader")
MASS, CYST, STONE = "renal_mass@kidney_left", "renal_cyst@kidney_right", "stone@kidney_left"


def answer(finding: str, region: str, verdict: str, score: float) -> dict[str, Any]:
    """One entry of `findings`, as far as a review reads it."""
    return {"finding": finding, "label": finding.replace("_", " ").capitalize(), "region": region, "verdict": verdict,
            "score": score}  # fmt: skip


def write(folder: Path, case: str = CASE, **changes: Any) -> Path:
    """A study with a mass said to be present, a cyst undecided and a stone absent."""
    findings = [
        answer("renal_mass", "kidney_left", "present", 0.9),
        answer("renal_cyst", "kidney_right", "undecided", 0.44),
        answer("stone", "kidney_left", "absent", 0.02),
    ]
    record = {
        "schema": "medvl.findings/1", "case_id": case, "status": "done", "made_at": "2026-01-01T00:00:00+00:00",
        "bundle": {"name": "phantom-demo", "sha256": "ab" * 32}, "findings": findings,
    } | changes  # fmt: skip
    path = folder / "studies" / case / "findings.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record), encoding="utf-8")
    part.replace(path)
    return folder


def save(desk: Reviews, item: str, choice: str, who: Person = ANNA, *, case: str = CASE, **more: Any) -> Any:
    """Decide as somebody who sees what is there now."""
    now = desk.review(case)
    decision = Decision(item, Choice(choice), **more)
    return desk.save(case, decision, who, expected_version=now.versions.get(item, 0), results=now.answers.sha256)


def signed(desk: Reviews, who: Person = ANNA, *, case: str = CASE) -> Review:
    """Sign as somebody who sees what is there now."""
    now = desk.review(case)
    return desk.sign(case, who, expected_version=now.version, results=now.answers.sha256)


def results_of(folder: Path, case: str = CASE) -> str:
    """SHA-256 of the answers."""
    return read_answers(folder, case).sha256
