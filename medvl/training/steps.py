"""One batch: what its items give, the loss over all, and the gradient, in one go or in pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from medvl.errors import ConfigError, MedvlError
from medvl.training.distributed import World
from medvl.training.loop_options import LoopOptions, derived_seed
from medvl.training.task import Plan, Task

Found = dict[str, Tensor]


class Diverged(MedvlError):  # noqa: N818 - it says what happened
    """The loss or its gradient is not a number any more; the last checkpoint is from before."""


class Whole(nn.Module):
    """A task as one module whose forward does everything that touches weights, so that it can be copied or sharded over ranks."""

    def __init__(self, task: Task, world: World, options: LoopOptions) -> None:
        super().__init__()
        self.task, self.world, self.options = task, world, options

    def forward(self, job: str, plan: Plan, given: Mapping[str, Tensor], number: int = 0) -> Any:
        """One of three jobs.

        Args:
            job: represent (one piece: its inputs to what its items give), compare (everything given by the whole batch to the
                loss and its parts), or both, with the gathering over ranks between them.
            plan: of the batch.
            given: inputs, or what was found.
            number: of the piece, counted over all ranks.
        """
        if job == "represent":
            return self._represent(plan, given, number)
        if job == "compare":
            return self._compare(plan, given)
        loss, parts = self._compare(plan, self.world.gather(self._represent(plan, given, number))[0])
        if self.world.size > 1 and self.options.parallel == "ddp":
            # A rank whose items touch no weight must still take part in the averaging, which starts at the first weight touched.
            loss = loss + 0 * next(p for p in self.task.parameters() if p.requires_grad).sum()
        return loss, parts

    def _represent(self, plan: Plan, inputs: Mapping[str, Tensor], number: int) -> Found:
        if not inputs:
            return {}
        torch.manual_seed(derived_seed(self.options.seed, "represent", plan.step, number))
        with self._autocast():
            return dict(self.task.represent(inputs))

    def _compare(self, plan: Plan, found: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        torch.manual_seed(derived_seed(self.options.seed, "compare", plan.step))
        with self._autocast():
            return self.task.compare(found, plan)

    def _autocast(self) -> torch.autocast:
        kind = self.world.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.options.precision == "bf16")


def backward(net: nn.Module, plan: Plan, inputs: Sequence[Mapping[str, Tensor]], share: float) -> dict[str, float]:
    """Add `share` of the gradient of a batch to the parameters.

    Args:
        net: a `Whole`, or what copies or shards one.
        plan: of the batch.
        inputs: of each piece of this rank.
        share: of the loss.

    Returns:
        The loss and its parts.

    Raises:
        ConfigError: sharded ranks would not all have items.
        Diverged: the loss is not finite.
    """
    whole: Whole = net if isinstance(net, Whole) else net.module  # type: ignore[assignment]
    pieces = [whole.world.move(part) for part in inputs]
    first = whole.world.rank * len(pieces)
    _enough(whole, plan, whole.world.size * len(pieces))
    if len(pieces) > 1:
        return _in_pieces(whole, plan, pieces, share, first)
    loss, parts = net("both", plan, pieces[0], first)
    told = _checked(loss, parts, plan)
    (loss * share).backward()
    return told


def _enough(whole: Whole, plan: Plan, parts: int) -> None:
    """Sharded ranks wait for each other at every layer, so each needs items for all of them."""
    few = {group: n for group, n in plan.sizes.items() if 0 < n < parts}
    if few and whole.world.size > 1 and whole.options.parallel == "fsdp":
        raise ConfigError(
            f"batch {plan.step} has too few items ({few}) for {parts} parts, and sharded ranks must all run the same layers; "
            "use fewer ranks or pieces, or parallel ddp"
        )


def _in_pieces(whole: Whole, plan: Plan, pieces: Sequence[Found], share: float, first: int) -> dict[str, float]:
    """Gradient cache (Gao et al. 2021): represent, compare, then represent again piece by piece with the gradient at hand."""
    with torch.no_grad(), _still(whole.task):
        given = [whole("represent", plan, piece, first + i) for i, piece in enumerate(pieces)]
    counts = [{key: len(value) for key, value in part.items()} for part in given]
    found, own = whole.world.gather(joined(given))
    found = {key: value.detach().requires_grad_(value.is_floating_point()) for key, value in found.items()}
    loss, parts = whole("compare", plan, found)
    told = _checked(loss, parts, plan)
    (loss * share).backward()
    grads = {key: value.grad[own[key]] * whole.world.size for key, value in found.items() if value.grad is not None}
    done = dict.fromkeys(grads, 0)
    for i, piece in enumerate(pieces):
        again = whole("represent", plan, piece, first + i)
        roots, cached = [], []
        for key in sorted(grads.keys() & again.keys()):
            rows = slice(done[key], done[key] + counts[i][key])
            done[key] = rows.stop
            if again[key].requires_grad:
                roots.append(again[key])
                cached.append(grads[key][rows])
        if roots:
            torch.autograd.backward(roots, cached)
    return told


def joined(given: Sequence[Mapping[str, Tensor]]) -> Found:
    """What the pieces gave, end to end by name, in the order of the pieces; a piece without a name has no item of it."""
    names = dict.fromkeys(name for part in given for name in part)
    return {name: torch.cat([part[name] for part in given if name in part]) for name in names}


@contextmanager
def _still(task: nn.Module) -> Iterator[None]:
    """Normalise by the batch as in training but leave the running statistics alone."""
    norms = [m for m in task.modules() if isinstance(m, _NormBase) and m.training and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def unsynced(net: nn.Module, *, wait: bool) -> Any:
    """A context in which a copied net keeps its gradients to itself, while more batches of the step are to come."""
    return net.no_sync() if wait and isinstance(net, DistributedDataParallel) else nullcontext()


def _checked(loss: Tensor, parts: Mapping[str, float], plan: Plan) -> dict[str, float]:
    told = {"loss": float(loss.detach())} | {name: float(value) for name, value in parts.items()}
    if not math.isfinite(told["loss"]):
        shown = ", ".join(f"{name} {value:.4g}" for name, value in told.items())
        raise Diverged(
            f"the loss of batch {plan.step} is not finite ({shown}); the last checkpoint is from before it. Try a lower "
            "learning_rate, a longer warmup, a smaller clip_norm or precision fp32, and look for broken inputs in that batch"
        )
    return told
