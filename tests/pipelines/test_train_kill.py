"""`medvl train` stopped at any moment, by any signal, ends with the bits of a run that was never stopped."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from shrunk import command, digests, environment, run, stages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
STEPS = 40
EVERY_STEP = ("--checkpoint-minutes", "0")


def begin(words: list[str], out: Path, stage: str) -> subprocess.Popen[str]:
    """Start a run and wait until a stage has made a step in it, or the run has ended."""
    before = {path: path.stat().st_mtime_ns for path in out.glob("stages/*/checkpoint.json")}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    while process.poll() is None:
        now = {path: path.stat().st_mtime_ns for path in out.glob(f"stages/{stage}-*/checkpoint.json") if path.exists()}
        if any(before.get(path) != stamp for path, stamp in now.items()):
            break
        time.sleep(0.02)
    return process


def test_killed_three_times_and_never_are_the_same(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    words = command("medslip-small", cut, *EVERY_STEP, steps=STEPS)
    rng, killed = random.Random(7), 0
    for stage in ("text", "text", "concepts"):
        process = begin(words, cut, stage)
        time.sleep(rng.uniform(0, 0.5))
        killed += process.poll() is None
        process.kill()
        process.communicate()
    assert killed >= 2
    assert run(words).returncode == 0

    assert run(command("medslip-small", whole, steps=STEPS)).returncode == 0
    assert set(digests(whole)) == {"text", "concepts"}
    assert digests(cut) == digests(whole)
    for name, folder in stages(whole).items():
        assert (stages(cut)[name] / "curves.jsonl").read_bytes() == (folder / "curves.jsonl").read_bytes()
        assert not list(stages(cut)[name].glob("checkpoint*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_polite_stop_leaves_a_checkpoint_and_says_so(number: int, code: int, tmp_path: Path) -> None:
    words = command("medslip-small", tmp_path, *EVERY_STEP, steps=100_000)
    process = begin(words, tmp_path, "text")
    os.kill(process.pid, number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == code
    assert "the same command goes on" in told
    assert "Traceback" not in told
    assert list(tmp_path.glob("stages/text-*/checkpoint.json"))
