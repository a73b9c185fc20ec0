"""Two processes learn what one learns, copied or sharded, and each may go on where the other stopped."""

import json
import os
import random
import signal
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
        {"parallel": "fsdp", "validate_every": 2, "patience": 3},
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


@pytest.mark.parametrize(("parallel", "count"), [("ddp", 2), ("ddp", 1), ("fsdp", 2), ("fsdp", 1)])
def test_goes_on_with_as_many_or_fewer(tmp_path: Path, parallel: str, count: int) -> None:
    options = BASE | {"parallel": parallel}
    assert ranks(tmp_path / "cut", options, stop=3).returncode != 0
    assert (tmp_path / "cut" / "checkpoint-00000002.safetensors").exists()
    run = ranks(tmp_path / "cut", options, count)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count(f" {count} True") == count
    ranks(tmp_path / "whole", options)
    same(tmp_path / "whole", tmp_path / "cut")
    if count == 2:
        torch.testing.assert_close(final(tmp_path / "whole"), final(tmp_path / "cut"), rtol=0, atol=0)


def test_dropout_follows_the_part_not_the_process(tmp_path: Path) -> None:
    run = ranks(tmp_path / "two", BASE, toy={"dropout": 0.3})
    assert run.returncode == 0, run.stderr[-3000:]
    fit(Toy(dropout=0.3), LoopOptions(**(BASE | {"pieces": 2})), tmp_path / "one", no_progress)
    same(tmp_path / "one", tmp_path / "two")


def test_fewer_items_than_ranks(tmp_path: Path) -> None:
    run = ranks(tmp_path / "two", BASE, toy={"batch": 1, "statements": 1})
    assert run.returncode == 0, run.stderr[-3000:]
    fit(Toy(batch=1, statements=1), LoopOptions(**BASE), tmp_path / "one", no_progress)
    same(tmp_path / "one", tmp_path / "two")


def test_sharded_ranks_without_items_are_refused(tmp_path: Path) -> None:
    run = ranks(tmp_path, BASE | {"parallel": "fsdp"}, toy={"batch": 1, "statements": 1})
    assert run.returncode != 0
    assert "batch 0 has too few items" in run.stderr


def test_killed_at_any_moment_it_learns_the_same(tmp_path: Path) -> None:
    options = BASE | {"steps": 120, "checkpoint_every": 7, "workers": 1}
    toy = {"dropout": 0.2}
    script = str(Path(__file__).with_name("loop_ranks.py"))
    told = {"options": options, "toy": toy, "out": str(tmp_path / "cut"), "aloud": True}
    draw = random.Random(5)
    for _ in range(4):
        with subprocess.Popen([sys.executable, script, json.dumps(told)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(draw.randrange(5, 40)):
                child.stdout.readline()
            child.kill()
        assert child.returncode == -signal.SIGKILL
    run = subprocess.run([sys.executable, script, json.dumps(told)], capture_output=True, text=True, check=True, timeout=300)
    first = int(run.stdout.split()[1])
    assert first > 1
    whole = json.dumps(told | {"out": str(tmp_path / "whole")})
    subprocess.run([sys.executable, script, whole], capture_output=True, check=True, timeout=300)
    torch.testing.assert_close(final(tmp_path / "whole"), final(tmp_path / "cut"), rtol=0, atol=0)
    assert (tmp_path / "whole" / "curves.jsonl").read_text() == (tmp_path / "cut" / "curves.jsonl").read_text()


def test_terminated_process_leaves_a_checkpoint(tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("loop_ranks.py"))
    told = json.dumps({"options": BASE | {"steps": 100_000}, "out": str(tmp_path), "aloud": True})
    with subprocess.Popen([sys.executable, script, told], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.terminate()
        rest = child.stdout.read().split()
    assert child.returncode == 143
    last = int(rest[-1]) if rest else 1
    assert (tmp_path / f"checkpoint-{last:08d}.safetensors").exists()
