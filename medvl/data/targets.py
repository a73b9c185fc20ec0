"""Report-derived attributes as arrays that objectives can use, and which statements agree with which regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medvl.renal_score import radius_class

UNKNOWN = -1
SAME_SIZE, OTHER_SIZE = 1.12, 1.3


class KindTargets(BaseModel):
    """What a kind of region may show. Names are those of the label extractor.

    Args:
        regions: region names of this kind, such as kidney_left and kidney_right.
        binary: present or absent attributes.
        classes: attribute to its class names, in order.
        numbers: attribute to (mean, standard deviation), for standardising; unit in the name.
        marks: findings whose place may be taught where masks exist, at most eight.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    regions: tuple[str, ...]
    binary: tuple[str, ...]
    classes: dict[str, tuple[str, ...]] = {}
    numbers: dict[str, tuple[float, float]] = {}
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Targets:
    """Rows of attributes: binary (N, K) int8 with -1 unknown, classes (N, C) int8 with -1, numbers (N, M) float32 with NaN."""

    binary: NDArray[np.int8]
    classes: NDArray[np.int8]
    numbers: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.binary)

    def __getitem__(self, rows: Any) -> Targets:
        return Targets(self.binary[rows], self.classes[rows], self.numbers[rows])


def encode_labels(rows: Sequence[Mapping[str, Any]], kind: KindTargets) -> Targets:
    """Extractor output, one mapping per row, as arrays; uncertain (2) counts as unknown.

    `renal_radius` follows from `mass_size_mm`, as reports state the size and not the class.
    """
    binary = np.full((len(rows), len(kind.binary)), UNKNOWN, np.int8)
    classes = np.full((len(rows), len(kind.classes)), UNKNOWN, np.int8)
    numbers = np.full((len(rows), len(kind.numbers)), np.nan, np.float32)
    for i, row in enumerate(rows):
        for k, name in enumerate(kind.binary):
            if row.get(name) in (0, 1):
                binary[i, k] = row[name]
        for k, (name, values) in enumerate(kind.classes.items()):
            size = row.get("mass_size_mm") if name == "renal_radius" else None
            value = row.get(name) if size is None else radius_class(float(size))
            if value in values:
                classes[i, k] = values.index(value)
        for k, (name, (mean, spread)) in enumerate(kind.numbers.items()):
            value = row.get(name)
            if value is not None:
                numbers[i, k] = (float(value) - mean) / spread
    return Targets(binary, classes, numbers)


def agreement(regions: Targets, statements: Targets, kind: KindTargets) -> NDArray[np.int8]:
    """(N, S): 1 where a statement is borne out by the region's labels in all it says, 0 where any part is contradicted, else -1.

    Sizes agree within 12 % and contradict beyond 30 %.
    """
    same, differs, mentioned = _compare(regions, statements)
    mean = np.array([m for m, _ in kind.numbers.values()], np.float32)
    spread = np.array([s for _, s in kind.numbers.values()], np.float32)
    if len(mean):
        with np.errstate(invalid="ignore"):
            a = np.maximum(regions.numbers * spread + mean, 1.0)[:, None]
            b = np.maximum(statements.numbers * spread + mean, 1.0)[None]
            ratio = np.maximum(a / b, b / a)
            same += (ratio <= SAME_SIZE).sum(-1)
            differs += (ratio > OTHER_SIZE).sum(-1)
        mentioned += np.isfinite(statements.numbers).sum(-1)[None]
    out = np.full(same.shape, UNKNOWN, np.int8)
    out[(differs == 0) & (same == mentioned) & (mentioned > 0)] = 1
    out[differs > 0] = 0
    return out


def _compare(regions: Targets, statements: Targets) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    totals = [np.zeros((len(regions), len(statements)), np.int64) for _ in range(3)]
    for a, b in ((regions.binary, statements.binary), (regions.classes, statements.classes)):
        known_a, known_b = (a >= 0)[:, None], (b >= 0)[None]
        both = known_a & known_b
        equal = a[:, None] == b[None]
        for k, part in enumerate((both & equal, both & ~equal, np.broadcast_to(known_b, both.shape))):
            totals[k] += part.sum(-1)
    return totals[0], totals[1], totals[2]


def likeness(targets: Targets) -> NDArray[np.float32]:
    """(N, N) share of attributes known in both rows where they agree, sizes by a Gaussian; 1 on the diagonal."""
    known_b, known_c, known_n = targets.binary >= 0, targets.classes >= 0, np.isfinite(targets.numbers)
    agree = np.zeros((len(targets), len(targets)), np.float32)
    both = np.zeros_like(agree)
    for values, known in ((targets.binary, known_b), (targets.classes, known_c)):
        pair = known[:, None] & known[None]
        agree += (pair & (values[:, None] == values[None])).sum(-1)
        both += pair.sum(-1)
    pair = known_n[:, None] & known_n[None]
    filled = np.nan_to_num(targets.numbers)
    close = np.exp(-2 * (filled[:, None] - filled[None]) ** 2)
    agree += (pair * close).sum(-1)
    both += pair.sum(-1)
    out = agree / np.maximum(both, 1)
    np.fill_diagonal(out, 1.0)
    return out.astype(np.float32)
