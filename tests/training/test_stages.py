"""A run that stopped goes on where it was, and never mixes two recipes."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

from tiny import OVERRIDES, Tiny, train

from medvl.models.bundle import open_bundle
from medvl_pipelines import train as verb

STAGES = ("attributes", "text", "align_frozen", "align_joint", "align_statements", "localiser")


def _kept(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in (out / "stages").glob("*/weights.safetensors")}


def test_a_second_run_trains_nothing_and_gives_the_same_bundle(tiny_run: Tiny, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tiny_run.out, tmp_path / "again"))
    shutil.rmtree(out / "bundle")
    kept = _kept(out)
    again = train(out)
    assert _kept(out) == kept
    assert len(kept) == len(STAGES)
    assert open_bundle(again.bundle).sha256 == open_bundle(tiny_run.bundle).sha256


def test_every_stage_left_a_receipt_and_a_curve(tiny_run: Tiny) -> None:
    for name in STAGES:
        folder = next((tiny_run.out / "stages").glob(f"{name}-*"))
        receipt = json.loads((folder / "receipt.json").read_text())
        assert len(receipt["sha256"]) == 64
        assert receipt["samples_per_s"] > 0
        assert (folder / "curves.jsonl").read_text()


def test_a_change_keeps_the_stages_before_it(tiny_run: Tiny, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tiny_run.out, tmp_path / "changed"))
    kept = _kept(out)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        verb.run("phantom-demo", out, [*OVERRIDES, "stages.align_statements.steps=1"])
    fresh = _kept(out).keys() - kept.keys()
    assert {name.split("/")[1].rpartition("-")[0] for name in fresh} == {"align_statements"}
    assert all(_kept(out)[name] == when for name, when in kept.items())
