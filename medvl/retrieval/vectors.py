"""Vectors on disk: float32 masters with 8-bit copies to scan, in append-only files that are memory-mapped.

Every vector x is stored twice: as it is, and as codes c with a step s so that x = s c + e. The length of e is kept, so a scan of
the codes, which reads a quarter of the bytes, gives every cosine with a bound on its error (`Matrix.scan`). Whoever then
computes in full precision what the bound leaves open has the exact answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from medvl.errors import ConfigError

SEGMENT_ROWS = 1 << 18
GATHER_BELOW = 0.15
FEW = 20_000
SLACK = 2e-6
SUFFIXES: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "i8": np.dtype("i1"), "step": np.dtype("<f4")}
Precision = Literal["int8", "float32"]
Float32 = NDArray[np.float32]


def quantise(vectors: Float32) -> tuple[NDArray[np.int8], Float32]:
    """Codes (N, E) in [-127, 127], and (N, 2) of their step s and an upper bound of the length of x - s c. Zero rows: step 0."""
    step = (np.abs(vectors).max(1, initial=0) / np.float32(127)).astype(np.float32)
    codes = np.rint(vectors / np.where(step > 0, step, 1)[:, None]).astype(np.int8)
    rest = vectors.astype(np.float64) - step.astype(np.float64)[:, None] * codes
    error = np.nextafter(np.linalg.norm(rest, axis=1).astype(np.float32), np.float32(np.inf))
    return codes, np.stack([step, np.where(step > 0, error, 0)], 1).astype(np.float32)


@dataclass(frozen=True)
class Layout:
    """Where the vectors of one generation of an index lie.

    Args:
        folder: of this generation; width: E; segment_rows: rows of a file.
    """

    folder: Path
    width: int
    segment_rows: int

    def path(self, name: str, segment: int, suffix: str) -> Path:
        """The file of a field's segment."""
        return self.folder / f"{name}-{segment:05d}.{suffix}"

    def parts(self, start: int, n: int) -> Iterator[tuple[int, int, int, int]]:
        """(segment, row in it, first, last) of the pieces of n rows from row `start` on."""
        done = 0
        while done < n:
            segment, offset = divmod(start + done, self.segment_rows)
            size = min(n - done, self.segment_rows - offset)
            yield segment, offset, done, done + size
            done += size

    def write(self, name: str, start: int, vectors: Float32) -> None:
        """Put unit vectors at row `start` and after, and wait until the disk has them. What lay there was never committed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for segment, offset, first, last in self.parts(start, len(vectors)):
            piece = np.ascontiguousarray(vectors[first:last], dtype="<f4")
            codes, steps = quantise(piece)
            for suffix, rows in (("f32", piece), ("i8", codes), ("step", steps)):
                _write_durably(self.path(name, segment, suffix), offset * rows[0].nbytes, rows)
        _sync_folder(self.folder)

    def open(self, name: str, n_rows: int) -> Matrix:
        """The first rows of a field, memory-mapped.

        Raises:
            FileNotFoundError: a compaction moved them; ConfigError: a file is shorter than what was committed.
        """
        codes, masters, steps = [], [], []
        for segment, _, first, last in self.parts(0, n_rows):
            maps = {s: self._map(self.path(name, segment, s), kind, last - first) for s, kind in SUFFIXES.items()}
            codes.append(torch.from_numpy(maps["i8"].view()))
            masters.append(maps["f32"])
            steps.append(np.array(maps["step"]))
        return Matrix(self.width, self.segment_rows, codes, masters, np.concatenate([np.zeros((0, 2), np.float32), *steps]))

    def _map(self, path: Path, kind: np.dtype[Any], rows: int) -> NDArray[np.generic]:
        columns = 2 if path.suffix == ".step" else self.width
        if path.stat().st_size < rows * columns * kind.itemsize:
            raise ConfigError(f"{path.name} is shorter than the {rows} rows committed; copy the index again, all files together")
        return np.asarray(np.memmap(path, dtype=kind, mode="c", shape=(rows, columns)))


def _write_durably(path: Path, offset: int, rows: NDArray[np.generic]) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(handle, "r+b") as file:
        file.seek(offset)
        file.write(rows.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make new names in a folder, and its own in its parent, durable."""
    for path in (folder, folder.parent):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@dataclass(frozen=True, eq=False)
class Matrix:
    """N vectors of one field.

    Args:
        width: E; segment_rows: rows of a segment.
        codes: per segment (n, E) int8; masters: per segment (n, E) float32, both memory-mapped.
        steps: (N, 2) float32 step and error bound; step 0 where the row has no vector.
    """

    width: int
    segment_rows: int
    codes: list[torch.Tensor]
    masters: list[NDArray[np.generic]]
    steps: Float32

    def __len__(self) -> int:
        return len(self.steps)

    def rows(self, rows: NDArray[np.int64]) -> Float32:
        """(n, E) float32 masters of some rows."""
        out = np.empty((len(rows), self.width), np.float32)
        segment = rows // self.segment_rows
        for s in np.unique(segment):
            here = segment == s
            out[here] = self.masters[s][rows[here] - s * self.segment_rows]
        return out

    def scores(self, query: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) cosines in float64, each the same whatever other rows are asked for."""
        parts = [self.rows(rows[i : i + 8192]).astype(np.float64) for i in range(0, len(rows), 8192)]
        return np.concatenate([np.zeros(0), *((part * query).sum(1) for part in parts)])

    def scan(
        self, query: NDArray[np.float64], rows: NDArray[np.int64] | None, precision: Precision = "int8"
    ) -> tuple[Float32, Float32]:
        """(n,) approximate cosines of some rows (None for all), and (n,) how far each may be from the cosine.

        int8: with q = t d + f and x = s c + e, q.x = s t (d.c) + f.(s c) + q.e, where the integer product d.c is exact and the
        rest is at most |f| (1 + |e|) + |q| |e| by Cauchy-Schwarz. float32: the rounding of E products and sums is at most
        E 2^-24 / (1 - E 2^-24) times |q| |x| in any order of summation (Higham 2002, section 3.1).
        """
        if rows is not None and len(rows) < FEW:
            precision = "float32"  # waking the threads of an 8-bit product would take longer than reading four times the bytes
        steps = self.steps if rows is None else self.steps[rows]
        if precision == "float32":
            products = self._products(torch.from_numpy(query.astype(np.float32))[:, None], rows, masters=True)
            return products, np.full(len(steps), 1.1 * (self.width + 2) * 2.0**-24 + SLACK, np.float32)
        levels = exact_levels()
        step = max(float(np.abs(query).max()), 1e-30) / levels
        codes = np.rint(query / step)
        left = float(np.linalg.norm(query - step * codes))
        products = self._products(torch.from_numpy(codes.astype(np.int8))[:, None], rows, masters=False)
        products *= steps[:, 0] * np.float32(step)
        return products, steps[:, 1] * np.float32(1.001 + left) + np.float32(left + SLACK)

    def _products(self, column: torch.Tensor, rows: NDArray[np.int64] | None, *, masters: bool) -> Float32:
        n = len(self) if rows is None else len(rows)
        out = np.empty(n, np.float32)
        ends = np.searchsorted(rows, np.arange(len(self.codes) + 1) * self.segment_rows) if rows is not None else None
        for s, codes in enumerate(self.codes):
            first = s * self.segment_rows
            part = torch.from_numpy(self.masters[s]) if masters else codes
            if rows is None or ends is None:
                out[first : first + len(part)] = _dots(part, column)
                continue
            wanted = rows[ends[s] : ends[s + 1]] - first
            if len(wanted) > GATHER_BELOW * len(part):
                out[ends[s] : ends[s + 1]] = _dots(part, column)[wanted]
            elif len(wanted):
                out[ends[s] : ends[s + 1]] = _dots(torch.from_numpy(part.numpy()[wanted]), column)
        return out


def _dots(part: torch.Tensor, column: torch.Tensor) -> Float32:
    if part.dtype == torch.int8:
        return torch._int_mm(part, column).numpy()[:, 0].astype(np.float32)
    rows, vector = part.numpy(), column[:, 0].numpy()
    return np.asarray(np.einsum("ne,e->n", rows, vector) if len(rows) < FEW else rows @ vector, dtype=np.float32)


@cache
def exact_levels() -> int:
    """Largest code of a query with which this machine's 8-bit products are exact; 0 where there is no such kernel.

    127, or 63 on processors without VNNI, whose kernel adds pairs of products in 16 bits.
    """
    rows = torch.full((300_000 // 64, 64), 127, dtype=torch.int8)
    for levels in (127, 63):
        column = torch.full((64, 1), levels, dtype=torch.int8)
        try:
            sums = torch._int_mm(rows, column)
        except (AttributeError, RuntimeError):
            return 0
        if bool((sums == 64 * 127 * levels).all()) and bool((torch._int_mm(-rows, column) == -64 * 127 * levels).all()):
            return levels
    return 0
