"""A DICOM header as raw values and the place of the pixels, read with a walker that touches no pixel.

The walker knows explicit and implicit value representations, both byte orders, deflated streams, sequences of defined and
undefined length, and files without a preamble. It keeps only the elements in `WANTED` and, for multi-frame images, the
functional groups. A file it cannot follow is given to pydicom, which yields the same `Header`.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from medvl.errors import InputError

UNDEFINED = 0xFFFFFFFF
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
SHARED_GROUPS, FRAME_GROUPS = 0x52009229, 0x52009230
MAX_INFLATED_BYTES = 2 << 30
MAX_INFLATION, INFLATION_FREE_BYTES = 200, 64 << 20
MAX_HEADER_BYTES = 128 << 20
MAX_WHOLE_BYTES = 512 << 20  # of a file that only the slow reader follows, or that must be inflated to be looked at
MAX_DEPTH = 64
MAX_ELEMENTS = 2_000_000  # with the items and elements of nested sequences
MAX_VALUE_BYTES = 64 << 10  # of one element that is kept
MAX_UID_BYTES = 128  # the standard allows 64; some archives join two

Value = bytes | list[dict[int, Any]]
Values = dict[int, Any]

# fmt: off
WANTED = frozenset((
    0x00020010, 0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x00080070, 0x0008103E, 0x00081090, 0x00089007, 0x00180010,
    0x00180022, 0x00180050, 0x00180060, 0x00180086, 0x00180088, 0x00181060, 0x00181030, 0x00181120, 0x00181210, 0x00185100,
    0x0020000D, 0x0020000E, 0x00200011, 0x00200012, 0x00200013, 0x00200032, 0x00200037, 0x00200052, 0x00200100, 0x00209056,
    0x00209128, 0x00209156, 0x00209241, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100,
    0x00280101, 0x00280102, 0x00280103, 0x00280120, 0x00281052, 0x00281053, 0x00281054, 0x00282110, 0x7FE00001,
    0x00080020, 0x00100020, 0x00100030, 0x00101010,
))
# fmt: on
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_PREFIXES = (32 << 10, 1 << 20, 32 << 20, MAX_HEADER_BYTES)
_UIDS = (0x00080018, 0x0020000D, 0x0020000E)
_PYDICOM_ERRORS = (
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    struct.error,
    TypeError,
    ValueError,
)
_FUNCTIONAL = (SHARED_GROUPS, FRAME_GROUPS)


class _NeedMore(Exception):  # noqa: N818 - a signal, not an error
    """The prefix ended inside the header."""


class _Malformed(Exception):  # noqa: N818
    """The walker lost the thread."""


class _Budget:
    """How many elements and items a header may still have, and how deep it may nest."""

    def __init__(self) -> None:
        self.left, self.depth = MAX_ELEMENTS, 0

    def spend(self) -> None:
        """Count one element or item."""
        self.left -= 1
        if self.left < 0:
            raise InputError("malformed_header", f"the header has more than {MAX_ELEMENTS} elements; this is not an image")

    def __enter__(self) -> None:
        """One level down."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise InputError("malformed_header", f"sequences are nested more than {MAX_DEPTH} deep; this is not an image")

    def __exit__(self, *_: object) -> None:
        """One level up."""
        self.depth -= 1


@dataclass(frozen=True)
class Header:
    """Raw elements of one file.

    Args:
        values: tag number to raw bytes, or to a list of items for the functional groups.
        transfer_syntax: UID; implicit little endian where the file says nothing.
        little_endian: byte order of binary values and native pixels.
        pixel_offset: where the pixel element's value starts (in the inflated stream for deflated files), -1 without pixels.
        pixel_length: its length in bytes, `UNDEFINED` for encapsulated pixels.
        pixel_tag: which of the three pixel elements it is.
    """

    values: Values = field(repr=False)
    transfer_syntax: str
    little_endian: bool = True
    pixel_offset: int = -1
    pixel_length: int = 0
    pixel_tag: int = 0

    @property
    def deflated(self) -> bool:
        """True when offsets count in the inflated stream."""
        return self.transfer_syntax == DEFLATED


def text(values: Values, tag: int) -> str:
    """The element as stripped text, ``""`` when absent."""
    raw = values.get(tag)
    return raw.decode("latin-1").strip(" \0") if isinstance(raw, bytes) else ""


def texts(values: Values, tag: int) -> tuple[str, ...]:
    """The element's values as stripped texts."""
    whole = text(values, tag)
    return tuple(part.strip() for part in whole.split("\\")) if whole else ()


def numbers(values: Values, tag: int) -> tuple[float, ...] | None:
    """The decimal strings of the element, None when absent, empty, not numbers or not finite."""
    raw = values.get(tag)
    if not isinstance(raw, bytes):
        return None
    try:
        result = tuple(float(part.strip(b" \0")) for part in raw.split(b"\\"))
    except ValueError:
        return None
    return result if all(abs(number) < 1e30 for number in result) else None


def number(values: Values, tag: int) -> float | None:
    """The first decimal string of the element, None when absent or not a number."""
    result = numbers(values, tag)
    return result[0] if result else None


def integer(values: Values, tag: int, *, little_endian: bool = True) -> int | None:
    """A binary 16-bit element (US) as an integer, None when absent."""
    raw = values.get(tag)
    if not isinstance(raw, bytes) or len(raw) < 2:
        return None
    return int.from_bytes(raw[:2], "little" if little_endian else "big")


def inflate(data: bytes, start: int) -> bytes:
    """The data set of a deflated file, with the first `start` bytes (preamble and meta group) kept in front.

    Raises:
        InputError: ``truncated_file`` when the stream is damaged, ``deflate_bomb`` when it grows beyond 2 GiB, or beyond 64 MiB
            and 200 times its size.
    """
    limit = min(MAX_INFLATED_BYTES, max(INFLATION_FREE_BYTES, MAX_INFLATION * len(data)))
    try:
        engine = zlib.decompressobj(-15)
        body = engine.decompress(data[start:], limit)
    except zlib.error as error:
        raise InputError("truncated_file", "the deflated data set is damaged; copy the file again") from error
    if engine.unconsumed_tail:
        raise InputError("deflate_bomb", f"the deflated data set grows beyond {limit >> 20} MiB; this is not an image")
    return data[:start] + body


def read_header(read: Callable[[int, int], bytes], size: int) -> Header:
    """The header of a file of `size` bytes, with `read(start, length)` giving its bytes.

    Raises:
        InputError: ``not_dicom``, ``truncated_file``, ``malformed_header``, ``deflate_bomb`` or ``invalid_uid``.
    """
    for prefix in (*(p for p in _PREFIXES if p < size), *((size,) if size <= MAX_WHOLE_BYTES else ())):
        data = read(0, prefix)
        if prefix > MAX_HEADER_BYTES and _start(data)[1] != DEFLATED:
            break
        try:
            return _checked(_parse(data, complete=len(data) >= size))
        except _NeedMore:
            continue
        except _Malformed:
            if size > MAX_WHOLE_BYTES:
                raise InputError("malformed_header", "the header cannot be followed; export the file again") from None
            return _checked(_parse_with_pydicom(read(0, size)))
    if size > MAX_HEADER_BYTES:
        raise InputError("malformed_header", f"the header is longer than {MAX_HEADER_BYTES >> 20} MiB; this is not an image")
    raise InputError("truncated_file", "the file ends inside its header; copy it again")


def _checked(header: Header) -> Header:
    """The header, refused where a value it keeps is longer than any honest one, or a UID is none."""
    for tag, value in header.values.items():
        if isinstance(value, bytes) and len(value) > MAX_VALUE_BYTES:
            where = f"{tag >> 16:04X},{tag & 0xFFFF:04X}"
            raise InputError("malformed_header", f"element {where} takes {len(value)} bytes; export the file again")
    for tag in _UIDS:
        uid = text(header.values, tag)
        if len(uid) > MAX_UID_BYTES or ".." in uid or any(mark in "/\\" or not mark.isprintable() for mark in uid):
            raise InputError("invalid_uid", "the UID of the study, series or image is none; export the file again")
    return header


def _parse(data: bytes, *, complete: bool) -> Header:
    start, syntax = _start(data)
    if syntax == DEFLATED:
        if not complete:
            raise _NeedMore
        data = inflate(data, start)
    little = syntax != BIG_ENDIAN
    if len(data) < start + 8:
        raise _NeedMore
    explicit = syntax != IMPLICIT
    vr = data[start + 4 : start + 6]
    if explicit != (vr.isalpha() and vr.isupper()):
        explicit = not explicit  # the bytes win over what the meta group claims
    values: Values = {}
    budget = _Budget()
    for tag, at, length, _ in _elements(data, start, len(data), explicit, little, budget, top=True):
        if tag in PIXEL_TAGS:
            return Header(values, syntax, little, at, length, tag)
        if tag in _FUNCTIONAL:
            values[tag] = _items(data, at, at + length, explicit, little, budget)
        elif tag in WANTED:
            if at + length > len(data):
                raise _NeedMore
            values[tag] = data[at : at + length]
    return Header(values, syntax, little)


def _start(data: bytes) -> tuple[int, str]:
    """Where the data set starts, and its transfer syntax."""
    if data[:4] == b"PK\x03\x04":
        raise InputError("nested_archive", "an archive inside the source; give it by itself")
    if data[128:132] != b"DICM":
        group = data[:2]
        if (
            group not in (b"\x08\x00", b"\x02\x00")
            or len(data) < 16
            or data[2:4] not in (b"\x00\x00", b"\x05\x00", b"\x08\x00", b"\x16\x00")
        ):
            raise InputError("not_dicom", "the file is not DICOM; it is left out")
        return (0, IMPLICIT) if group == b"\x08\x00" else _meta(data, 0)
    return _meta(data, 132)


def _meta(data: bytes, pos: int) -> tuple[int, str]:
    syntax = IMPLICIT
    while pos + 8 <= len(data) and data[pos : pos + 2] == b"\x02\x00":
        if data[pos + 4 : pos + 6] in _LONG_VRS:
            length, at = int.from_bytes(data[pos + 8 : pos + 12], "little"), pos + 12
        else:
            length, at = int.from_bytes(data[pos + 6 : pos + 8], "little"), pos + 8
        if data[pos + 2 : pos + 4] == b"\x10\x00":
            syntax = data[at : at + length].decode("latin-1").strip(" \0")
        pos = at + length
    return pos, syntax


def _elements(  # noqa: PLR0912 - one flat loop, run for every element of every file
    data: bytes, pos: int, end: int, explicit: bool, little: bool, budget: _Budget, *, top: bool = False
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (tag, value start, value length, next element) until the end, an item delimiter or the pixels."""
    order = "<" if little else ">"
    tag_of, short_of, long_of = (
        struct.Struct(order + "HH").unpack_from,
        struct.Struct(order + "H").unpack_from,
        struct.Struct(order + "L").unpack_from,
    )
    while pos + 8 <= end:
        budget.spend()
        group, element = tag_of(data, pos)
        tag = group << 16 | element
        if group == 0xFFFE:
            if element == 0xE00D:
                yield tag, pos + 8, 0, pos + 8
                return
            raise _Malformed
        vr = b""
        if explicit:
            vr = data[pos + 4 : pos + 6]
            if vr in _LONG_VRS:
                if pos + 12 > end:
                    raise _NeedMore
                length, at = long_of(data, pos + 8)[0], pos + 12
            else:  # also what some archives write for a representation they do not know
                length, at = short_of(data, pos + 6)[0], pos + 8
        else:
            length, at = long_of(data, pos + 4)[0], pos + 8
        if top and tag in PIXEL_TAGS:
            yield tag, at, length, at
            return
        if length == UNDEFINED:
            inner_explicit = explicit and vr != b"UN"
            with budget:
                pos = _skip_items(data, at, end, inner_explicit, little, budget)
            length = pos - at
        else:
            pos = at + length
        yield tag, at, length, pos
    if pos != end:
        if top or pos + 8 > end:
            raise _NeedMore
        raise _Malformed


def _skip_items(data: bytes, pos: int, end: int, explicit: bool, little: bool, budget: _Budget) -> int:
    """The position behind the delimiter of a sequence of undefined length."""
    order = "<HHL" if little else ">HHL"
    while True:
        if pos + 8 > end:
            raise _NeedMore
        budget.spend()
        group, element, length = struct.unpack_from(order, data, pos)
        if group != 0xFFFE or element not in (0xE000, 0xE0DD):
            raise _Malformed
        pos += 8
        if element == 0xE0DD:
            return pos
        if length == UNDEFINED:
            pos = _item_end(data, pos, end, explicit, little, budget)
        else:
            pos += length


def _item_end(data: bytes, pos: int, end: int, explicit: bool, little: bool, budget: _Budget) -> int:
    for tag, _, _, following in _elements(data, pos, end, explicit, little, budget):
        pos = following
        if tag == 0xFFFEE00D:
            return pos
    raise _NeedMore


def _items(data: bytes, pos: int, end: int, explicit: bool, little: bool, budget: _Budget) -> list[dict[int, Any]]:
    """The items of a sequence with all their elements, nested sequences included."""
    if end > len(data):
        raise _NeedMore
    order = "<HHL" if little else ">HHL"
    result = []
    while pos + 8 <= end:
        budget.spend()
        _, element, length = struct.unpack_from(order, data, pos)
        if element == 0xE0DD:
            break
        pos += 8
        stop = end if length == UNDEFINED else pos + length
        item: dict[int, Any] = {}
        for tag, at, size, following in _elements(data, pos, stop, explicit, little, budget):
            pos = following
            if tag == 0xFFFEE00D:
                break
            is_sequence = data[at : at + 4] == (b"\xfe\xff\x00\xe0" if little else b"\xff\xfe\xe0\x00")
            with budget:
                item[tag] = _items(data, at, at + size, explicit, little, budget) if is_sequence else data[at : at + size]
        result.append(item)
    return result


def _parse_with_pydicom(data: bytes) -> Header:
    """The same header by the slow and lenient way."""
    from pydicom import dcmread
    from pydicom.dataelem import RawDataElement
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(io.BytesIO(data), force=True)
        syntax = str(dataset.file_meta.get("TransferSyntaxUID", IMPLICIT))
        values: Values = {}
        offset, length, pixel_tag = -1, 0, 0
        for tag in [int(tag) for tag in dataset.keys()]:  # noqa: SIM118 - a data set iterates over elements
            if tag not in WANTED and tag not in PIXEL_TAGS:
                continue
            raw = dataset.get_item(tag)
            if isinstance(raw, RawDataElement) and tag in PIXEL_TAGS:
                offset, length, pixel_tag = raw.value_tell, raw.length, tag
            elif isinstance(raw, RawDataElement) and raw.value is not None:
                values[tag] = raw.value
    except (*_PYDICOM_ERRORS, BytesLengthException, InvalidDicomError) as error:
        raise InputError(
            "malformed_header", f"the header cannot be followed ({type(error).__name__}); export the file again"
        ) from error
    if offset < 0:
        raise InputError("malformed_header", "the header cannot be followed; export the file again")
    return Header(values, syntax, syntax != BIG_ENDIAN, offset, length, pixel_tag)
