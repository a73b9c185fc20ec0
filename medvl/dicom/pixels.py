"""Stored pixel values of one frame, from any transfer syntax, with the high bits cleaned."""

from __future__ import annotations

import ctypes
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.dicom.frames import Encoding, Frame
from medvl.dicom.header import DEFLATED, inflate
from medvl.dicom.source import Opener
from medvl.dicom.stream_size import stream_size
from medvl.errors import InputError

RLE = "1.2.840.10008.1.2.5"
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_DCT = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 52, 53, 54, 55, 56))
LOSSY = (*JPEG_DCT, "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")
SYNTAX_NAMES = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.53": "JPEG Spectral Selection",
    "1.2.840.10008.1.2.4.55": "JPEG Full Progression",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K Lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K Lossless RPCL",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.5": "RLE Lossless",
}
_CODEC_ERRORS = (
    RuntimeError,
    ValueError,
    NotImplementedError,
    AttributeError,
    TypeError,
    LookupError,
    OSError,
    EOFError,
    ImportError,
)


def frame_data(frame: Frame, opener: Opener) -> bytes:
    """The bytes of one frame as they lie in the file, fragments joined.

    Raises:
        InputError: ``unreadable_file`` or ``truncated_file``.
    """
    if frame.encoding.transfer_syntax == DEFLATED:
        inflated = opener.once(frame.item, _inflated)
        if sum(frame.chunks[-1]) > len(inflated):
            raise InputError("truncated_file", "the deflated pixels end early; copy the file again")
        return b"".join(inflated[at : at + length] for at, length in frame.chunks)
    parts = [opener.read(frame.item, at, length) for at, length in frame.chunks]
    if any(len(part) != length for part, (_, length) in zip(parts, frame.chunks, strict=True)):
        raise InputError("truncated_file", "a file became shorter while it was read; copy it again")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _inflated(whole: bytes) -> bytes:
    """The inflated stream in which a deflated file's offsets count."""
    return inflate(whole, 132 + _meta_length(whole) if whole[128:132] == b"DICM" else 0)


def _meta_length(whole: bytes) -> int:
    """Bytes of the meta group behind the preamble, from its own length element."""
    return 12 + int.from_bytes(whole[140:144], "little")


def decode(data: bytes, encoding: Encoding) -> NDArray[Any]:
    """Stored values of one frame.

    Args:
        data: its bytes, native or one compressed stream.
        encoding: how they are stored.

    Returns:
        (H, W) integers (or floats for float pixel data), or (H, W, samples) for colour; unused high bits cleared, signs extended.

    Raises:
        InputError: ``undecodable``.
    """
    if encoding.native:
        return clean(_native(data, encoding), encoding)
    said = stream_size(data)
    if said is not None and said[0] and said != (encoding.rows, encoding.columns):
        raise InputError("undecodable", f"a frame says it is {said}, the header says {encoding.rows} x {encoding.columns}")
    try:
        if encoding.transfer_syntax in JPEG_LS and encoding.samples == 1:
            raw = _jpeg_ls(data, encoding)
        elif encoding.transfer_syntax == RLE and encoding.samples == 1 and encoding.bits_allocated in (8, 16):
            raw = _run_length(data, encoding)
        else:
            raw = _by_pydicom(data, encoding)
    except _CODEC_ERRORS as error:
        name = SYNTAX_NAMES.get(encoding.transfer_syntax, encoding.transfer_syntax)
        message = f"a {name} frame cannot be decoded ({type(error).__name__}); convert the series to uncompressed and try again"
        raise InputError("undecodable", message) from error
    if raw.shape[:2] != (encoding.rows, encoding.columns):
        raise InputError("undecodable", f"a frame decodes to {raw.shape}, the header says {encoding.rows} x {encoding.columns}")
    return clean(raw, encoding)


def _native(data: bytes, encoding: Encoding) -> NDArray[Any]:
    shape: tuple[int, ...] = (encoding.rows, encoding.columns)
    if encoding.samples > 1:
        shape = (*shape, encoding.samples)
    count = int(np.prod(shape))
    if encoding.bits_allocated == 1:
        return np.unpackbits(np.frombuffer(data, np.uint8), count=count, bitorder="little").reshape(shape)
    kind = {0x7FE00008: "f", 0x7FE00009: "f"}.get(encoding.pixel_tag, "i" if encoding.signed else "u")
    order = "<" if encoding.little_endian else ">"
    dtype = np.dtype(f"{order}{kind}{encoding.bits_allocated // 8}")
    return np.frombuffer(data, dtype, count).reshape(shape).astype(dtype.newbyteorder("="))


def clean(raw: NDArray[Any], encoding: Encoding) -> NDArray[Any]:
    """The values with bits outside [high bit - bits stored + 1, high bit] removed and the sign extended; may work in place."""
    if raw.dtype.kind == "f" or encoding.samples > 1:
        return raw
    width = raw.dtype.itemsize * 8
    raw = raw.view(f"{'i' if encoding.signed else 'u'}{raw.dtype.itemsize}")
    stored, high = encoding.bits_stored, encoding.high_bit
    if stored >= width or encoding.bits_allocated == 1:
        return raw
    low = high + 1 - stored if stored - 1 <= high < width else 0
    if encoding.signed:
        raw = raw if raw.flags.writeable else raw.copy()
        raw <<= width - stored - low
        raw >>= width - stored
        return raw
    if low or int(raw.max()) >> stored:
        raw = raw if raw.flags.writeable else raw.copy()
        raw >>= low
        raw &= (1 << stored) - 1
    return raw


def _run_length(data: bytes, encoding: Encoding) -> NDArray[Any]:
    from rle.utils import decode_pixel_data

    frame = decode_pixel_data(
        data, version=2, rows=encoding.rows, columns=encoding.columns, bits_allocated=encoding.bits_allocated
    )
    return np.frombuffer(frame, f"<u{encoding.bits_allocated // 8}").reshape(encoding.rows, encoding.columns)


@lru_cache(maxsize=1)
def _charls() -> Any:
    """CharLS's C decoder inside pyjpegls; called through ctypes it leaves other threads running."""
    import _CharLS

    decoder = ctypes.CDLL(_CharLS.__file__).JpegLsDecode
    decoder.restype = ctypes.c_int
    decoder.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p]
    return decoder


def _jpeg_ls(data: bytes, encoding: Encoding) -> NDArray[Any]:
    at = data.find(b"\xff\xf7")
    if at < 0 or len(data) < at + 10:
        raise ValueError("no JPEG-LS frame header")
    precision, rows, columns, components = data[at + 4], *_words(data, at + 5), data[at + 9]
    if components != 1:
        raise ValueError(f"{components} components in a grey image")
    result = np.empty((rows, columns), np.uint8 if precision <= 8 else np.uint16)
    try:
        decoder = _charls()
    except (ImportError, OSError, AttributeError):
        return _by_pydicom(data, encoding)
    message = ctypes.create_string_buffer(512)
    if decoder(result.ctypes.data, result.nbytes, data, len(data), None, message) != 0:
        raise ValueError(message.value.decode("ascii", "replace"))
    if precision <= 8 and encoding.bits_allocated == 16:
        return result.astype(np.uint16)
    return result


def _words(data: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")


def _by_pydicom(data: bytes, encoding: Encoding) -> NDArray[Any]:
    """Any other codec, through pydicom's choice of plug-ins."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    options: dict[str, Any] = {
        "transfer_syntax_uid": UID(encoding.transfer_syntax),
        "rows": encoding.rows,
        "columns": encoding.columns,
        "number_of_frames": 1,
        "samples_per_pixel": encoding.samples,
        "photometric_interpretation": encoding.photometric or "MONOCHROME2",
        "bits_allocated": encoding.bits_allocated,
        "bits_stored": encoding.bits_stored,
        "pixel_representation": int(encoding.signed),
        "planar_configuration": 0,
        "pixel_keyword": "PixelData",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tags that disagree with the stream; clean() and the value check settle that
        array, _ = get_decoder(UID(encoding.transfer_syntax)).as_array(encapsulate([data], has_bot=False), raw=True, **options)
    return np.array(array)
