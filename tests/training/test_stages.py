"""A run that stopped goes on where it was, and never mixes two recipes."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
from tiny import OVERRIDES, Tiny, train

from medvl.errors import ConfigError
from medvl.models.bundle import open_bundle
from medvl_pipelines import train as verb

STAGES = ("attributes", "text", "align_frozen", "align_joint", "localiser")


def test_a_second_run_trains_nothing_and_gives_the_same_bundle(tiny_run: Tiny, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tiny_run.out, tmp_path / "again"))
    shutil.rmtree(out / "bundle")
    kept = {name: (out / f"{name}.safetensors").stat().st_mtime_ns for name in STAGES}
    curves = (out / "curves.jsonl").read_text()
    again = train(out)
    assert {name: (out / f"{name}.safetensors").stat().st_mtime_ns for name in STAGES} == kept
    assert (out / "curves.jsonl").read_text() == curves
    assert open_bundle(again.bundle).sha256 == open_bundle(tiny_run.bundle).sha256


def test_every_stage_left_a_receipt_and_a_curve(tiny_run: Tiny) -> None:
    told = [json.loads(line)["stage"] for line in (tiny_run.out / "curves.jsonl").read_text().splitlines()]
    assert set(told) == {"localiser", "attributes", "text", "align frozen", "align joint", "align statements"}
    for name in STAGES:
        receipt = json.loads((tiny_run.out / f"{name}.json").read_text())
        assert len(receipt["sha256"]) == 64
        assert receipt["wall_s"] >= 0


def test_a_folder_of_another_recipe_is_refused(tiny_run: Tiny) -> None:
    before = (tiny_run.out / "recipe.json").read_bytes()
    with pytest.raises(ConfigError, match="another recipe"), contextlib.redirect_stderr(io.StringIO()):
        verb.run("phantom-demo", tiny_run.out, [*OVERRIDES, "seed=1"])
    assert (tiny_run.out / "recipe.json").read_bytes() == before
