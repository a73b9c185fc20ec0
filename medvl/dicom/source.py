"""Where the bytes come from: a folder, one file or a zip archive, listed and read without trusting any name in it."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import cast

from medvl.dicom.archive import checked_members
from medvl.errors import InputError

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # a file that was changed for a pipe after it was listed must not block


@dataclass(frozen=True)
class Item:
    """One file of a source.

    Args:
        name: path relative to the source, for the person who sits in front of it; may hold identifiers, never log it.
        path: the file on disk, or the archive that holds it.
        size: bytes, unpacked.
        member: place in the archive's directory, None for a file on disk.
        refused: (code, message) of something in a folder that is no file to read: a link that leaves the source, a pipe, a
            device, a folder that cannot be listed. Reading it raises that.
    """

    name: str
    path: Path
    size: int
    member: int | None = None
    refused: tuple[str, str] | None = None


def shown(name: str) -> str:
    """`name` for a terminal: what cannot be printed (control characters, bytes of no charset) as a question mark in a box."""
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in name)


def list_items(source: Path) -> list[Item]:
    """All files of a folder (nested), archive or single path, in order of their names.

    The source itself may be a link. A link within it counts only where it leads to something within it; others, and what is no
    regular file, are listed as `Item.refused`.

    Raises:
        InputError: ``not_found``, ``special_file`` for a pipe or device, or as `checked_members`.
    """
    if source.is_dir():
        return sorted(_walk_folder(source), key=lambda item: item.name)
    if not source.is_file():
        if source.exists():
            raise InputError("special_file", "the given path is a pipe, socket or device; give a file or folder")
        raise InputError("not_found", "there is no file or folder at the given path; check the spelling")
    if is_archive(source):
        return _list_archive(source)
    return [Item(source.name, source, source.stat().st_size)]


def named_items(source: Path, names: Sequence[str]) -> list[Item]:
    """The items of `source` that are called so, without looking at what else is there.

    Raises:
        InputError: as `list_items`; ``not_found`` also when one of them is gone, ``outside_link`` when one leads out of a folder.
    """
    if source.is_dir():
        real = os.path.realpath(source)
        if not all(_within(os.path.realpath(source / name), real) for name in names):
            raise InputError("outside_link", "a file of the study lies outside the input; look at the input again")
        try:
            return [Item(name, source / name, (source / name).stat().st_size) for name in names]
        except OSError as error:
            raise InputError("not_found", "a file of the study is gone; look at the input again") from error
    wanted = set(names)
    found = [item for item in list_items(source) if item.name in wanted]
    if len(found) < len(wanted):
        raise InputError("not_found", "a file of the study is gone from its archive; look at the input again")
    return found


def is_archive(path: Path) -> bool:
    """True for a zip file, by its first bytes and its directory rather than its name."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06") and zipfile.is_zipfile(path)


def _walk_folder(root: Path) -> Iterator[Item]:
    """What lies below `root`; folders linked from within are followed once, so a loop of links ends."""
    real = os.path.realpath(root)
    seen: set[tuple[int, int]] = set()
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        try:
            info = folder.stat()
            if (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as entries:
                found = [_entry(entry, prefix, real) for entry in entries]
        except OSError as error:
            reason = ("unreadable_file", f"a folder cannot be listed ({type(error).__name__}); look at its permissions")
            yield Item(prefix, folder, 0, refused=reason)
            continue
        for item in found:
            if item.size < 0:
                pending.append((item.path, item.name + "/"))
            else:
                yield item


def _entry(entry: os.DirEntry[str], prefix: str, root: str) -> Item:
    """One entry of a folder; size -1 for a folder to walk."""
    name, path = prefix + entry.name, Path(entry.path)
    reason = ("special_file", "a pipe, socket or device, never opened; it is left out")
    try:
        if entry.is_symlink() and not _within(os.path.realpath(path), root):
            reason = ("outside_link", "a link that leads out of the input; give its target as an input, or copy the files")
        elif entry.is_dir():
            return Item(name, path, -1)
        elif entry.is_file():
            return Item(name, path, entry.stat().st_size)
        elif entry.is_symlink() and not path.exists():
            reason = ("unreadable_file", "a link that leads nowhere; copy the study again")
    except OSError as error:
        reason = ("unreadable_file", f"a file cannot be looked at ({type(error).__name__}); look at its permissions")
    return Item(name, path, 0, refused=reason)


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _list_archive(path: Path) -> list[Item]:
    infos = checked_members(path)
    return [Item(info.filename, path, info.file_size, index) for index, info in enumerate(infos) if not info.is_dir()]


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
            InputError: ``unreadable_file`` when the disk or the archive does not give the bytes, or as the item is refused.
        """
        wanted = item.size - start if length is None else length
        if item.refused is not None:
            raise InputError(*item.refused)
        try:
            if item.member is None:
                return _read_disk(item.path, start, wanted)
            return self._read_member(item, start, wanted)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise InputError(
                "unreadable_file", f"a file cannot be read ({type(error).__name__}); copy the study again"
            ) from error
        except zlib.error as error:
            raise InputError("unreadable_file", "a member of the archive is damaged; zip the study again") from error

    def once(self, item: Item, make: Callable[[bytes], bytes]) -> bytes:
        """`make` of the whole item; worked out once where a thread asks for one item several times in a row."""
        if getattr(self._last, "made_of", None) != item:
            self._last.made = make(self.read(item))
            self._last.made_of = item
        return cast("bytes", self._last.made)

    def read_into(self, item: Item, start: int, target: memoryview) -> int:
        """Fill `target` with the item's bytes from `start`; the count of bytes that were there."""
        if item.member is not None:
            data = self.read(item, start, len(target))
            target[: len(data)] = data
            return len(data)
        try:
            descriptor = os.open(item.path, _FLAGS)
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
    descriptor = os.open(path, _FLAGS)
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
