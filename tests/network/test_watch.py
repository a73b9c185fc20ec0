"""A drop folder: nothing half copied is taken, nothing is taken twice, what changed is taken again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medvl.network.watch import FolderWatch


def until(true: Callable[[], bool]) -> None:
    """Wait for something."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_what_is_complete_is_told_once_and_again_when_it_changed(tmp_path: Path) -> None:
    seen: list[Path] = []
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "a").write_bytes(b"1")
    (tmp_path / "one.zip").write_bytes(b"2")
    with FolderWatch(tmp_path, 0.1, seen.append):
        until(lambda: len(seen) == 2)
        time.sleep(0.3)
        assert sorted(seen) == [tmp_path / "one.zip", tmp_path / "study"]
        (tmp_path / "study" / "b").write_bytes(b"3")
        until(lambda: len(seen) == 3)
        assert seen[2] == tmp_path / "study"


def test_what_still_grows_or_is_unfinished_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("medvl.network.watch.time.monotonic", lambda: now)
    watch = FolderWatch(tmp_path, 10, lambda _path: None)
    for name in ("grows", "half.PART", ".hidden", "copy/inside.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("/")
    assert watch.poll() == []
    now += 9
    (tmp_path / "grows").write_bytes(b"xx")
    assert watch.poll() == []
    now += 9
    assert watch.poll() == []
    (tmp_path / "copy" / "inside.tmp").rename(tmp_path / "copy" / "inside")
    now += 1
    assert watch.poll() == [tmp_path / "grows"]
    now += 10
    assert watch.poll() == [tmp_path / "copy", tmp_path / "grows"]


def test_an_entry_that_nobody_takes_is_offered_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Path] = []

    def take(path: Path) -> None:
        seen.append(path)
        if len(seen) == 1:
            raise RuntimeError("planted")

    (tmp_path / "planted-name").write_bytes(b"1")
    with FolderWatch(tmp_path, 0.05, take):
        until(lambda: len(seen) == 2)
    assert "RuntimeError" in caplog.text
    assert "planted" not in caplog.text
