"""Regions through the towers, a bounded number at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from medvl.heads.answering import Answering, Read
from medvl.models.encoders.base import Encoded

T = TypeVar("T")
AT_ONCE = {"cpu": 8, "cuda": 32}  # beyond 8 a CPU's caches overflow: 10 ms a crop of 48 voxels an edge at 8, 12 to 15 at 32


def at_once(device: torch.device) -> int:
    """How many regions go through the towers together."""
    return AT_ONCE.get(device.type, 8)


def read_parts(
    answering: Answering, pixels: Callable[[int], Tensor], n: int, kind: int, *, bf16: bool = False
) -> tuple[Read, list[Encoded]]:
    """What a system makes of `n` regions of one kind, and what its image tower saw of each, one row a piece.

    Args:
        answering: the system.
        pixels: (C, D, H, W) of a region by its number; made only when its turn comes.
        n: regions, at least one.
        kind: theirs.
        bf16: run the towers in bfloat16 where that is faster.
    """
    device = answering.device
    reads, kept = [], []
    for some in parts(range(n), at_once(device)):
        batch = [pixels(number) for number in some]
        alone = len(batch) == 1 and device.type == "cpu"  # oneDNN takes three times as long for one as for each of two
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            read, encoded = answering.read_keeping(torch.stack(batch * 2 if alone else batch), kind)
        reads.append(Read(*(part[: len(batch)] for part in read)))
        rows = zip(encoded.tokens.split(1), encoded.pooled.split(1), strict=True)
        kept += [Encoded(tokens, encoded.grid, pooled) for tokens, pooled in rows][: len(batch)]
    return Read(*(torch.cat(column) for column in zip(*reads, strict=True))), kept


def parts(items: Sequence[T], at_most: int) -> list[Sequence[T]]:
    """`items` in order, in as few parts of nearly equal size as `at_most` allows."""
    n = -(-len(items) // at_most)
    return [items[a:b] for a, b in pairwise([len(items) * k // max(1, n) for k in range(n + 1)])]
