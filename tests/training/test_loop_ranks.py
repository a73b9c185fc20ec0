"""Two processes learn what one learns, copied or sharded, and each may go on where the other stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_toy import Toy, no_progress
from safetensors.torch import load_file

from medvl.training.loop import LoopOptions, fit

BASE: dict[str, Any] = {
    "steps": 5,
    "learning_rate": 0.01,
    "warmup": 2,
    "precision": "fp32",
    "checkpoint_every": 2,
    "checkpoint_every_s": None,
    "device": "cpu",
}
pytestmark = pytest.mark.slow


def ranks(out: Path, options: dict[str, Any], count: int = 2, **told: Any) -> subprocess.CompletedProcess[str]:
    """Run the toy under torchrun."""
    script = Path(__file__).with_name("loop_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", str(script)]
    text = json.dumps({"out": str(out), "options": options, **told})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, text], capture_output=True, text=True, timeout=300, env=environment, check=False)


def final(folder: Path) -> dict[str, torch.Tensor]:
    """The weights that a finished stage kept."""
    return load_file(next(folder.glob("checkpoint-*-final.safetensors")))


def curve(folder: Path) -> list[list[float]]:
    """Loss and norm of the gradient by step; the norm shows what AdamW would hide, a gradient that is wrong by a factor."""
    lines = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    return [[line["loss"], line["grad_norm"]] for line in lines if "loss" in line]


def same(one: Path, other: Path) -> None:
    """Curves and weights agree to rounding."""
    torch.testing.assert_close(torch.tensor(curve(one)), torch.tensor(curve(other)), rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(final(one), final(other), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"parallel": "ddp"},
        {"parallel": "ddp", "pieces": 2},
        {"parallel": "ddp", "accumulate": 2},
        {"parallel": "fsdp"},
        {"parallel": "fsdp", "pieces": 2},
    ],
    ids=lambda change: "-".join(str(v) for v in change.values()),
)
def test_two_processes_are_one(tmp_path: Path, change: dict[str, Any]) -> None:
    options = BASE | change
    run = ranks(tmp_path / "two", options)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count(" 2 True") == 2
    fit(Toy(), LoopOptions(**(options | {"pieces": 1})), tmp_path / "one", no_progress)
    same(tmp_path / "one", tmp_path / "two")
