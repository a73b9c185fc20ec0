"""One stage of training under way: its steps, validations and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from medvl.errors import ConfigError
from medvl.training.checkpoint import Checkpoints, State
from medvl.training.curves import Curves
from medvl.training.distributed import World
from medvl.training.feed import Inputs, batches
from medvl.training.loop_options import LoopOptions, derived_seed
from medvl.training.optimiser import MOMENTS, adamw, clip, load_moments, moments, named_groups, pick, set_rate
from medvl.training.shards import by_hand, hold, laid_out, trainee, whole_tensors
from medvl.training.stage_state import Interrupted, Signals, train_mode
from medvl.training.steps import Diverged, Whole, backward, unsynced
from medvl.training.task import Task
from medvl.training.tracking import Tracked

Progress = Callable[[int, int, Mapping[str, float]], None]


class Stage:
    """A stage under way: weights, optimiser and what a checkpoint says of them."""

    def __init__(self, task: Task, options: LoopOptions, out: Path, world: World, keeper: Checkpoints) -> None:
        self.task, self.options, self.out, self.world, self.keeper = task, options, out, world, keeper
        self.started = (time.monotonic(), time.process_time())
        groups = named_groups(task)
        self.model = trainee(task, world, options)
        self.net = hold(Whole(self.model, world, options), world, options)
        self.trained = pick(self.model, groups)
        self.optimiser = adamw(self.trained, groups, options)
        if self.model is not task:
            task.cpu()
        self.step_flop: int | None = None
        self.saved = time.monotonic()
        self.state: State = {
            "step": 0,
            "finished": False,
            "loss": math.nan,
            "best": None,
            "best_file": None,
            "stale": 0,
            "spent": dict.fromkeys(("wall_s", "cpu_s", "stepping_s", "wait_s", "samples"), 0.0),
        }

    def resume(self, tensors: Mapping[str, Tensor], state: State) -> None:
        """Take weights, moments and state from a checkpoint."""
        self.load({name.removeprefix("weights."): v for name, v in tensors.items() if name.startswith("weights.")})
        self.state = state
        if not state["finished"]:
            like = {f"{kind}.{name}": p for name, p in self.trained.items() for kind in MOMENTS}
            load_moments(self.optimiser, self.trained, laid_out(tensors, like), state["step"])
        self.world.agree()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights."""
        try:
            self.model.load_state_dict(laid_out(weights, self.model.state_dict()))
        except RuntimeError as error:
            raise ConfigError(f"{self.out} holds weights of another model; remove the folder to train anew. {error}") from error

    def run(self, signals: Signals, progress: Progress) -> None:
        """Step until the end, or until patience runs out."""
        train_mode(self.model, self.trained)
        curves = Curves(
            self.out, self.state["step"], self.world.leads, tensorboard=self.options.tensorboard, tracked=self.tracked()
        )
        pin = self.world.device.type == "cuda"
        feed = batches(self.task, self.options, self.state["step"], self.world.rank, self.world.size, pin=pin)
        try:
            while self.state["step"] < self.options.steps and not self.out_of_patience:
                told = self.step(feed)
                curves.add(self.state["step"], told)
                measures = self.validate()
                if measures:
                    curves.add(self.state["step"], {f"validation.{name}": value for name, value in measures.items()})
                if self.world.leads:
                    progress(self.state["step"], self.options.steps, told | measures)
                self.maybe_save(curves, signals)
        finally:
            curves.close()

    def tracked(self) -> Tracked | None:
        """The stage's run in MLflow, of the first process, where that was asked for."""
        if self.options.mlflow is None or not self.world.leads:
            return None
        return Tracked(self.out, self.options.mlflow, self.options.binding())

    def step(self, feed: Iterator[Inputs]) -> dict[str, float]:
        """One step of the optimiser; the loss and its parts, averaged over the batches of the step."""
        step, spent = self.state["step"], self.state["spent"]
        started = time.perf_counter()
        batch = list(islice(feed, self.options.accumulate))
        spent["wait_s"] += time.perf_counter() - started
        if self.step_flop is None and self.options.count_flops:
            counting = time.perf_counter()
            self.step_flop = self.count(step, batch)
            started += time.perf_counter() - counting
        told, samples = self.gradients(step, batch)
        told["grad_norm"] = clip(self.trained.values(), self.options.clip_norm)
        if not math.isfinite(told["grad_norm"]):
            raise Diverged(
                f"the gradient of step {step} is not finite while the loss is {told['loss']:.4g}; the last checkpoint is from "
                "before it. Try a lower learning_rate, precision fp32, and look for square roots and logarithms of 0 in the loss"
            )
        told["rate"] = set_rate(self.optimiser, self.options.rate(step))
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.state |= {"step": step + 1, "loss": told["loss"]}
        spent["samples"] += samples
        spent["stepping_s"] += time.perf_counter() - started
        return told

    def gradients(self, step: int, batch: list[Inputs]) -> tuple[dict[str, float], int]:
        """Gradients of a step, its values and how many samples it saw."""
        k, told, samples = len(batch), dict[str, list[float]](), 0
        for i, inputs in enumerate(batch):
            plan = self.task.plan(step * k + i)
            samples += plan.sizes.get("samples", next(iter(plan.sizes.values()), 0))
            with unsynced(self.net, wait=i + 1 < k):
                for name, value in backward(self.net, plan, inputs, 1 / k).items():
                    told.setdefault(name, []).append(value)
        for parameter in self.trained.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.world.average(by_hand(self.net, list(self.trained.values())))
        return {name: sum(values) / len(values) for name, values in told.items()}, samples

    def count(self, step: int, batch: list[Inputs]) -> int:
        """Operations of a step, counted on one that leaves no trace."""
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        with FlopCounterMode(display=False) as counter:
            self.gradients(step, batch)
        self.optimiser.zero_grad()
        for buffer, before in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        return int(counter.get_total_flops())

    @property
    def out_of_patience(self) -> bool:
        """Whether the best weights are so old that the stage ends."""
        return self.options.patience is not None and self.state["stale"] >= self.options.patience

    def validate(self) -> dict[str, float]:
        """Measures, when it is time for them; keeps the weights when they are the best so far."""
        step, every = self.state["step"], self.options.validate_every
        if every is None or (step % every and step < self.options.steps):
            return {}
        self.hand_over()
        measures: dict[str, float] = self.world.lead(self.measure)
        if self.options.patience is None:
            return measures
        if not measures:
            raise ConfigError("patience is set, and the task's validate() measures nothing; leave patience out")
        first = next(iter(measures.values()))
        best = self.state["best"]
        if math.isfinite(first) and (best is None or first > best["value"]):
            name = f"best-{step:08d}.safetensors"
            self.write_best(name)
            self.state |= {"best": {"value": first, "step": step}, "best_file": name, "stale": 0}
        else:
            self.state["stale"] += 1
        return measures

    def measure(self) -> dict[str, float]:
        """What the task measures on held-out patients, as it will be used."""
        torch.manual_seed(derived_seed(self.options.seed, "validate", self.state["step"]))
        self.task.to(self.world.device).eval()
        with torch.no_grad():
            measures = self.task.validate()
        if self.model is not self.task:
            self.task.cpu()
        train_mode(self.model, self.trained)
        return {name: float(value) for name, value in measures.items()}

    def maybe_save(self, curves: Curves, signals: Signals) -> None:
        """Write a checkpoint when it is time, and leave when a signal came."""
        step, options = self.state["step"], self.options
        late = options.checkpoint_every_s is not None and time.monotonic() - self.saved >= options.checkpoint_every_s
        stop, due = self.world.agree(signals.came is not None, late)
        due = due or (options.checkpoint_every is not None and step % options.checkpoint_every == 0)
        if stop or (due and step < options.steps and not self.out_of_patience):
            curves.settle()
            tensors = named(self.model.state_dict()) | moments(self.optimiser, self.trained)
            tensors = whole_tensors(tensors, keep=self.world.leads)
            if self.world.leads:
                self.keeper.write(tensors, self.state | {"spent": self.spent()})
            self.saved = time.monotonic()
        if stop:
            raise Interrupted(step, options.steps, self.out, signals.came)

    def write_best(self, name: str) -> None:
        """Keep the weights of now as the best."""
        tensors = whole_tensors(self.model.state_dict(), keep=self.world.leads)
        if self.world.leads:
            self.keeper.write_tensors(name, tensors)
        self.world.agree()

    def hand_over(self) -> None:
        """Give sharded weights back to the task, whole."""
        if self.model is not self.task:
            self.task.load_state_dict(whole_tensors(self.model.state_dict(), keep=True))

    def spent(self) -> dict[str, float]:
        """What all starts took together."""
        wall, cpu = time.monotonic() - self.started[0], time.process_time() - self.started[1]
        spent: dict[str, float] = dict(self.state["spent"])
        return spent | {"wall_s": spent["wall_s"] + wall, "cpu_s": spent["cpu_s"] + cpu}


def named(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as a checkpoint names it."""
    return {f"weights.{name}": value for name, value in weights.items()}
