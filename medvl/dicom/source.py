"""Where the bytes come from: a folder, one file or a zip archive, listed and read without trusting any name in it."""

from __future__ import annotations

import os
import stat
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType

from medvl.errors import InputError

MAX_MEMBERS = 200_000
MAX_UNPACKED_BYTES = 64 << 30
MAX_RATIO = 200
RATIO_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Item:
    """One file of a source.

    Args:
        name: path relative to the source, for the person who sits in front of it; may hold identifiers, never log it.
        path: the file on disk, or the archive that holds it.
        size: bytes, unpacked.
        member: place in the archive's directory, None for a file on disk.
    """

    name: str
    path: Path
    size: int
    member: int | None = None


def list_items(source: Path) -> list[Item]:
    """All regular files of a folder (nested), archive or single path, in order of their names.

    Raises:
        InputError: ``not_found``, or ``unsafe_archive`` for a zip that tries to leave its folder, links, or unpacks too large.
    """
    if source.is_dir():
        return sorted(_walk_folder(source), key=lambda item: item.name)
    if not source.is_file():
        raise InputError("not_found", "there is no file or folder at the given path; check the spelling")
    if is_archive(source):
        return _list_archive(source)
    return [Item(source.name, source, source.stat().st_size)]


def is_archive(path: Path) -> bool:
    """True for a zip file, by its first bytes and its directory rather than its name."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06") and zipfile.is_zipfile(path)


def _walk_folder(root: Path) -> Iterator[Item]:
    """Files below `root`; linked folders are followed once, so a loop of links ends."""
    seen: set[tuple[int, int]] = set()
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        info = folder.stat()
        if (info.st_dev, info.st_ino) in seen:
            continue
        seen.add((info.st_dev, info.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir():
                    pending.append((Path(entry.path), name + "/"))
                elif entry.is_file():
                    yield Item(name, Path(entry.path), entry.stat().st_size)


def _list_archive(path: Path) -> list[Item]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            "unsafe_archive", f"the archive's directory cannot be read ({type(error).__name__}); zip it again"
        ) from error
    _check_archive(infos)
    return [Item(info.filename, path, info.file_size, index) for index, info in enumerate(infos) if not info.is_dir()]


def _check_archive(infos: list[zipfile.ZipInfo]) -> None:
    """Refuse what no honest archive of images holds."""
    if len(infos) > MAX_MEMBERS:
        raise InputError("unsafe_archive", f"the archive lists {len(infos)} members, more than {MAX_MEMBERS}; unpack it yourself")
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or (len(info.filename) > 1 and info.filename[1] == ":"):
            raise InputError("unsafe_archive", "a member's name leads outside the archive; do not unpack this file")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise InputError("unsafe_archive", "the archive holds a symbolic link; zip the files themselves")
        if info.flag_bits & 1:
            raise InputError("unsafe_archive", "the archive is encrypted; unpack it and give the folder")
    unpacked = sum(info.file_size for info in infos)
    packed = max(1, sum(info.compress_size for info in infos))
    if unpacked > MAX_UNPACKED_BYTES or (unpacked > RATIO_FREE_BYTES and unpacked / packed > MAX_RATIO):
        raise InputError(
            "unsafe_archive",
            f"the archive would unpack to {unpacked / 2**30:.1f} GiB, {unpacked / packed:.0f} times its size; "
            "unpack it yourself if you trust it",
        )


class Opener:
    """Reads byte ranges of items; keeps archives open for its lifetime. Safe to share between threads."""

    def __init__(self) -> None:
        self._archives: dict[Path, zipfile.ZipFile] = {}
        self._lock = threading.Lock()
        self._last = threading.local()

    def __enter__(self) -> Opener:
        """Start."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the archives."""
        for archive in self._archives.values():
            archive.close()
        self._archives.clear()

    def read(self, item: Item, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of the item from `start`, at most `length`; fewer where the file ends.

        Raises:
            InputError: ``unreadable_file`` when the disk or the archive does not give the bytes.
        """
        wanted = item.size - start if length is None else length
        try:
            if item.member is None:
                return _read_disk(item.path, start, wanted)
            return self._read_member(item, start, wanted)
        except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise InputError(
                "unreadable_file", f"a file cannot be read ({type(error).__name__}); copy the study again"
            ) from error
        except zlib.error as error:
            raise InputError("unreadable_file", "a member of the archive is damaged; zip the study again") from error

    def read_into(self, item: Item, start: int, target: memoryview) -> int:
        """Fill `target` with the item's bytes from `start`; the count of bytes that were there."""
        if item.member is not None:
            data = self.read(item, start, len(target))
            target[: len(data)] = data
            return len(data)
        try:
            descriptor = os.open(item.path, os.O_RDONLY)
            try:
                done = 0
                while done < len(target):
                    count = os.preadv(descriptor, [target[done:]], start + done)
                    if count == 0:
                        break
                    done += count
                return done
            finally:
                os.close(descriptor)
        except OSError as error:
            raise InputError(
                "unreadable_file", f"a file cannot be read ({type(error).__name__}); copy the study again"
            ) from error

    def _read_member(self, item: Item, start: int, length: int) -> bytes:
        """Bytes of an archive's member; beyond its start it is unpacked whole, once."""
        with self._lock:
            archive = self._archives.get(item.path)
            if archive is None:
                archive = self._archives[item.path] = zipfile.ZipFile(item.path)
        assert item.member is not None  # noqa: S101 - narrowed by the callers
        if start == 0 and length < item.size:
            with archive.open(archive.infolist()[item.member]) as file:
                return file.read(length)
        if getattr(self._last, "item", None) != item:
            self._last.data = archive.read(archive.infolist()[item.member])
            self._last.item = item
        return bytes(self._last.data[start : start + length])


def _read_disk(path: Path, start: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(descriptor, length, start)
        while len(data) < length:
            more = os.pread(descriptor, length - len(data), start + len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)
