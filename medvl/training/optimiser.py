"""AdamW over the groups of a task, and its moments as named tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from medvl.errors import ConfigError
from medvl.training.loop_options import LoopOptions
from medvl.training.task import Task

MOMENTS = ("exp_avg", "exp_avg_sq")


Groups = list[tuple[list[str], float]]


def named_groups(task: Task) -> Groups:
    """The task's groups with the names of their parameters.

    Raises:
        ConfigError: nothing is trained, a parameter is in two groups, or one is no part of the task.
    """
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    seen: set[str] = set()
    groups: Groups = []
    for parameters, factor in task.groups():
        for parameter in parameters:
            name = names.get(id(parameter))
            if name is None:
                shape = tuple(parameter.shape)
                raise ConfigError(f"a parameter of shape {shape} is in groups() and not in the task; make its module a part")
            if name in seen:
                raise ConfigError(f"parameter {name} is in two groups; leave it in one")
            seen.add(name)
        groups.append(([names[id(parameter)] for parameter in parameters], factor))
    if not seen:
        raise ConfigError("groups() names no parameter, so there is nothing to train")
    return groups


def pick(module: nn.Module, groups: Groups) -> dict[str, nn.Parameter]:
    """Name to parameter of everything in the groups."""
    every = dict(module.named_parameters())
    return {name: every[name] for names, _ in groups for name in names}


def adamw(trained: Mapping[str, nn.Parameter], groups: Groups, options: LoopOptions) -> torch.optim.AdamW:
    """AdamW over named groups; each keeps its own peak rate as `peak`, and vectors and scalars are not decayed."""
    made: list[dict[str, Any]] = []
    for names, factor in groups:
        peak = options.learning_rate * factor
        kinds: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for parameter in (trained[name] for name in names):
            decay = options.weight_decay if parameter.ndim > 1 else 0.0
            kinds.setdefault((decay, isinstance(parameter, DTensor)), []).append(parameter)
        made += [{"params": p, "lr": peak, "peak": peak, "weight_decay": decay} for (decay, _), p in kinds.items()]
    return torch.optim.AdamW(made, betas=options.betas, fused=True)


def clip(parameters: Iterable[nn.Parameter], limit: float | None) -> float:
    """Norm of all gradients together, float64 over their own norms; scales them down to `limit` where it is larger."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sharded, copied = [g for g in grads if isinstance(g, DTensor)], [g for g in grads if not isinstance(g, DTensor)]
    norms = [nn.utils.get_total_norm(some) for some in (sharded, copied) if some]
    norm = math.hypot(*(float(n.full_tensor() if isinstance(n, DTensor) else n) for n in norms))
    if limit is not None and norm > limit:
        for grad in grads:
            grad.mul_(limit / norm)
    return norm


def set_rate(optimiser: torch.optim.Optimizer, share: float) -> float:
    """Set every group to a share of its peak; the largest rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share
    return max(float(group["lr"]) for group in optimiser.param_groups)


def moments(optimiser: torch.optim.Optimizer, names: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Both moments of each parameter as `exp_avg.NAME` and `exp_avg_sq.NAME`; empty before the first step."""
    held = {name: optimiser.state[parameter] for name, parameter in names.items() if parameter in optimiser.state}
    return {f"{kind}.{name}": state[kind] for name, state in held.items() for kind in MOMENTS}


def load_moments(
    optimiser: torch.optim.Optimizer, names: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], step: int
) -> None:
    """Go on from the moments after `step` steps; tensors are sharded as their parameters are.

    The fused optimiser walks a weight and its moments side by side in memory, whatever their strides say, so moments are brought
    to the memory order of their weight, such as channels last.
    """
    place = {id(parameter): name for name, parameter in names.items()}
    order = [place[id(p)] for group in optimiser.param_groups for p in group["params"]]
    state = {
        i: {"step": torch.tensor(float(step))} | {kind: _as_it_lies(tensors[f"{kind}.{name}"], names[name]) for kind in MOMENTS}
        for i, name in enumerate(order)
    }
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _as_it_lies(tensor: Tensor, weight: nn.Parameter) -> Tensor:
    """The same values in the memory order of `weight`; shards are always in plain order."""
    return tensor if isinstance(tensor, DTensor) else torch.empty_like(weight, dtype=tensor.dtype).copy_(tensor)
