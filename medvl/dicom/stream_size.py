"""The size that a compressed frame says of itself, read from its own header, so that no decoder is asked for more."""

from __future__ import annotations

import struct

_JPEG, _J2K = b"\xff\xd8", b"\xff\x4f\xff\x51"
_SIZES = frozenset((*(0xC0 + k for k in range(16) if k not in (4, 8, 12)), 0xF7))  # SOFn of JPEG, SOF55 of JPEG-LS
_BARE = frozenset((0x01, *range(0xD0, 0xDA)))  # markers without a length
_SCAN = 0xDA
_JP2_BOXES = 4096  # bytes of boxes that may stand before a JPEG 2000 stream


def stream_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS or JPEG 2000 stream; the largest of each where it names several; None where unknown."""
    if data[:2] == _JPEG:
        return _of_jpeg(data)
    at = 0 if data[:4] == _J2K else data[:_JP2_BOXES].find(_J2K)
    if at < 0 or len(data) < at + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4L", data, at + 8)
    return bottom - top, right - left


def _of_jpeg(data: bytes) -> tuple[int, int] | None:
    found: list[tuple[int, int]] = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _BARE:  # fill byte, or nothing behind it
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _SCAN:
            break
        if marker in _SIZES and at + 9 <= len(data):
            found.append(struct.unpack_from(">2H", data, at + 5))
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if not found:
        return None
    return max(rows for rows, _ in found), max(columns for _, columns in found)
