"""Ranks of one run: who is there, gathering with gradient, averaging, and small messages."""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from medvl.errors import ConfigError
from medvl.training.loop_options import LoopOptions

_LONG = timedelta(hours=24)
_BUCKET = 8 * 2**20


class World:
    """The ranks of a run as one of them sees it. This class is a run of one process; `Ranks` is a run of several.

    Args:
        device: where this rank computes.
        rank: number of this process.
        size: how many there are.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1) -> None:
        self.device, self.rank, self.size = device, rank, size

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and validates."""
        return self.rank == 0

    def move(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs on this rank's device."""
        return {key: value.to(self.device, non_blocking=True) for key, value in inputs.items()}

    def gather(self, found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, slice]]:
        """What all ranks found, end to end by rank, and which rows of it are this rank's."""
        return dict(found), {name: slice(0, len(value)) for name, value in found.items()}

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the gradients of parameters over ranks."""

    def alike(self, tensors: Sequence[Tensor]) -> None:
        """Give all ranks the first rank's values."""

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """Flags that any rank raised; no rank goes on before all have asked."""
        return flags

    def lead(self, make: Callable[[], Any]) -> Any:
        """What the first rank makes, told to all; JSON types."""
        return make()


class Ranks(World):
    """Several processes of one run, as torchrun starts them. Their messages between processors go over `control`."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, dist.get_rank(), dist.get_world_size())
        self.control = _control()

    def gather(self, found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, slice]]:
        """As in `World`; the gradient of the rows of other ranks is theirs to carry on (see `_Gather`)."""
        specs = self._tell_all({name: _spec(value) for name, value in found.items()})
        names = sorted({name for spec in specs for name in spec})
        like = {name: next(spec[name] for spec in specs if name in spec) for name in names}
        own = [found[name] if name in found else _nothing(like[name], self.device) for name in names]
        counts = [[spec[name]["shape"][0] if name in spec else 0 for name in names] for spec in specs]
        starts = [sum(rank[i] for rank in counts[: self.rank]) for i in range(len(names))]
        rows = {name: slice(starts[i], starts[i] + counts[self.rank][i]) for i, name in enumerate(names)}
        return dict(zip(names, _Gather.apply(self, counts, list(rows.values()), *own), strict=True)), rows

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average gradients in runs of some megabytes, so that neither calls nor copies weigh."""
        waiting: list[Tensor] = []
        for parameter in parameters:
            if parameter.grad is not None:
                waiting.append(parameter.grad)
            if sum(grad.numel() for grad in waiting) >= _BUCKET:
                self._average(waiting)
                waiting = []
        if waiting:
            self._average(waiting)

    def alike(self, tensors: Sequence[Tensor]) -> None:
        """Give all ranks the first rank's values."""
        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """Flags that any rank raised; no rank goes on before all have asked."""
        shared = torch.tensor([*flags, False], dtype=torch.int32)
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self.control)
        return tuple(bool(flag) for flag in shared[:-1])

    def lead(self, make: Callable[[], Any]) -> Any:
        """What the first rank makes, told to all; JSON types."""
        return self._tell_all(make() if self.leads else None)[0]

    def _average(self, grads: Sequence[Tensor]) -> None:
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        flat /= self.size
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def _tell_all(self, told: Any) -> list[Any]:
        """What every rank says, by rank."""
        text = torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(text)]), group=self.control)
        longest = int(max(lengths))
        texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(texts, nn.functional.pad(text, (0, longest - len(text))), group=self.control)
        return [json.loads(bytes(t[: int(n)].tolist())) for t, n in zip(texts, lengths, strict=True)]


class _Gather(torch.autograd.Function):
    """Concatenate tensors over ranks; uneven counts are fine.

    Every rank goes on to compute the same loss from all rows, so each holds the whole gradient of that loss and need not ask
    the others: backward takes this rank's rows. Gradients of weights are then averaged over ranks, while the gradient of one
    loss is the sum of what each rank's rows give, so backward multiplies by the number of ranks. What `compare` trains itself
    has the same gradient on every rank, and averaging leaves it.
    """

    @staticmethod
    def forward(ctx: Any, world: Ranks, counts: list[list[int]], rows: list[slice], *own: Tensor) -> tuple[Tensor, ...]:
        """All rows of each of `own`, given how many each rank has of each and which of them are this rank's."""
        ctx.size, ctx.rows = world.size, rows
        ctx.set_materialize_grads(False)
        widths = [value[:1].numel() * value.element_size() if len(value) else _row_bytes(value) for value in own]
        lengths = [[n * width for n, width in zip(rank, widths, strict=True)] for rank in counts]
        longest = max(1, *(sum(rank) for rank in lengths))
        sent = torch.zeros(longest, dtype=torch.uint8, device=world.device)
        for value, part in zip(own, sent.split([*lengths[world.rank], longest - sum(lengths[world.rank])]), strict=False):
            part.copy_(value.detach().contiguous().view(-1).view(torch.uint8))
        came = torch.empty(world.size * longest, dtype=torch.uint8, device=world.device)
        dist.all_gather_into_tensor(came, sent)
        found: list[list[Tensor]] = [[] for _ in own]
        for rank, buffer in enumerate(came.split(longest)):
            parts = buffer.split([*lengths[rank], longest - sum(lengths[rank])])
            for i, (value, part) in enumerate(zip(own, parts, strict=False)):
                found[i].append(part.clone().view(value.dtype).view(counts[rank][i], *value.shape[1:]))
        joined = tuple(torch.cat(parts) for parts in found)
        ctx.mark_non_differentiable(*(value for value in joined if not value.is_floating_point()))
        return joined

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor | None) -> tuple[Any, ...]:
        """This rank's rows of the gradients, times the number of ranks."""
        size, rows = ctx.size, ctx.rows  # type: ignore[attr-defined]
        own = (None if grad is None else grad[part] * size for grad, part in zip(grads, rows, strict=True))
        return (None, None, None, *own)


def open_world(options: LoopOptions) -> World:
    """The world that the environment and the options ask for; joins the other ranks that torchrun started.

    Raises:
        ConfigError: CUDA is asked for and absent, or several processes run and `parallel` is none.
    """
    if options.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {options.device}; known: auto, cpu, cuda")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, and torch sees no CUDA device; use auto or cpu, or install a CUDA build of torch")
    cuda = options.device != "cpu" and torch.cuda.is_available()
    size = dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu"))
    if options.parallel == "none":
        raise ConfigError(f"{size} processes were started and parallel is none; set ddp or fsdp, or start one process")
    device = torch.device("cpu")
    if cuda:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ConfigError(f"process {local} of this machine has no GPU of its own ({torch.cuda.device_count()} seen)")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=30))
        atexit.register(dist.destroy_process_group)
    return Ranks(device)


@cache
def _control() -> dist.ProcessGroup:
    """A group that waits long, since one rank may validate while the others wait."""
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=_LONG)
    return group


def _spec(value: Tensor) -> dict[str, Any]:
    dtype = str(value.dtype).removeprefix("torch.")
    return {"shape": list(value.shape), "dtype": dtype, "grad": value.requires_grad}


def _nothing(spec: Mapping[str, Any], device: torch.device) -> Tensor:
    """No rows of what another rank has."""
    dtype = getattr(torch, spec["dtype"])
    return torch.zeros(0, *spec["shape"][1:], dtype=dtype, device=device, requires_grad=spec["grad"])


def _row_bytes(value: Tensor) -> int:
    size = value.element_size()
    for n in value.shape[1:]:
        size *= n
    return size
