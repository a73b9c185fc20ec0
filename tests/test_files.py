"""Files that appear whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from medvl.files import replace_text, whole


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"

    def fail() -> None:
        with whole(path) as part:
            part.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_two_writers_at_once_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole(path) as one, whole(path) as two:
        one.write_text("one")
        two.write_text("two")
        assert one != two
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_text_has_the_permissions_asked_for(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        for mode, kept in ((0o600, 0o600), (0o666, 0o644)):
            replace_text(tmp_path / "a.txt", "Größe\n", mode=mode)
            assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == kept
    finally:
        os.umask(mask)
    assert (tmp_path / "a.txt").read_bytes() == "Größe\n".encode()
