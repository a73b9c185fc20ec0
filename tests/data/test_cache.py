"""Rows of crops on disk: whole or not there, whoever builds them and whenever they are killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from medvl.data.cache import NOTE_BYTES, Row, fill_rows, open_rows
from medvl.errors import ConfigError

SHAPE = (24, 2, 3, 4, 5)


def _make(row: int, log: Path | None = None, wait_s: float = 0.0) -> Row:
    """Crops that only this row has; `log` gets a line for every row made."""
    if log is not None:
        with log.open("a") as file:
            file.write(f"{row} {os.getpid()}\n")
    time.sleep(wait_s)
    note = "unreadable: told" if row % 7 == 3 else ""
    values = np.random.default_rng(row).integers(-1000, 1000, SHAPE[1:]).astype(np.int16)
    return Row(values, np.full(2, row / 100, np.float32), note)


def _check(place: Path) -> None:
    rows = open_rows(place)
    assert rows.hu.shape == SHAPE and rows.hu.dtype == np.int16
    for row in range(SHAPE[0]):
        made = _make(row)
        np.testing.assert_array_equal(rows.hu[row], made.hu)
        np.testing.assert_array_equal(rows.covered[row], made.covered)
        assert rows.notes[row] == made.note


@pytest.mark.parametrize("workers", [1, 2])
def test_all_rows_are_made_once(tmp_path: Path, workers: int) -> None:
    log, told = tmp_path / "log", []
    make = partial(_make, log=log)
    fill_rows(tmp_path / "rows", SHAPE, make, workers=workers, chunk=5, progress=lambda done, total: told.append((done, total)))
    _check(tmp_path / "rows")
    assert told[-1] == (24, 24)
    fill_rows(tmp_path / "rows", SHAPE, make)
    made = Counter(int(line.split()[0]) for line in log.read_text().splitlines())
    assert made == dict.fromkeys(range(24), 1)


def test_rows_without_a_flag_are_made_again_and_no_others(tmp_path: Path) -> None:
    place, log = tmp_path / "rows", tmp_path / "log"
    fill_rows(place, SHAPE, _make)
    flags = np.load(place / "done.npy", mmap_mode="r+")
    flags[[2, 11]] = 0
    flags.flush()
    with pytest.raises(ConfigError, match="2 of 24 rows"):
        open_rows(place)
    fill_rows(place, SHAPE, partial(_make, log=log))
    assert sorted(int(line.split()[0]) for line in log.read_text().splitlines()) == [2, 11]
    _check(place)


@pytest.mark.parametrize("name", ["hu.npy", "covered.npy", "notes.npy", "done.npy"])
@pytest.mark.parametrize("keep", [0, 40, 0.5])
def test_a_file_cut_short_is_noticed_and_mended(tmp_path: Path, name: str, keep: float) -> None:
    place = tmp_path / "rows"
    fill_rows(place, SHAPE, _make)
    size = (place / name).stat().st_size
    os.truncate(place / name, int(size * keep) if keep < 1 else int(keep))
    with pytest.raises(ConfigError, match=r"incomplete or cut short|not made yet"):
        open_rows(place)
    fill_rows(place, SHAPE, _make)
    _check(place)


def test_a_missing_file_is_mended(tmp_path: Path) -> None:
    fill_rows(tmp_path, SHAPE, _make)
    (tmp_path / "hu.npy").unlink()
    fill_rows(tmp_path, SHAPE, _make)
    _check(tmp_path)


def test_the_flag_is_written_after_the_crops_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_rows(tmp_path, (1, *SHAPE[1:]), _make)
    flags = np.load(tmp_path / "done.npy", mmap_mode="r+")
    flags[0] = 0
    flags.flush()
    steps: list[str] = []
    write, sync = os.pwrite, os.fsync
    name = lambda fd: Path(f"/proc/self/fd/{fd}").readlink().name  # noqa: E731
    monkeypatch.setattr(os, "pwrite", lambda fd, *rest: steps.append(f"write {name(fd)}") or write(fd, *rest))
    monkeypatch.setattr(os, "fsync", lambda fd: steps.append(f"sync {name(fd)}") or sync(fd))
    fill_rows(tmp_path, (1, *SHAPE[1:]), _make)
    expected = [f"{verb} {array}.npy" for array in ("hu", "covered", "notes", "done") for verb in ("write", "sync")]
    assert steps == expected


def test_a_row_of_the_wrong_shape_is_refused_before_anything_is_flagged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must have shape \(2, 3, 4, 5\)"):
        fill_rows(tmp_path, SHAPE, lambda row: Row(np.zeros((2, 3, 4, 4), np.int16), np.zeros(2, np.float32)))
    assert not np.load(tmp_path / "done.npy").any()


def test_long_notes_are_cut(tmp_path: Path) -> None:
    note = "ü" * NOTE_BYTES
    rows = fill_rows(tmp_path, (1, 1, 1, 1, 1), lambda row: Row(np.zeros((1, 1, 1, 1), np.int16), np.zeros(1, np.float32), note))
    assert rows.notes[0] == note[: NOTE_BYTES // 2]


def _builder(place: Path, log: Path, wait_s: float) -> subprocess.Popen[bytes]:
    """A process of its own that fills `place`, one row at a time."""
    code = (
        "import sys, functools, pathlib; sys.path.insert(0, sys.argv[1]); import test_cache as t\n"
        "make = functools.partial(t._make, log=pathlib.Path(sys.argv[3]), wait_s=float(sys.argv[4]))\n"
        "t.fill_rows(pathlib.Path(sys.argv[2]), t.SHAPE, make, chunk=2)\n"
    )
    arguments = [str(Path(__file__).parent), str(place), str(log), str(wait_s)]
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"})


def _rows(log: Path) -> list[int]:
    return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []


def _until(ready: object, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.01)


@pytest.mark.slow
def test_two_processes_share_the_rows(tmp_path: Path) -> None:
    place, logs = tmp_path / "rows", [tmp_path / "a", tmp_path / "b"]
    builders = [_builder(place, log, 0.1) for log in logs]
    assert [builder.wait(60) for builder in builders] == [0, 0]
    _check(place)
    assert sorted(_rows(logs[0]) + _rows(logs[1])) == list(range(24))
    assert min(len(_rows(log)) for log in logs) > 2


@pytest.mark.slow
def test_the_rows_of_a_killed_process_are_made_by_the_other(tmp_path: Path) -> None:
    """The killed one holds two rows; the other makes them, and what was flagged before the kill is left alone."""
    place, logs = tmp_path / "rows", [tmp_path / "a", tmp_path / "b"]
    first = _builder(place, logs[0], 0.15)
    _until(lambda: len(_rows(logs[0])) >= 5)
    second = _builder(place, logs[1], 0.05)
    _until(lambda: len(_rows(logs[1])) >= 2)
    flagged = set(np.flatnonzero(np.load(place / "done.npy")).tolist())
    first.send_signal(signal.SIGKILL)
    assert first.wait(30) == -signal.SIGKILL
    assert second.wait(60) == 0
    _check(place)
    killed, survivor = _rows(logs[0]), _rows(logs[1])
    assert set(killed) | set(survivor) == set(range(24))
    assert flagged and len(set(killed) & set(survivor)) <= 2
    assert not flagged & set(killed) & set(survivor)


@pytest.mark.slow
def test_repeated_kills_never_leave_a_flag_on_a_broken_row(tmp_path: Path) -> None:
    place, log, rng = tmp_path / "rows", tmp_path / "log", np.random.default_rng(5)
    for _ in range(4):
        before = len(_rows(log))
        builder = _builder(place, log, 0.02)
        _until(lambda: len(_rows(log)) > before or builder.poll() is not None)  # noqa: B023
        time.sleep(float(rng.uniform(0, 0.08)))
        builder.kill()
        builder.wait(30)
        flags, hu = np.load(place / "done.npy"), np.load(place / "hu.npy", mmap_mode="r")
        for row in np.flatnonzero(flags):
            np.testing.assert_array_equal(hu[row], _make(int(row)).hu)
    fill_rows(place, SHAPE, _make)
    _check(place)


def test_rows_are_made_again_by_their_note(tmp_path: Path) -> None:
    place, log = tmp_path / "rows", tmp_path / "log"
    fill_rows(place, SHAPE, _make)
    fill_rows(place, SHAPE, partial(_make, log=log), redo=lambda note: note.startswith("internal"))
    assert _rows(log) == []
    fill_rows(place, SHAPE, partial(_make, log=log), redo=lambda note: note.startswith("unreadable"))
    assert sorted(_rows(log)) == [3, 10, 17]
    _check(place)


@pytest.mark.slow
def test_workers_may_start_as_fresh_processes(tmp_path: Path) -> None:
    fill_rows(tmp_path, SHAPE, _make, workers=2, start="spawn")
    _check(tmp_path)


def _make_until_killed(row: int) -> Row:
    if row == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return _make(row)


@pytest.mark.slow
def test_a_killed_worker_is_told_and_what_it_finished_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run again with fewer workers"):
        fill_rows(tmp_path, SHAPE, _make_until_killed, workers=2, chunk=2)
    done = np.load(tmp_path / "done.npy")
    assert done[:16].sum() > 8 and done[20] == 0
    fill_rows(tmp_path, SHAPE, _make, workers=2)
    _check(tmp_path)
