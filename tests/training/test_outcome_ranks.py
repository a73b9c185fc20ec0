"""Outcomes over two processes: one risk set for the whole batch, so value, gradient and weights are those of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loop_toy import no_progress
from outcome_ranks import BATCH, Outcomes
from safetensors.torch import load_file

from medvl.training.loop import LoopOptions, fit

BASE: dict[str, Any] = {
    "steps": 4,
    "learning_rate": 0.01,
    "warmup": 2,
    "precision": "fp32",
    "checkpoint_every_s": None,
    "device": "cpu",
    "clip_norm": None,
}
HAZARDS = {"form": "hazards", "cuts_days": [0, 150, 350, 600]}


def curve(folder: Path) -> list[list[float]]:
    """Loss and norm of the gradient by step."""
    lines = [json.loads(line) for line in (folder / "curves.jsonl").read_text(encoding="utf-8").splitlines()]
    return [[line["loss"], line["grad_norm"]] for line in lines if "loss" in line]


def by_hand(task: Outcomes, rows: torch.Tensor, ties: str) -> float:
    """Cox's loss of the untrained tower on some samples, as loops over patients and deaths.

    A patient at risk counts with the mean hazard of the samples, and dies with their mean log hazard.
    """
    with torch.no_grad():
        risk = task.objective.heads["kidney"](task.image(task.images[rows]))[:, 0].double().numpy()
    patients = task.patients[rows].numpy()
    days, died = task.days[rows].numpy(), task.died[rows].numpy()
    known = {p: np.flatnonzero(patients == p) for p in np.unique(patients[np.isfinite(days)])}
    hazard = {p: np.exp(risk[at]).mean() for p, at in known.items()}
    total, deaths = 0.0, 0
    for day in np.unique(days[died]):
        dead = [p for p, at in known.items() if died[at[0]] and days[at[0]] == day]
        at_risk = sum(hazard[p] for p, at in known.items() if days[at[0]] >= day)
        for k, p in enumerate(dead):
            gone = k / len(dead) * sum(hazard[q] for q in dead) if ties == "efron" else 0.0
            total += np.log(at_risk - gone) - risk[known[p]].mean()
            deaths += 1
    return total / deaths


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_the_first_loss_is_that_of_loops_over_patients(tmp_path: Path, ties: str) -> None:
    task = Outcomes({"ties": ties})
    rows = task.plan(0).drawn["rows"]
    expected = by_hand(task, rows, ties)
    assert len(torch.unique(task.patients[rows])) < BATCH  # some patients are there twice
    halves = [by_hand(task, half, ties) for half in rows.split(12) if task.died[half].any()]
    assert abs(np.mean(halves) - expected) > 0.1  # risk sets of half the batch are another loss
    fit(task, LoopOptions(**(BASE | {"steps": 1})), tmp_path, no_progress)
    assert curve(tmp_path)[0][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("survival", "change"),
    [
        ({"ties": "efron"}, {"parallel": "ddp"}),
        ({"ties": "breslow"}, {"parallel": "ddp", "pieces": 2}),
        (HAZARDS, {"parallel": "fsdp"}),
    ],
    ids=["efron", "breslow in pieces", "hazards sharded"],
)
def test_two_processes_share_one_risk_set(tmp_path: Path, survival: dict[str, Any], change: dict[str, Any]) -> None:
    options = BASE | change
    script = str(Path(__file__).with_name("outcome_ranks.py"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    told = json.dumps({"out": str(tmp_path / "two"), "options": options, "survival": survival})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*command, told], capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count("ranks 2") == 2
    fit(Outcomes(survival), LoopOptions(**(options | {"pieces": 1})), tmp_path / "one", no_progress)
    torch.testing.assert_close(torch.tensor(curve(tmp_path / "two")), torch.tensor(curve(tmp_path / "one")), rtol=2e-6, atol=1e-6)
    weights = [load_file(next((tmp_path / name).glob("checkpoint-*-final.safetensors"))) for name in ("two", "one")]
    if "ties" in survival:  # a constant of all risks has no gradient but for rounding, which AdamW blows up
        weights = [{name: value for name, value in part.items() if name != "weights.image.4.bias"} for part in weights]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=2e-6)
