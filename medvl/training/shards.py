"""How weights are held over ranks: one copy each (DDP) or a share each (FSDP), and whole tensors from either."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from medvl.training.distributed import World
from medvl.training.loop_options import LoopOptions
from medvl.training.task import Task

_BLOCK = 1_000_000


def trainee(task: Task, world: World, options: LoopOptions) -> Task:
    """What is trained: the task itself, or a copy of its modules to shard. Data the task holds is shared, never copied."""
    if world.size > 1 and options.parallel == "fsdp":
        return copy.deepcopy(task, _shared(task))
    return task


def hold(whole: nn.Module, world: World, options: LoopOptions) -> nn.Module:
    """A module whose gradients are averaged over ranks in backward where that can be, with weights copied or sharded.

    Gradients of a copied module that represents in pieces are averaged after backward (`World.average`).
    """
    if world.size == 1:
        return whole
    world.alike([*whole.parameters(), *whole.buffers()])
    norms = any(isinstance(module, _BatchNorm) for module in whole.modules())
    if norms and world.device.type == "cuda":
        whole = nn.SyncBatchNorm.convert_sync_batchnorm(whole)
    elif norms and world.leads:
        warnings.warn(
            "batch normalisation on processors uses the statistics of each rank's own samples, so the result differs from "
            "that of one process; on CUDA they are taken over all ranks",
            stacklevel=2,
        )
    if options.parallel == "fsdp":
        return _shard(whole, world)
    if options.pieces > 1:
        return whole
    ids = [world.device] if world.device.type == "cuda" else None
    return DistributedDataParallel(whole, device_ids=ids, broadcast_buffers=False, find_unused_parameters=True)


@contextmanager
def own_norms(task: nn.Module) -> Iterator[None]:
    """Put batch normalisations back that were exchanged for synchronised ones, which share their weights and statistics."""
    norms = [
        (parent, name, child)
        for parent in task.modules()
        for name, child in parent.named_children()
        if isinstance(child, _BatchNorm)
    ]
    try:
        yield
    finally:
        for parent, name, child in norms:
            if getattr(parent, name) is not child:
                child.train(getattr(parent, name).training)
                setattr(parent, name, child)


def by_hand(net: nn.Module, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Parameters whose gradients nothing averages in backward."""
    if isinstance(net, DistributedDataParallel):
        return []
    return [parameter for parameter in parameters if not isinstance(parameter, DTensor)]


def whole_tensors(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Tensors that may be sharded in one piece each, or nothing where they are not kept; every rank must ask."""
    made = {}
    for name, value in tensors.items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if keep:
            made[name] = whole
    return made


def laid_out(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors laid out as those of the same name are."""
    return {name: _like(value, like[name]) if name in like else value for name, value in tensors.items()}


def _like(value: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _shard(whole: nn.Module, world: World) -> nn.Module:
    """Shard large blocks of lists and sequences one by one, then all that is left; scalars stay copied."""
    mesh = init_device_mesh(world.device.type, (world.size,))
    scalars = {parameter for parameter in whole.parameters() if parameter.ndim == 0}
    blocks: dict[nn.Module, None] = {}
    for module in reversed(list(whole.modules())):
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            blocks |= dict.fromkeys(b for b in module if sum(p.numel() for p in b.parameters()) >= _BLOCK)
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=scalars)
    fully_shard(whole, mesh=mesh, ignored_params=scalars)
    return whole


def _shared(task: nn.Module) -> dict[int, Any]:
    """Attributes of modules that are no modules and hold none."""
    inner = set(vars(nn.Module()))
    return {
        id(value): value
        for module in task.modules()
        for name, value in vars(module).items()
        if name not in inner and not _holds_weights(value)
    }


def _holds_weights(value: object) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else (value,)
    return any(isinstance(part, (nn.Module, nn.Parameter)) for part in parts)
