"""What a zip archive's directory says of it, judged before one byte is unpacked. No name in it is ever used as a path."""

from __future__ import annotations

import stat
import unicodedata
import zipfile
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from medvl.errors import InputError

MAX_MEMBERS = 200_000
MAX_UNPACKED_BYTES = 64 << 30
MAX_MEMBER_BYTES = 8 << 30
MAX_RATIO = 200
RATIO_FREE_BYTES = 1 << 30
MEMBER_RATIO_FREE_BYTES = 64 << 20
_LOCAL_HEADER = 30  # bytes before a member's name; the least that lies between two members
_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY = b"PK\x01\x02"
_MAX_DIRECTORY_BYTES = MAX_MEMBERS << 10
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def checked_members(path: Path) -> list[zipfile.ZipInfo]:
    """The directory of an archive that an honest export may have.

    Raises:
        InputError: ``unsafe_archive`` for one that cannot be read, has too many members, members that overlap or lie outside the
            file, names that lead outside, links and other special files, encryption, methods other than stored and deflated
            (their unpacking cannot be bounded), or an unpacked size beyond reason, of one member or of all.
    """
    try:
        with path.open("rb") as file:
            _check_count(file)
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
            size = file.seek(0, 2)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _unsafe(f"the archive's directory cannot be read ({type(error).__name__}); zip it again") from error
    for info in infos:
        _check_member(info)
    _check_layout(infos, size)
    _check_sizes(infos)
    return infos


def _unsafe(message: str) -> InputError:
    return InputError("unsafe_archive", message)


def _check_count(file: BinaryIO) -> None:
    """Count the entries of the directory before Python makes an object of each."""
    size = file.seek(0, 2)
    tail_at = max(0, size - (1 << 16) - 22)
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        return  # zipfile says what is wrong
    length, end = int.from_bytes(tail[at + 12 : at + 16], "little"), tail_at + at
    file.seek(max(0, end - 76))
    before = file.read(end - max(0, end - 76))
    if before[-20:-16] == _LOCATOR_64 and before[:4] == _END_64:
        length, end = int.from_bytes(before[40:48], "little"), end - 76
    if length > min(end, _MAX_DIRECTORY_BYTES):
        raise _unsafe("the archive's directory is longer than any export's, or than the file; zip it again")
    file.seek(end - length)
    count = file.read(length).count(_ENTRY)
    if count > MAX_MEMBERS:
        raise _unsafe(f"the archive lists {count} members, more than {MAX_MEMBERS}; unpack it yourself")


def _check_member(info: zipfile.ZipInfo) -> None:
    """Refuse what no honest archive of images holds."""
    name = unicodedata.normalize("NFKC", info.orig_filename).replace("\\", "/")
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or name[1:2] == ":" or "\0" in name:
        raise _unsafe("a member's name leads outside the archive; do not unpack this file")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _unsafe("the archive holds a symbolic link; zip the files themselves")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe("the archive holds a device, pipe or socket; zip files only")
    if info.flag_bits & 1:
        raise _unsafe("the archive is encrypted; unpack it and give the folder")
    if info.compress_type not in _METHODS:
        raise _unsafe(f"a member is packed by method {info.compress_type}; zip it again with deflate")


def _check_layout(infos: list[zipfile.ZipInfo], size: int) -> None:
    """Members that share bytes make a small file unpack without end."""
    spans = sorted((info.header_offset, info.header_offset + _LOCAL_HEADER + info.compress_size) for info in infos)
    if any(one[1] > other[0] for one, other in pairwise(spans)):
        raise _unsafe("members of the archive overlap; do not unpack this file")
    if spans and (spans[0][0] < 0 or spans[-1][1] > size):
        raise _unsafe("a member of the archive reaches beyond its end; copy or zip it again")


def _check_sizes(infos: list[zipfile.ZipInfo]) -> None:
    for info in infos:
        ratio = info.file_size / max(1, info.compress_size)
        if info.file_size > MAX_MEMBER_BYTES or (info.file_size > MEMBER_RATIO_FREE_BYTES and ratio > MAX_RATIO):
            raise _unsafe(
                f"a member would unpack to {info.file_size / 2**20:.0f} MiB, {ratio:.0f} times its size; "
                "unpack it yourself if you trust it"
            )
    unpacked = sum(info.file_size for info in infos)
    packed = max(1, sum(info.compress_size for info in infos))
    if unpacked > MAX_UNPACKED_BYTES or (unpacked > RATIO_FREE_BYTES and unpacked / packed > MAX_RATIO):
        raise _unsafe(
            f"the archive would unpack to {unpacked / 2**30:.1f} GiB, {unpacked / packed:.0f} times its size; "
            "unpack it yourself if you trust it"
        )
