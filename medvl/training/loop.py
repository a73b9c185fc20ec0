"""The training loop of every stage: steps, checkpoints, validation and an orderly end. See docs/explanation/training-loop.md."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from medvl.training.checkpoint import Checkpoints, tensors_sha256
from medvl.training.distributed import open_world
from medvl.training.loop_options import LoopOptions
from medvl.training.optimiser import named_groups, pick
from medvl.training.receipt import Meter, Receipt
from medvl.training.shards import own_norms, whole_tensors
from medvl.training.stage import Progress, Stage, named
from medvl.training.stage_state import Interrupted, Signals, only
from medvl.training.steps import Diverged
from medvl.training.task import Task

__all__ = ["Diverged", "Interrupted", "LoopOptions", "Progress", "Receipt", "fit"]


def fit(task: Task, options: LoopOptions, out: Path, progress: Progress) -> Receipt:
    """Train a task, or go on where a run with the same options stopped; a finished stage is only loaded.

    Args:
        task: ends in evaluation mode on the device it was trained on, with the last weights or, with `patience`, the best.
        options: how.
        out: folder of the stage: checkpoints, `curves.jsonl`, `receipt.json`.
        progress: told steps done, steps in all and the values of each step, on the first rank.

    Raises:
        ConfigError: options that do not fit the machine, the task or what is in `out`.
        Diverged: the loss or its gradient is not finite.
        Interrupted: SIGTERM or SIGINT came; a checkpoint of the last finished step is written.
    """
    world = open_world(options)
    keeper = Checkpoints(out, options.binding())
    task.to(world.device)
    trained = pick(task, named_groups(task))
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices), only(task, trained), own_norms(task), Signals() as signals:
        stage = Stage(task, options, out, world, keeper)
        kept = keeper.last()
        if kept is not None:
            stage.resume(*kept)
        if not stage.state["finished"]:
            meter = Meter(world.device, options.precision)
            stage.run(signals, progress)
            finish(stage, meter)
        stage.hand_over()
        task.to(world.device).eval()
        receipt = Receipt(**stage.state["receipt"])
        if world.leads:
            receipt.write(out / "receipt.json")
        world.agree()
        return receipt


def finish(stage: Stage, meter: Meter) -> None:
    """Settle on the last or the best weights, and keep them with the receipt."""
    state, best = stage.state, stage.state["best"]
    if best is not None:
        stage.load(stage.keeper.read(state["best_file"]))
    weights = whole_tensors(stage.model.state_dict(), keep=stage.world.leads)
    receipt = stage.world.lead(lambda: asdict(account(stage, meter, tensors_sha256(weights))))
    stage.state |= {"finished": True, "receipt": receipt, "spent": stage.spent(), "best_file": None}
    if stage.world.leads:
        stage.keeper.write(named(weights), stage.state)


def account(stage: Stage, meter: Meter, digest: str) -> Receipt:
    """The receipt of a stage that has come to its end."""
    state, spent, flop, best = stage.state, stage.spent(), stage.step_flop, stage.state["best"]
    busy = spent["stepping_s"] - spent["wait_s"]
    speed = flop * state["step"] / busy if flop and busy > 0 else None
    peak = meter.peak() if speed else None
    if not flop:
        meter.notes["step_flop"] = "operations were not counted" if flop is None else "no matrix product or convolution was seen"
    return Receipt(
        steps=state["step"],
        step=best["step"] if best else state["step"],
        loss=state["loss"],
        best=best["value"] if best else None,
        stopped_early=state["step"] < stage.options.steps,
        samples_per_s=spent["samples"] / spent["stepping_s"] if spent["stepping_s"] > 0 else 0.0,
        wait_share=spent["wait_s"] / spent["stepping_s"] if spent["stepping_s"] > 0 else 0.0,
        wall_s=round(spent["wall_s"], 2),
        cpu_s=round(spent["cpu_s"], 2),
        peak_memory_bytes=meter.memory(),
        step_flop=flop or None,
        flop_per_s=speed,
        peak_flop_per_s=peak,
        mfu=speed / peak if speed and peak else None,
        energy_j=meter.energy(),
        notes=meter.notes,
        device=meter.name(),
        torch=torch.__version__,
        world_size=stage.world.size,
        sha256=digest,
    )
