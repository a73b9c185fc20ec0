"""One image plane at a time: what a header says about each frame's place, numbers and bytes."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from medvl.dicom import header as dcm
from medvl.dicom.header import UNDEFINED, Header, Values
from medvl.dicom.source import Item
from medvl.errors import InputError

Triple = tuple[float, float, float]
MAX_FRAMES = 1 << 16
MAX_FRAME_PIXELS = 1 << 26  # 8192 x 8192
MAX_FRAGMENTS = 100_000  # compressed pieces beyond one for each frame
_IMAGE_GROUPS = (0x00209113, 0x00209116, 0x00289110, 0x00289145, 0x00209111, 0x00189329, 0x00189314, 0x00189118, 0x00409096)
_PHASES = {
    "native": r"\b(native|nativ|non[- ]?contrast|unenhanced|w/?o contrast|without contrast|sans)\b",
    "arterial": r"\b(arterial|arteriel|art|cortico\w*|cta|angio)\b",
    "portal_venous": r"\b(portal|portal[- _]?venous|venous|ven|pv)\b",
    "nephrographic": r"\b(nephro\w*)\b",
    "delayed": r"\b(delay\w*|late|excretory|urogra\w*)\b",
}


@dataclass(frozen=True)
class Encoding:
    """How the numbers of a frame are stored; equal for all frames of most series."""

    transfer_syntax: str
    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    little_endian: bool
    pixel_tag: int

    @property
    def native(self) -> bool:
        """True when the pixels are plain words, not a compressed stream."""
        return self.transfer_syntax in NATIVE_SYNTAXES

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return (self.rows * self.columns * self.samples * self.bits_allocated + 7) // 8


NATIVE_SYNTAXES = frozenset((dcm.IMPLICIT, "1.2.840.10008.1.2.1", dcm.BIG_ENDIAN, dcm.DEFLATED))


@dataclass(frozen=True)
class Frame:
    """One image plane.

    Args:
        item: the file it lies in.
        chunks: (offset, length) of its bytes in the file, or in the inflated stream of a deflated one; in order.
        encoding: how they are stored.
        position: LPS mm of the centre of its first voxel, None when absent.
        orientation: direction cosines of a row (first three) and of a column, None when absent.
        spacing: mm between rows, mm between columns, None when absent or malformed.
        slope: of the rescale to HU; `intercept` likewise.
        split: values that may tell two stacks at the same place apart (acquisition, phase, echo...), by name.
        tags: the flat raw elements, shared between the frames of one file.
    """

    item: Item
    chunks: tuple[tuple[int, int], ...]
    encoding: Encoding
    position: Triple | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    slope: float
    intercept: float
    split: dict[str, str]
    tags: Values = field(repr=False)


_SPLIT_TAGS = {
    "acquisition": (0x00200012, 0x00209156),
    "time point": (0x00200100, 0x00209128),
    "stack": (0x00209056,),
    "echo": (0x00180086,),
    "heart phase": (0x00209241,),
    "trigger time": (0x00181060,),
    "image type": (0x00080008,),
    "kernel": (0x00181210,),
    "tube voltage": (0x00180060,),
    "slice thickness": (0x00180050,),
}


def frames_of(item: Item, header: Header, read: Callable[[int, int], bytes]) -> list[Frame]:
    """The frames of an image file.

    Args:
        item: the file.
        header: its header.
        read: gives the bytes (start, length) of the file; used for the table of fragments only.

    Raises:
        InputError: ``not_an_image``, ``truncated_file``, ``implausible_frames``, ``too_large`` or ``malformed_header``.
    """
    values = header.values
    if header.pixel_offset < 0:
        raise InputError("not_an_image", "the file holds no pixels (a report, contour or index object)")
    encoding = _encoding(header)
    said = dcm.number(values, 0x00280008)
    if said is None and dcm.text(values, 0x00280008):
        raise InputError("implausible_frames", "the number of frames is no number; export the file again")
    n_frames = int(said or 1)
    if n_frames < 1 or n_frames > MAX_FRAMES:
        raise InputError("implausible_frames", f"the header claims {n_frames:.6g} frames; one file holds at most {MAX_FRAMES}")
    chunks = _native_chunks(item, header, encoding, n_frames) if encoding.native else _fragments(item, header, n_frames, read)
    if n_frames == 1 and dcm.FRAME_GROUPS not in values:
        return [_frame(item, chunks[0], encoding, values)]
    shared = _flatten(values.get(dcm.SHARED_GROUPS, []))
    own = values.get(dcm.FRAME_GROUPS, [])
    if own and len(own) != n_frames:
        raise InputError("implausible_frames", f"the header claims {n_frames} frames and describes {len(own)}")
    top = {tag: value for tag, value in values.items() if isinstance(value, bytes)}
    if not own:
        one = {**top, **shared}
        return [_frame(item, chunk, encoding, one) for chunk in chunks]
    return [_frame(item, chunk, encoding, {**top, **shared, **_flatten(own[k : k + 1])}) for k, chunk in enumerate(chunks)]


def _encoding(header: Header) -> Encoding:
    values, little = header.values, header.little_endian

    def word(tag: int, default: int | None = None) -> int:
        found = dcm.integer(values, tag, little_endian=little)
        if found is None:
            found = default
        if found is None:
            raise InputError("malformed_header", f"the image lacks element {tag >> 16:04X},{tag & 0xFFFF:04X}; export it again")
        return found

    bits = word(0x00280100)
    stored = word(0x00280101, bits)
    if word(0x00280010) < 1 or word(0x00280011) < 1 or bits not in (1, 8, 16, 32, 64) or not 1 <= stored <= bits:
        raise InputError("malformed_header", "rows, columns or bits of the image make no sense; export it again")
    if word(0x00280010) * word(0x00280011) * word(0x00280002, 1) > MAX_FRAME_PIXELS:
        size = f"{word(0x00280010)} x {word(0x00280011)}"
        raise InputError("too_large", f"the header claims frames of {size} pixels; this is no CT image")
    return Encoding(
        transfer_syntax=header.transfer_syntax,
        rows=word(0x00280010),
        columns=word(0x00280011),
        samples=word(0x00280002, 1),
        photometric=dcm.text(values, 0x00280004),
        bits_allocated=bits,
        bits_stored=stored,
        high_bit=word(0x00280102, stored - 1),
        signed=word(0x00280103, 0) == 1,
        little_endian=little,
        pixel_tag=header.pixel_tag,
    )


def _native_chunks(item: Item, header: Header, encoding: Encoding, n_frames: int) -> list[tuple[tuple[int, int], ...]]:
    size, needed = encoding.frame_bytes, encoding.frame_bytes * n_frames
    if header.pixel_length != UNDEFINED and header.pixel_length < needed:
        code = "implausible_frames" if n_frames > 1 else "truncated_file"
        raise InputError(code, f"the pixels take {needed} bytes and the file declares {header.pixel_length}; export it again")
    if not header.deflated and header.pixel_offset + needed > item.size:
        raise InputError("truncated_file", f"the file ends {header.pixel_offset + needed - item.size} bytes early; copy it again")
    return [((header.pixel_offset + k * size, size),) for k in range(n_frames)]


def _fragments(item: Item, header: Header, n_frames: int, read: Callable[[int, int], bytes]) -> list[tuple[tuple[int, int], ...]]:
    """Byte ranges of each compressed frame, from the item headers alone."""
    if header.pixel_length != UNDEFINED:
        raise InputError("malformed_header", "a compressed transfer syntax without encapsulated pixels; export the file again")
    pieces: list[tuple[int, int]] = []
    pos = header.pixel_offset
    while True:
        head = read(pos, 8)
        if len(head) < 8:
            if pieces and sum(pieces[-1]) <= item.size and n_frames < len(pieces):
                break  # only the closing delimiter is missing
            raise InputError("truncated_file", "the file ends inside its compressed pixels; copy it again")
        group, element, length = struct.unpack("<HHL", head)
        if (group, element) == (0xFFFE, 0xE0DD):
            break
        if (group, element) != (0xFFFE, 0xE000) or length == UNDEFINED:
            raise InputError("malformed_header", "the compressed pixels are not split into items; export the file again")
        if pos + 8 + length > item.size:
            raise InputError("truncated_file", f"the file ends {pos + 8 + length - item.size} bytes early; copy it again")
        pieces.append((pos + 8, length))
        if len(pieces) > n_frames + MAX_FRAGMENTS:
            raise InputError("implausible_frames", f"more than {MAX_FRAGMENTS} compressed pieces; export the file again")
        pos += 8 + length
    return _group_fragments(pieces, n_frames, read)


def _group_fragments(
    pieces: list[tuple[int, int]], n_frames: int, read: Callable[[int, int], bytes]
) -> list[tuple[tuple[int, int], ...]]:
    if len(pieces) < 2:
        raise InputError("truncated_file", "the file holds no compressed frame; copy it again")
    table, body = pieces[0], pieces[1:]
    if n_frames == 1:
        return [tuple(body)]
    if len(body) == n_frames:
        return [(piece,) for piece in body]
    if table[1] == 4 * n_frames:
        starts = struct.unpack(f"<{n_frames}L", read(*table))
        origin = body[0][0] - 8
        edges = [origin + start for start in starts] + [body[-1][0] + body[-1][1]]
        groups = [tuple(p for p in body if low <= p[0] - 8 < high) for low, high in pairwise(edges)]
        if all(groups):
            return groups
    raise InputError(
        "implausible_frames", f"{len(body)} compressed pieces do not divide into {n_frames} frames; export the file again"
    )


def _flatten(items: list[dict[int, Any]]) -> Values:
    """The leaf elements of the image-describing functional groups of the first item."""
    flat: Values = {}
    for tag, value in (items[0] if items else {}).items():
        if tag in _IMAGE_GROUPS and isinstance(value, list) and value:
            flat.update({leaf: raw for leaf, raw in value[0].items() if isinstance(raw, bytes)})
    return flat


def _frame(item: Item, chunks: tuple[tuple[int, int], ...], encoding: Encoding, values: Values) -> Frame:
    position, orientation = dcm.numbers(values, 0x00200032), dcm.numbers(values, 0x00200037)
    spacing = dcm.numbers(values, 0x00280030)
    slope, intercept = dcm.number(values, 0x00281053), dcm.number(values, 0x00281052)
    split = {name: found for name, tags in _SPLIT_TAGS.items() if (found := "".join(dcm.text(values, tag) for tag in tags))}
    return Frame(
        item,
        chunks,
        encoding,
        (position[0], position[1], position[2]) if position and len(position) == 3 else None,
        orientation if orientation and len(orientation) == 6 and _is_frame(orientation) else None,
        (spacing[0], spacing[1]) if spacing and len(spacing) == 2 and min(spacing) > 0 else None,
        slope if slope is not None and slope != 0 else 1.0,
        intercept if intercept is not None else 0.0,
        split,
        values,
    )


def _is_frame(cosines: tuple[float, ...]) -> bool:
    """True for two unit vectors at a right angle, to the precision that headers have."""
    row, column = cosines[:3], cosines[3:]
    dot = sum(a * b for a, b in zip(row, column, strict=True))
    return abs(math.hypot(*row) - 1) < 0.01 and abs(math.hypot(*column) - 1) < 0.01 and abs(dot) < 0.01


def facts_of(frame: Frame) -> dict[str, Any]:
    """Plain values worth keeping: scanner, kernel, phase hints; nothing that names a patient or a place."""
    values = frame.tags
    words = f"{dcm.text(values, 0x0008103E)} {dcm.text(values, 0x00181030)}".lower().replace("_", " ")
    padding = dcm.integer(values, 0x00280120, little_endian=frame.encoding.little_endian)
    if padding is not None and frame.encoding.signed and padding > 0x7FFF:
        padding -= 0x10000
    agent = dcm.text(values, 0x00180010)
    found: dict[str, Any] = {
        "manufacturer": dcm.text(values, 0x00080070),
        "model": dcm.text(values, 0x00081090),
        "kernel": dcm.text(values, 0x00181210),
        "kvp": dcm.number(values, 0x00180060),
        "slice_thickness_mm": dcm.number(values, 0x00180050),
        "patient_position": dcm.text(values, 0x00185100),
        "image_type": list(dcm.texts(values, 0x00080008)),
        "rescale_type": dcm.text(values, 0x00281054),
        "contrast": None if not agent else not re.fullmatch(r"none|no|without.*|oral", agent.lower()),
        "phase_hints": [name for name, pattern in _PHASES.items() if re.search(pattern, words)],
        "padding_hu": None if padding is None else padding * frame.slope + frame.intercept,
        "transfer_syntax": frame.encoding.transfer_syntax,
        "bits_stored": frame.encoding.bits_stored,
    }
    return {name: value for name, value in found.items() if value not in (None, "", [])}
