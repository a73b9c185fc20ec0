"""The next study is read in the background, the latest wish first, and a failure stops nothing."""

import threading
from collections.abc import Callable

from medvl.errors import InputError
from medvl_ui.read_ahead import ReadAhead


def reading(ahead_of: Callable[[str], None], wait_s: float = 0.02) -> ReadAhead:
    return ReadAhead(ahead_of, wait_s=wait_s)


def test_reads_what_was_wished_and_goes_on_after_a_failure() -> None:
    seen, done = [], threading.Event()

    def read(case_id: str) -> None:
        seen.append(case_id)
        if case_id == "gone":
            raise InputError("source_gone", "gone")
        done.set()

    reading(read).wish(["gone", "b"])
    assert done.wait(5)
    assert seen == ["gone", "b"]


def test_a_newer_wish_replaces_one_not_begun() -> None:
    seen, done = [], threading.Event()
    ahead = reading(lambda case_id: (seen.append(case_id), done.set()), wait_s=0.3)
    ahead.wish(["a"])
    ahead.wish(["b"])
    assert done.wait(5)
    assert seen == ["b"]


def test_nothing_wished_starts_no_thread_and_preparation_runs_once() -> None:
    prepared, done = [], threading.Event()
    ahead = ReadAhead(lambda case_id: done.set(), lambda: prepared.append(1), wait_s=0.0)
    ahead.wish([])
    assert prepared == []
    ahead.wish(["a"])
    assert done.wait(5)
    assert prepared == [1]
