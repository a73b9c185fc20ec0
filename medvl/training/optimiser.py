"""AdamW over the groups of a task, and its moments as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medvl.errors import ConfigError
from medvl.training.loop_options import LoopOptions
from medvl.training.task import Task

_MOMENTS = ("exp_avg", "exp_avg_sq")


def trained_parameters(task: Task) -> dict[str, nn.Parameter]:
    """Name to parameter of everything in the task's groups.

    Raises:
        ConfigError: nothing is trained, a parameter is in two groups, or one is no part of the task.
    """
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    found: dict[str, nn.Parameter] = {}
    for parameters, _ in task.groups():
        for parameter in parameters:
            name = names.get(id(parameter))
            if name is None:
                shape = tuple(parameter.shape)
                raise ConfigError(
                    f"a parameter of shape {shape} is in groups() but not in the task; make its module a part of it"
                )
            if name in found:
                raise ConfigError(f"parameter {name} is in two groups; leave it in one")
            found[name] = parameter
    if not found:
        raise ConfigError("groups() names no parameter, so there is nothing to train")
    return found


def adamw(task: Task, options: LoopOptions) -> torch.optim.AdamW:
    """AdamW over a task's groups; each keeps its own peak rate as `peak`, and vectors and scalars are not decayed."""
    groups: list[dict[str, Any]] = []
    for parameters, factor in task.groups():
        peak = options.learning_rate * factor
        for decay, chosen in (
            (options.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": peak, "peak": peak, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=options.betas, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, share: float) -> float:
    """Set every group to a share of its peak; the largest rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share
    return max(group["lr"] for group in optimiser.param_groups)


def moments(optimiser: torch.optim.Optimizer, names: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Both moments of each parameter as `exp_avg.NAME` and `exp_avg_sq.NAME`; empty before the first step."""
    held = {name: optimiser.state[parameter] for name, parameter in names.items() if parameter in optimiser.state}
    return {f"{kind}.{name}": state[kind] for name, state in held.items() for kind in _MOMENTS}


def load_moments(
    optimiser: torch.optim.Optimizer, names: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], step: int
) -> None:
    """Go on from the moments after `step` steps; tensors are laid out as their parameters are."""
    place = {id(parameter): name for name, parameter in names.items()}
    order = [place[id(p)] for group in optimiser.param_groups for p in group["params"]]
    state = {
        i: {"step": torch.tensor(float(step))} | {kind: tensors[f"{kind}.{name}"] for kind in _MOMENTS}
        for i, name in enumerate(order)
    }
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
