"""What hides behind the header: comments in compressed streams, and bytes behind the last pixel."""

from __future__ import annotations

import struct

from pydicom import Dataset

_SOI, _SOC = b"\xff\xd8", b"\xff\x4f\xff\x51"
_JPEG_COMMENT, _J2K_COMMENT = 0xFE, 0x64
_J2K_TILE, _SCAN = 0x90, 0xDA
_NEEDED = (b"JFIF\0", b"Adobe", b"SPIFF\0", b"mrfx")  # application segments that say how to decode


def without_comments(ds: Dataset) -> bytes:
    """The pixel data with comment and application segments of its streams blanked, or cut to what the header needs."""
    data: bytes = ds["PixelData"].value
    if data[:4] == b"\xfe\xff\x00\xe0":
        return _blank_fragments(data)
    needed = _needed_bytes(ds)
    return data if needed is None or needed >= len(data) else data[:needed] + bytes(needed % 2)


def _needed_bytes(ds: Dataset) -> int | None:
    try:
        frames, samples = int(ds.get("NumberOfFrames") or 1), int(ds.get("SamplesPerPixel") or 1)
        bits = int(ds.Rows) * int(ds.Columns) * samples * int(ds.BitsAllocated) * frames
    except (AttributeError, TypeError, ValueError):
        return None
    if str(ds.get("PhotometricInterpretation", "")) == "YBR_FULL_422":
        bits = bits * 2 // 3
    return (bits + 7) // 8


def _blank_fragments(data: bytes) -> bytes:
    out, at = bytearray(data), 0
    while at + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHL", data, at)
        if (group, element) != (0xFFFE, 0xE000):
            return bytes(out[: at + 8]) if element == 0xE0DD else bytes(out[:at])
        _blank_stream(out, at + 8, min(at + 8 + length, len(data)))
        at += 8 + length
    return bytes(out)


def _blank_stream(out: bytearray, start: int, end: int) -> None:
    """Overwrite the comments of a JPEG, JPEG-LS or JPEG 2000 header in place; lengths stay."""
    jpeg = out[start : start + 2] == _SOI
    if not jpeg and out[start : start + 4] != _SOC:
        return
    at = start + 2
    while at + 4 <= end and out[at] == 0xFF:
        marker = out[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == (_SCAN if jpeg else _J2K_TILE):
            return
        stop = min(at + 2 + int.from_bytes(out[at + 2 : at + 4], "big"), end)
        body = at + 4
        if jpeg and (marker == _JPEG_COMMENT or (0xE0 <= marker <= 0xEF and not out[body:stop].startswith(_NEEDED))):
            out[body:stop] = bytes(max(0, stop - body))
        elif not jpeg and marker == _J2K_COMMENT:
            out[body + 2 : stop] = bytes(max(0, stop - body - 2))
        at = max(stop, at + 2)
