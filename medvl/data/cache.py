"""Rows of preprocessed crops on disk, filled by any number of processes at once and safe against kills at any moment.

A folder holds `hu.npy` (N, ..., D, H, W) int16, `covered.npy` (N, ...) float32, `notes.npy` (N,) bytes and `done.npy` (N,)
uint8. A row's flag in `done.npy` is written after its crops have reached the disk, so a flagged row is always whole. A process
that makes a row holds a lock on that row's byte of `claims`; the kernel gives it back when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import io
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError

CHUNK = 8
NOTE_BYTES = 320
TODO, DONE = 0, 1


@dataclass(frozen=True, eq=False)
class Row:
    """One patient: hu (..., D, H, W) int16, covered (...) float32, and a `note` on what could not be taken, else empty."""

    hu: NDArray[np.int16]
    covered: NDArray[np.float32]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Rows:
    """A finished folder: hu memory-mapped read-only, covered, and the note of each row."""

    hu: NDArray[np.int16]
    covered: NDArray[np.float32]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Array:
    """One `.npy` file whose rows are written in place."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def header(self) -> bytes:
        out = io.BytesIO()
        values = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(out, values)
        return out.getvalue()

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def intact(self, place: Path) -> bool:
        """Whether the file is there, of this shape and dtype, and not cut short."""
        path, header = place / self.name, self.header
        if not path.is_file() or path.stat().st_size != len(header) + self.shape[0] * self.row_bytes:
            return False
        with path.open("rb") as file:
            return file.read(len(header)) == header

    def create(self, place: Path) -> None:
        """An array of zeros, whole or not at all; it takes up space on the disk as rows are written."""
        part = place / f".{self.name}.{os.getpid()}.part"
        with part.open("wb") as file:
            file.write(self.header)
            file.truncate(len(self.header) + self.shape[0] * self.row_bytes)
            os.fsync(file.fileno())
        part.replace(place / self.name)

    def write(self, file: BinaryIO, row: int, values: NDArray[Any]) -> None:
        data = np.ascontiguousarray(values, dtype=self.dtype).tobytes()
        place = len(self.header) + row * self.row_bytes
        while data:
            n = os.pwrite(file.fileno(), data, place)
            data, place = data[n:], place + n


def fill_rows(
    place: Path,
    shape: tuple[int, ...],
    make: Callable[[int], Row],
    *,
    workers: int = 1,
    chunk: int = CHUNK,
    progress: Callable[[int, int], None] | None = None,
    redo: Callable[[str], bool] | None = None,
    start: str | None = None,
) -> Rows:
    """Make every row that is not there yet, and open the folder.

    Args:
        place: the folder, which belongs to this set of rows alone; other processes may be filling it too.
        shape: of all crops: rows, any axes, then the grid (D, H, W).
        make: the row of a number, from 0; with several workers it must be picklable; each worker gets it once.
        workers: processes.
        chunk: rows that a worker claims and puts on the disk together.
        progress: called with (rows finished by anyone, all rows).
        redo: which rows to make again, by their note.
        start: how worker processes start, such as ``"spawn"`` where `make` runs a network; None for the system's own way.

    Raises:
        ConfigError: a worker was killed, or the file system has no locks.
    """
    place.mkdir(parents=True, exist_ok=True)
    job = _Job(place, shape, make)
    with _claims(place) as claims:
        _claim(claims, shape[0], wait=True)  # the byte after the last row guards the files themselves
        _prepare(place, shape, redo)
    with _mapper(workers, start, job) as run:
        while len(todo := np.flatnonzero(_flags(place) == TODO)):
            made = 0
            for n in run([todo[i : i + chunk].tolist() for i in range(0, len(todo), chunk)]):
                made += n
                if progress:
                    progress(int((_flags(place) != TODO).sum()), shape[0])
            if not made:
                _wait(place, int(todo[0]))
    return open_rows(place)


def _prepare(place: Path, shape: tuple[int, ...], redo: Callable[[str], bool] | None) -> None:
    """Create the files anew unless they are all intact, and take back the flags of rows to make again."""
    arrays = _arrays(shape)
    if not all(array.intact(place) for array in arrays):
        for array in reversed(arrays):
            array.create(place)
    elif redo is not None:
        again = [row for row, note in enumerate(_notes(place)) if note and redo(note)]
        _write(place, arrays[0], dict.fromkeys(again, np.uint8(TODO)))


def open_rows(place: Path) -> Rows:
    """A finished folder.

    Raises:
        ConfigError: rows are missing, or a file is missing or cut short.
    """
    try:
        flags = _flags(place)
        hu, covered = np.load(place / "hu.npy", mmap_mode="r"), np.load(place / "covered.npy")
        notes = _notes(place)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise ConfigError(
            f"the cache folder {place.name} is incomplete or cut short; build the cohort again to mend it"
        ) from error
    missing = int((flags == TODO).sum())
    if missing:
        raise ConfigError(
            f"{missing} of {len(flags)} rows of the cache folder {place.name} are not made yet; build it to the end"
        )
    return Rows(hu, covered, notes)


def _arrays(shape: tuple[int, ...]) -> tuple[_Array, _Array, _Array, _Array]:
    """`done.npy` first: created last, and it says what the others hold."""
    return (
        _Array("done.npy", np.dtype(np.uint8), shape[:1]),
        _Array("hu.npy", np.dtype(np.int16), shape),
        _Array("covered.npy", np.dtype(np.float32), shape[:-3]),
        _Array("notes.npy", np.dtype(f"S{NOTE_BYTES}"), shape[:1]),
    )


def _flags(place: Path) -> NDArray[np.uint8]:
    return np.asarray(np.load(place / "done.npy"), dtype=np.uint8)


def _notes(place: Path) -> tuple[str, ...]:
    return tuple(note.decode("utf-8", "ignore") for note in np.load(place / "notes.npy"))


@dataclass(frozen=True)
class _Job:
    """What to fill and how."""

    place: Path
    shape: tuple[int, ...]
    make: Callable[[int], Row]


def _fill(job: _Job, rows: list[int]) -> int:
    """Make the rows of a chunk that nobody else is making or has made; how many those were."""
    place = job.place
    done, *others = _arrays(job.shape)
    with _claims(place) as claims:
        mine = [row for row in rows if _claim(claims, row)]
        flags = _flags(place)
        mine = [row for row in mine if flags[row] == TODO]
        if not mine:
            return 0
        made = {row: job.make(row) for row in mine}
        values: list[dict[int, Any]] = [{row: m.hu for row, m in made.items()}, {row: m.covered for row, m in made.items()}]
        values.append({row: np.array(m.note.encode()[:NOTE_BYTES]) for row, m in made.items()})
        for array, parts in zip(others, values, strict=True):
            _write(place, array, parts)
        _write(place, done, dict.fromkeys(made, np.uint8(DONE)))
    return len(mine)


def _write(place: Path, array: _Array, rows: dict[int, Any]) -> None:
    with (place / array.name).open("r+b", buffering=0) as file:
        for row, values in rows.items():
            if np.shape(values) != array.shape[1:]:
                raise ValueError(f"a row of {array.name} must have shape {array.shape[1:]}, got {np.shape(values)}")
            array.write(file, row, values)  # type: ignore[arg-type]
        os.fsync(file.fileno())


@contextmanager
def _claims(place: Path) -> Iterator[BinaryIO]:
    """The file whose bytes are locked; closing it gives back all locks of this process."""
    with (place / "claims").open("a+b") as file:
        yield file


def _claim(file: BinaryIO, row: int, *, wait: bool = False) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, row)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise ConfigError("the cache lies on a file system without locks; put it on another disk") from error
    return True


def _wait(place: Path, row: int) -> None:
    """Return when whoever makes `row` is done with it, or has ended."""
    with _claims(place) as claims:
        _claim(claims, row, wait=True)


_IN_WORKER: list[_Job] = []


def _begin(job: _Job) -> None:
    """Keep the job of this worker process, so that it travels once and not with every chunk."""
    _IN_WORKER[:] = [job]


def _fill_in_worker(rows: list[int]) -> int:
    return _fill(_IN_WORKER[0], rows)


@contextmanager
def _mapper(workers: int, start: str | None, job: _Job) -> Iterator[Callable[[Sequence[list[int]]], Iterator[int]]]:
    if workers <= 1:
        yield partial(map, partial(_fill, job))
        return
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context(start), _begin, (job,)) as pool:
            yield partial(pool.map, _fill_in_worker)
    except BrokenProcessPool as error:
        raise ConfigError(
            f"one of {workers} worker processes was ended from outside, often for want of memory; run again with fewer workers, "
            "finished rows are kept"
        ) from error
