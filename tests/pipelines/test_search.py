"""`medvl index` and `medvl search` from embedded folders to a printed table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from medvl.evaluation.embedded import Embedded
from medvl.models.bundle import open_bundle
from medvl_pipelines.cli import main

if TYPE_CHECKING:
    from tiny import Tiny


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in argv])
    return int(left.value.code or 0)


def cohort(patients: int = 8, width: int = 16, model_sha256: str = "a" * 64) -> Embedded:
    """Two kidneys a patient; the left one of P1 was not usable and has no report."""
    rng = np.random.default_rng(0)
    n = 2 * patients
    who = [f"P{i // 2}" for i in range(n)]
    rows = pd.DataFrame({"patient_id": who, "region": ["kidney_left", "kidney_right"] * patients, "kind": "kidney"})
    rows["report"] = [f"Secret words {i}." for i in range(n)]
    rows["reason"] = ["region_incomplete" if i == 2 else "" for i in range(n)]
    names = pd.Index(sorted(set(who)), name="patient_id")
    people = pd.DataFrame({"sex": ["F", "M"] * (patients // 2), "age_years": 40.0 + 5 * np.arange(patients)}, index=names)
    people["kernel"] = ["soft", None] * (patients // 2)
    vectors = rng.normal(size=(3, n, width)).astype(np.float32)
    vectors[2, 2] = np.nan
    said = np.tile(np.array([[1, 0], [-1, 1]], np.int8), (patients, 1))
    source = {"model": "m", "model_sha256": model_sha256, "contract_hash": "b" * 64, "cohort": "made", "split": "test"}
    margins, truth = np.zeros((n, 2), np.float32), np.full((n, 2), -1, np.int8)
    return Embedded(rows, people, *vectors, ("mass", "cyst"), margins, said, truth, source)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    cohort().save(tmp_path / "embedded")
    assert run("index", "build", tmp_path / "embedded", "--out", tmp_path / "index") == 0
    return tmp_path / "index"


def test_a_case_finds_others_under_a_filter_and_prints_no_report(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    asked = ("search", index, "--like", "P3/kidney_left", "--filter", "side=left age>=50 finding:mass", "--json")
    assert run(*asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert {hit["patient"] for hit in told["hits"]} == {"P2", "P4", "P5", "P6", "P7"}
    assert (told["cases"], told["searched"]) == (15, 5)
    made = cohort()
    unit = made.embedding / np.linalg.norm(made.embedding, axis=1, keepdims=True)
    best = max(("P2", "P4", "P5", "P6", "P7"), key=lambda p: unit[2 * int(p[1])] @ unit[6])
    assert told["hits"][0]["patient"] == best
    assert told["hits"][0]["score"] == pytest.approx(float(unit[2 * int(best[1])] @ unit[6]), abs=1e-6)
    assert all("report" not in hit for hit in told["hits"])
    for flags, shown in (((), False), (("--show-text",), True)):
        assert run("search", index, "--like", "P3/kidney_left", "-k", "3", *flags) == 0
        out = capsys.readouterr().out
        assert ("Secret" in out) is shown
        assert "14 cases searched" in out or "13 of 15 cases searched" in out


def test_a_value_that_no_case_has_is_not_an_empty_answer(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("search", index, "--like", "P3/kidney_left", "--filter")
    assert run(*asked, "side=lef") == 2
    assert "no case of the index has side lef; did you mean left?" in capsys.readouterr().err
    assert run(*asked, "phase=delayed") == 0
    shown = capsys.readouterr()
    assert "0 of 15 cases searched" in shown.out
    assert "no case of the index passes the filter phase=delayed" in shown.err


def test_the_index_is_kept(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = index.parent / "embedded"
    assert run("index", "build", folder, "--out", index) == 2
    assert "in the index already" in capsys.readouterr().err
    assert run("index", "build", folder, "--out", index, "--replace") == 0
    assert run("index", "delete", index, "--patient", "P6") == 0
    assert run("index", "delete", index, "--patient", "P6") == 2
    capsys.readouterr()
    assert run("index", "info", index, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["cases"], told["deleted_rows"], told["vectors"]) == (13, 0, {"image": 13, "report": 13})
    assert run("index", "compact", index) == run("index", "verify", index) == 0
    path = next(index.rglob("image-*.f32"))
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    assert run("index", "verify", index) == 2


def test_another_model_and_half_a_question_are_refused(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort(model_sha256="c" * 64).save(index.parent / "other")
    assert run("index", "build", index.parent / "other", "--out", index) == 2
    assert "mean nothing" in capsys.readouterr().err
    assert run("search", index) == run("search", index, "--text", "a", "--like", "P0/kidney_left") == 2
    assert run("search", index, "--text", "A cyst.") == 2
    assert "--bundle" in capsys.readouterr().err
    assert run("search", index, "--text", "A cyst.", "--bundle", "phantom-demo") == 2
    assert "mean nothing" in capsys.readouterr().err


def test_words_find_what_their_vector_finds(tiny_run: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from medvl.inference.predictor import Predictor

    opened = open_bundle(tiny_run.bundle)
    vector = Predictor(opened).embed_texts(["A cyst."])[0].numpy()
    made = cohort(width=len(vector))
    made.embedding[5] = vector
    source = {**made.source, "model_sha256": opened.sha256, "contract_hash": opened.contract.hash}
    replace(made, source=source).save(tmp_path / "embedded")
    assert run("index", "build", tmp_path / "embedded", "--out", tmp_path / "index") == 0
    capsys.readouterr()
    asked = ("search", tmp_path / "index", "--text", "A cyst.", "--bundle", tiny_run.bundle, "-k", "1", "--json")
    assert run(*asked, "--literal") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["hits"][0]["id"], told["hits"][0]["score"]) == ("P2/kidney_right", pytest.approx(1, abs=1e-6))
    assert told["scores"] == "cosines"
    assert run(*asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert "negation" in told["scores"]
