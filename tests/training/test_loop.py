"""The loop by itself: what it learns, that it goes on bit for bit, and how it ends."""

from pathlib import Path

import pytest
import torch
from loop_toy import Stopped, Toy, no_progress, stop_at

from medvl.training.loop import LoopOptions, fit

BASE = LoopOptions(steps=6, learning_rate=0.01, warmup=2, precision="fp32", checkpoint_every=2, checkpoint_every_s=None)


def test_fit(tmp_path: Path) -> None:
    receipt = fit(Toy(), BASE, tmp_path, no_progress)
    assert receipt.steps == receipt.step == BASE.steps


def weights(task: Toy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_goes_on_bit_for_bit(tmp_path: Path, cut: int) -> None:
    whole, again = Toy(dropout=0.2), Toy(dropout=0.2)
    expected = fit(whole, BASE, tmp_path / "whole", no_progress)
    with pytest.raises(Stopped):
        fit(Toy(dropout=0.2), BASE, tmp_path / "cut", stop_at(cut))
    receipt = fit(again, BASE, tmp_path / "cut", no_progress)
    assert receipt.sha256 == expected.sha256
    curves = [(tmp_path / name / "curves.jsonl").read_text() for name in ("whole", "cut")]
    assert curves[0] == curves[1]
