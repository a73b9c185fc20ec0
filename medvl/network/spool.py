"""The folder of received studies: whole files under keyed names, complete studies in one move, nothing lost by a stop.

    FOLDER/key               the secret that names are made with, readable by its owner alone
    FOLDER/parts/            files that are arriving
    FOLDER/incoming/HASH/    a study that is arriving
    FOLDER/ready/HASH-N/     a study that was complete at second N, until `done`
    FOLDER/late/HASH-N/      a study that is done, kept for a while for images that come late

Images that come after their study was complete make a new version of it, which holds the old images (hard links) and the new.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from medvl.errors import ConfigError

_LOG = logging.getLogger(__name__)
_STUDY = re.compile(r"[0-9a-f]{16}")
_READY = re.compile(r"([0-9a-f]{16})-(\d{1,20})")
_KEY = re.compile(r"[0-9a-f]{64}")


class Spool:
    """One folder, for one process at a time; every method may be called from any thread.

    Args:
        folder: made when absent, for its owner alone.
        quiet_s: a study is complete when nothing came for so long.
        late_s: how long done studies are kept for late images.

    Raises:
        ConfigError: another process uses the folder, or its key is damaged.
    """

    def __init__(self, folder: Path, quiet_s: float, late_s: float) -> None:
        self.folder, self._quiet_s, self._late_s = folder, quiet_s, late_s
        for name in ("", "parts", "incoming", "ready", "late"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._claim = _claim(folder / "lock")
        self._key = _key(folder / "key")
        self._lock = threading.Lock()
        for left in (*(folder / "parts").iterdir(), *(folder / "late").glob(".gone-*")):
            _remove(left)
        now = time.monotonic()
        self._last = {path.name: now for path in (folder / "incoming").iterdir() if _STUDY.fullmatch(path.name)}

    def close(self) -> None:
        """Let another process use the folder."""
        self._claim.close()

    def free_bytes(self) -> int:
        """Room on the disk."""
        return shutil.disk_usage(self.folder).free

    def name(self, uid: str, length: int = 16) -> str:
        """The keyed hash of a UID in hexadecimal digits."""
        return hmac.new(self._key, uid.encode(), hashlib.sha256).hexdigest()[:length]

    @contextmanager
    def part(self) -> Iterator[Path]:
        """A path to write a new file to, for `keep`; what is left there afterwards goes."""
        path = self.folder / "parts" / f"{uuid.uuid4().hex}.part"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, part: Path, study: str, sop_uid: str) -> None:
        """Move a file, already on the disk, to the study of this name. When this returns, no stop loses it.

        The same instance again takes the place of the first.
        """
        with self._lock:
            folder = self.folder / "incoming" / study
            if not folder.is_dir():
                folder.mkdir(mode=0o700)
                _sync(folder.parent)
            part.replace(folder / f"{self.name(sop_uid, 32)}.dcm")
            _sync(folder)
            self._last[study] = time.monotonic()

    def complete(self, held: Callable[[str], bool]) -> list[Path]:
        """Move the studies that were quiet long enough, and that nobody holds open, to ready/; gives their folders."""
        moved = []
        with self._lock:
            now = time.monotonic()
            for study in [name for name, last in self._last.items() if now - last >= self._quiet_s]:
                if held(study):
                    continue
                try:
                    moved += self._move(study)
                except OSError as error:
                    _LOG.warning("a complete study could not be moved (%s); it is tried again", type(error).__name__)
                    self._last[study] = now
        return moved

    def waiting(self) -> list[Path]:
        """The studies in ready/, oldest first. Of several versions only the last, which holds all; the others go."""
        newest: dict[str, Path] = {}
        for path in sorted((self.folder / "ready").iterdir(), key=_version):
            if _READY.fullmatch(path.name):
                before = newest.pop(path.name[:16], None)
                if before is not None:
                    self._drop(before)
                newest[path.name[:16]] = path
        return list(newest.values())

    def done(self, path: Path) -> None:
        """The study of this folder, as `complete` or `waiting` gave it, is processed: nobody will be told of it again."""
        name = path.name
        if path.parent.resolve() != (self.folder / "ready").resolve() or not _READY.fullmatch(name):
            raise ValueError("done takes a folder that the spool gave")
        with self._lock, suppress(FileNotFoundError):
            if self._late_s <= 0:
                self._drop(path)
                return
            os.utime(path)
            path.rename(self.folder / "late" / name)

    def tidy(self, min_free_bytes: int) -> None:
        """Remove done studies that were kept long enough, or all of them when the disk is short of room."""
        with self._lock:
            short = self.free_bytes() < min_free_bytes
            for path in (self.folder / "late").iterdir():
                if short or time.time() - path.stat().st_mtime >= self._late_s:
                    self._drop(path)

    def _move(self, study: str) -> list[Path]:
        """Move one study to ready/, with the images of its last version."""
        folder = self.folder / "incoming" / study
        if not folder.is_dir() or not any(folder.iterdir()):
            _remove(folder)
            self._last.pop(study)
            return []
        versions = [
            path
            for place in ("ready", "late")
            for path in (self.folder / place).glob(f"{study}-*")
            if _READY.fullmatch(path.name)
        ]
        last = max(versions, key=_version, default=None)
        for old in last.glob("*.dcm") if last is not None else ():
            _link(old, folder / old.name, self.folder / "parts")
        number = max(int(time.time()), 0 if last is None else _version(last) + 1)
        target = self.folder / "ready" / f"{study}-{number}"
        _sync(folder)
        folder.rename(target)
        self._last.pop(study)
        _sync(target.parent)
        for old in versions:
            if old.parent.name == "late":
                self._drop(old)
        return [target]

    def _drop(self, path: Path) -> None:
        """Remove a folder so that no stop leaves a half of it under its name."""
        gone = self.folder / "late" / f".gone-{uuid.uuid4().hex}"
        path.rename(gone)
        _remove(gone)


def _version(path: Path) -> int:
    """The number behind the dash, -1 for a strange name."""
    found = _READY.fullmatch(path.name)
    return int(found.group(2)) if found else -1


def _link(old: Path, new: Path, parts: Path) -> None:
    """The same file under a second name, a copy where the disk knows no links; an instance that came again stays."""
    if new.exists():
        return
    try:
        os.link(old, new)
    except FileExistsError:
        return
    except OSError:
        part = parts / f"{uuid.uuid4().hex}.part"
        shutil.copyfile(old, part)
        _sync(part)
        part.replace(new)


def _remove(path: Path) -> None:
    """Remove a file or a folder that may be gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a folder's names, or a file, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _claim(path: Path) -> IO[str]:
    """A lock that the system gives back when the process ends, however it ends."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError("another receiver uses the folder; stop it, or give this one a folder of its own") from None
    return file


def _key(path: Path) -> bytes:
    """The secret of the folder, made on first use."""
    with suppress(FileExistsError):
        new = path.with_name(f".{uuid.uuid4().hex}.part")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(new, path)
        finally:
            new.unlink()
    text = path.read_text(encoding="ascii").strip()
    if not _KEY.fullmatch(text):
        raise ConfigError("the key file of the receiver's folder is damaged; use a new folder, or restore the key from backup")
    return bytes.fromhex(text)
