"""Watch a drop folder: what lies directly below it is an input once nothing about it changes any more."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_LOG = logging.getLogger(__name__)
UNFINISHED = (".part", ".tmp", ".partial", ".crdownload", ".filepart")


class FolderWatch:
    """Tells of each entry of a folder once it is complete, and again when it changed; a context manager, or `start` and `stop`.

    An entry, a file or a folder with all below it, is complete when names, sizes and times stayed the same for `quiet_s` and no
    name ends as unfinished copies do (`UNFINISHED`). Hidden entries and symbolic links are left alone. It polls, which also works
    on network shares.

    Args:
        folder: made when absent.
        quiet_s: how long nothing may change.
        on_input: called from one thread with the entry; must return soon. Called again after `quiet_s` when it fails, and for
            everything there after a restart: whoever keeps a ledger knows what it has had.
    """

    def __init__(self, folder: Path, quiet_s: float, on_input: Callable[[Path], None]) -> None:
        self._folder, self._quiet_s, self._on_input = folder, quiet_s, on_input
        self._seen: dict[str, tuple[str, float]] = {}
        self._told: dict[str, str] = {}
        self._stop = threading.Event()

    def start(self) -> FolderWatch:
        """Watch in a thread of its own."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="medvl-watch", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> FolderWatch:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def poll(self) -> list[Path]:
        """Look once; the entries that are complete now and were not told of as they are."""
        now = time.monotonic()
        there = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and not entry.is_symlink():
                    there[entry.name] = _fingerprint(entry)
        ready = []
        for name, print_ in there.items():
            before, since = self._seen.get(name, ("", now))
            self._seen[name] = (print_, since if before == print_ else now)
            if print_ and now - self._seen[name][1] >= self._quiet_s and self._told.get(name) != print_:
                ready.append(self._folder / name)
        for name in [name for name in self._seen if name not in there]:
            del self._seen[name]
            self._told.pop(name, None)
        return sorted(ready)

    def _run(self) -> None:
        """Until stopped: look, and tell."""
        tick = min(5.0, max(0.02, self._quiet_s / 4))
        while not self._stop.wait(tick):
            try:
                ready = self.poll()
            except OSError as error:
                _LOG.warning("the watched folder cannot be read (%s); it is tried again", type(error).__name__)
                continue
            for path in ready:
                self._tell(path)

    def _tell(self, path: Path) -> None:
        """Hand on one entry."""
        print_, _ = self._seen[path.name]
        try:
            self._on_input(path)
            self._told[path.name] = print_
        except Exception as error:  # one entry that nobody takes must not stop the next
            _LOG.warning("an entry of the watched folder could not be handed on (%s); it is tried again", type(error).__name__)
            self._seen[path.name] = (print_, time.monotonic())


def _fingerprint(entry: os.DirEntry[str]) -> str:
    """A hash of names, sizes and times of all files, ``""`` while one is unfinished, vanishes or there is none."""
    digest, n_files = hashlib.sha256(), 0
    try:
        for one in _files(entry):
            if one.name.lower().endswith(UNFINISHED):
                return ""
            facts = one.stat(follow_symlinks=False)
            digest.update(f"{one.path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
            n_files += 1
    except OSError:
        return ""
    return digest.hexdigest() if n_files else ""


def _files(entry: os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
    """The entry itself, or all regular files below it in the order of their names."""
    if entry.is_file(follow_symlinks=False):
        yield entry
    elif entry.is_dir(follow_symlinks=False):
        with os.scandir(entry.path) as below:
            inside = sorted(below, key=lambda one: one.name)
        for one in inside:
            yield from _files(one)
