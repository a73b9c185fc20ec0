"""The loop by itself: what it learns, that it goes on bit for bit, and how it ends."""

import json
import math
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loop_toy import Stopped, Toy, no_progress, stop_at
from torch import Tensor

from medvl.errors import ConfigError
from medvl.training.curves import read_curves
from medvl.training.loop import Diverged, Interrupted, LoopOptions, Receipt, fit
from medvl.training.shards import own_norms
from medvl.training.task import Plan

BASE = LoopOptions(
    steps=6,
    learning_rate=0.01,
    warmup=2,
    precision="fp32",
    checkpoint_every=2,
    checkpoint_every_s=None,
    device="cpu",
    count_flops=False,
)


def by_hand(options: LoopOptions) -> Toy:
    """The toy trained by a loop that knows nothing of pieces, ranks or checkpoints."""
    task = Toy()
    trained = [p for group, _ in task.groups() for p in group]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p], "lr": 0.01 * factor, "weight_decay": 0.02 if p.ndim > 1 else 0.0, "factor": factor}
            for group, factor in task.groups()
            for p in group
        ],
        betas=(0.9, 0.98),
    )
    for step in range(options.steps):
        share = (step + 1) / 2 if step < 2 else 0.01 + 0.99 * (1 + math.cos(math.pi * (step - 2) / (options.steps - 2))) / 2
        total = torch.zeros(())
        for i in range(options.accumulate):
            plan = task.plan(step * options.accumulate + i)
            everything = {name: torch.arange(size).numpy() for name, size in plan.sizes.items()}
            total = total + task.compare(task.represent(task.load(plan, everything)), plan)[0] / options.accumulate
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * group["factor"] * share
        optimiser.step()
    return task


@pytest.mark.parametrize("change", [{}, {"accumulate": 2}, {"pieces": 4}, {"pieces": 3, "accumulate": 2}], ids=str)
def test_learns_what_a_plain_loop_learns(tmp_path: Path, change: dict[str, int]) -> None:
    options = replace(BASE, **change)
    task = Toy()
    receipt = fit(task, options, tmp_path, no_progress)
    torch.testing.assert_close(task.state_dict(), by_hand(options).state_dict(), rtol=1e-6, atol=1e-6)
    assert (receipt.steps, receipt.step, receipt.world_size) == (6, 6, 1)


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_goes_on_bit_for_bit(tmp_path: Path, cut: int, workers: int) -> None:
    options = replace(BASE, workers=workers, pieces=2, accumulate=2)
    expected = fit(Toy(dropout=0.2, norm="batch"), options, tmp_path / "whole", no_progress)
    with pytest.raises(Stopped):
        fit(Toy(dropout=0.2, norm="batch"), options, tmp_path / "cut", stop_at(cut))
    again = Toy(dropout=0.2, norm="batch")
    receipt = fit(again, options, tmp_path / "cut", no_progress)
    assert receipt.sha256 == expected.sha256
    curves = [(tmp_path / name / "curves.jsonl").read_text() for name in ("whole", "cut")]
    assert curves[0] == curves[1]
    assert len(read_curves(tmp_path / "cut")) == 6


def test_finished_stage_is_only_loaded(tmp_path: Path) -> None:
    first, second = Toy(), Toy(seed=9)
    receipt = fit(first, BASE, tmp_path, no_progress)
    (tmp_path / "receipt.json").unlink()
    assert fit(second, BASE, tmp_path, stop_at(1)) == receipt == Receipt.read(tmp_path / "receipt.json")
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)
    assert not list(tmp_path.glob("*.part"))


def test_workers_change_nothing(tmp_path: Path) -> None:
    shas = {fit(Toy(dropout=0.1), replace(BASE, workers=n, steps=3), tmp_path / str(n), no_progress).sha256 for n in (0, 2)}
    assert len(shas) == 1


def test_other_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(Toy(), BASE, tmp_path, stop_at(3))
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.01, is 0\.02"):
        fit(Toy(), replace(BASE, learning_rate=0.02), tmp_path, no_progress)
    fit(Toy(), replace(BASE, pieces=2, checkpoint_every=1), tmp_path, no_progress)


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(Toy(norm="batch"), BASE, tmp_path, stop_at(3))
    with pytest.raises(ConfigError, match="another model"):
        fit(Toy(), BASE, tmp_path, no_progress)


def test_spoilt_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    expected = fit(Toy(), BASE, tmp_path / "whole", no_progress)
    with pytest.raises(Stopped):
        fit(Toy(), BASE, tmp_path / "cut", stop_at(5))
    held = sorted((tmp_path / "cut").glob("checkpoint-*.safetensors"))
    assert [path.name for path in held] == ["checkpoint-00000002.safetensors", "checkpoint-00000004.safetensors"]
    held[1].write_bytes(held[1].read_bytes()[:-100])
    assert fit(Toy(), BASE, tmp_path / "cut", no_progress).sha256 == expected.sha256


@pytest.mark.parametrize("calls", range(1, 8))
def test_cut_while_writing(tmp_path: Path, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop before each move of a file to its name: tensors, index, tensors, index and so on, with best weights between."""
    options = replace(BASE, validate_every=2, patience=5)
    expected = fit(Toy(), options, tmp_path / "whole", no_progress)
    left = [calls]

    def settle(part: Path, path: Path) -> None:
        left[0] -= 1
        if not left[0]:
            raise Stopped
        part.replace(path)

    with monkeypatch.context() as patch:
        patch.setattr("medvl.training.checkpoint._settle", settle)
        with pytest.raises(Stopped):
            fit(Toy(), options, tmp_path / "cut", no_progress)
    assert fit(Toy(), options, tmp_path / "cut", no_progress).sha256 == expected.sha256
    assert not list((tmp_path / "cut").glob("*.part"))


def test_no_whole_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(Toy(), BASE, tmp_path, stop_at(5))
    for path in tmp_path.glob("checkpoint-*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no checkpoint .* is whole"):
        fit(Toy(), BASE, tmp_path, no_progress)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_with_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    expected = fit(Toy(), BASE, tmp_path / "whole", no_progress)

    def told(done: int, *_: object) -> None:
        if done == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="after step 3 of 6") as caught:
        fit(Toy(), BASE, tmp_path / "cut", told)
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) == before
    assert (tmp_path / "cut" / "checkpoint-00000003.safetensors").exists()
    assert fit(Toy(), BASE, tmp_path / "cut", no_progress).sha256 == expected.sha256


class Rising(Toy):
    """Measures that rise, fall and stay low, whatever the weights are."""

    measures = (0.1, 0.5, 0.3, 0.2, 0.9, 0.9)

    def validate(self) -> dict[str, float]:
        self.asked = getattr(self, "asked", 0) + 1
        self.seen = [*getattr(self, "seen", []), self.log_scale.detach().clone()]
        assert not self.training
        return {"score": self.measures[self.asked - 1], "other": 0.0}


def test_early_stopping_gives_the_best_back(tmp_path: Path) -> None:
    task = Rising()
    receipt = fit(task, replace(BASE, validate_every=1, patience=2), tmp_path, no_progress)
    assert (receipt.step, receipt.steps, receipt.best, receipt.stopped_early) == (2, 4, 0.5, True)
    assert torch.equal(task.log_scale.detach(), task.seen[1])
    assert [line["validation.score"] for line in read_curves(tmp_path) if "validation.score" in line] == [0.1, 0.5, 0.3, 0.2]
    assert not list(tmp_path.glob("best-*"))


@pytest.mark.parametrize("cut", [3, 4])
def test_early_stopping_survives_a_cut(tmp_path: Path, cut: int) -> None:
    options = replace(BASE, validate_every=1, patience=2)
    expected = fit(Rising(), options, tmp_path / "whole", no_progress)
    with pytest.raises(Stopped):
        fit(Rising(), options, tmp_path / "cut", stop_at(cut))
    again = Rising()
    again.asked = 2
    assert fit(again, options, tmp_path / "cut", no_progress).sha256 == expected.sha256


class Broken(Toy):
    """Its loss or its gradient breaks in batch 3."""

    where = "loss"

    def compare(self, found: Mapping[str, Tensor], plan: Plan) -> tuple[Tensor, dict[str, float]]:
        loss, parts = super().compare(found, plan)
        if plan.step == 3:
            zero = self.log_scale - self.log_scale.detach()
            loss = loss + (zero.sqrt() if self.where == "gradient" else zero.log())
        return loss, parts


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops(tmp_path: Path, where: str) -> None:
    task = Broken()
    task.where = where
    with pytest.raises(Diverged, match=rf"the {where} of \w+ 3 is not finite"):
        fit(task, BASE, tmp_path, no_progress)
    assert (tmp_path / "checkpoint-00000002.safetensors").exists()
    assert all(bool(p.isfinite().all()) for p in task.parameters())


def test_pieces_hold_less_for_backward(tmp_path: Path) -> None:
    peaks = {}
    for pieces in (1, 4):
        held = Held()
        with torch.autograd.graph.saved_tensors_hooks(held.pack, held.unpack):
            fit(Toy(batch=40, statements=40), replace(BASE, steps=1, pieces=pieces), tmp_path / str(pieces), no_progress)
        peaks[pieces] = held.peak
    assert peaks[4] < 0.6 * peaks[1]


class Held:
    """Bytes that autograd keeps for backward, now and at most."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> "Held.Kept":
        return Held.Kept(self, tensor)

    def unpack(self, kept: "Held.Kept") -> Tensor:
        return kept.tensor

    class Kept:
        """One tensor, counted while it lives."""

        def __init__(self, held: "Held", tensor: Tensor) -> None:
            self.held, self.tensor = held, tensor
            held.now += tensor.nbytes
            held.peak = max(held.peak, held.now)

        def __del__(self) -> None:
            self.held.now -= self.tensor.nbytes


def test_running_statistics_move_once_a_batch(tmp_path: Path) -> None:
    task = Toy(norm="batch")
    fit(task, replace(BASE, steps=2, pieces=2, count_flops=True), tmp_path, no_progress)
    assert int(task.image[1].num_batches_tracked) == 4


def test_synchronised_norms_go_back_to_what_they_were() -> None:
    task = Toy(norm="batch")
    norm, names = task.image[1], list(task.state_dict())
    with own_norms(task):
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(task)
        assert isinstance(task.image[1], torch.nn.SyncBatchNorm)
        task.load_state_dict({name: torch.full_like(value, 2) for name, value in task.state_dict().items()})
        task.eval()
    assert task.image[1] is norm
    assert not norm.training
    assert list(task.state_dict()) == names
    assert all(bool((value == 2).all()) for value in norm.state_dict().values())


def test_what_is_not_trained_stays(tmp_path: Path) -> None:
    class Half(Toy):
        def groups(self):
            return [(list(self.text.parameters()), 1.0)]

    task = Half(norm="batch")
    before = {name: value.clone() for name, value in task.state_dict().items()}
    fit(task, replace(BASE, steps=2), tmp_path, no_progress)
    changed = {name.split(".")[0] for name, value in task.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"text"}
    assert all(p.requires_grad and p.grad is None for p in task.parameters())


def test_counting_leaves_no_trace(tmp_path: Path) -> None:
    receipts = [
        fit(Toy(norm="batch", dropout=0.1), replace(BASE, steps=2, count_flops=on), tmp_path / str(on), no_progress)
        for on in (False, True)
    ]
    assert receipts[0].sha256 == receipts[1].sha256
    # image 11 and texts 16 through 12x16 and 16x8, forward and twice backward less the inputs' own; logits 11x16x8; head 11x8x4.
    towers = sum(2 * n * (12 * 16 * 2 + 16 * 8 * 3) for n in (11, 11, 5))
    assert receipts[1].step_flop == towers + 3 * 2 * (11 * 8 * 16 + 11 * 8 * 4)
    assert receipts[0].step_flop is None
    assert receipts[0].notes["step_flop"] == "operations were not counted"


def test_bf16_learns_nearly_the_same(tmp_path: Path) -> None:
    losses = [fit(Toy(), replace(BASE, precision=p), tmp_path / p, no_progress).loss for p in ("fp32", "bf16")]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.1)


def test_tensorboard_has_the_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(Toy(), replace(BASE, tensorboard=True), tmp_path, no_progress)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [event.value for event in events.Scalars("loss")]
    assert shown == pytest.approx([line["loss"] for line in read_curves(tmp_path)], rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"patience": 3}, "validate_every is not set"),
        ({"precision": "fp16"}, "fp16 is not"),
        ({"parallel": "tensor"}, "known: none, ddp, fsdp"),
    ],
)
def test_options_that_cannot_be_meant(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(BASE, **change)


def test_groups_must_name_the_task_once(tmp_path: Path) -> None:
    class Twice(Toy):
        def groups(self):
            return [*super().groups(), ([self.log_scale], 1.0)]

    class Foreign(Toy):
        def groups(self):
            return [([torch.nn.Parameter(torch.zeros(3, 2))], 1.0)]

    with pytest.raises(ConfigError, match="log_scale is in two groups"):
        fit(Twice(), BASE, tmp_path, no_progress)
    with pytest.raises(ConfigError, match=r"shape \(3, 2\)"):
        fit(Foreign(), BASE, tmp_path, no_progress)


def test_receipt_is_kept_as_json(tmp_path: Path) -> None:
    receipt = fit(Toy(), BASE, tmp_path, no_progress)
    kept = json.loads((tmp_path / "receipt.json").read_text())
    assert kept["sha256"] == receipt.sha256
    assert kept["device"].startswith("cpu")
    assert 0 <= kept["wait_share"] <= 1
    assert kept["samples_per_s"] > 0
    assert kept["energy_j"] is None
    assert kept["notes"]["energy_j"]
