"""Image decoders: a tiny frame of every compression that CT comes in, decoded by the reader that studies go through.

Each frame is 32 x 32: sixteen squares of 8 x 8, whose value is 700 for each step down and 300 for each step right.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np

from medvl.dicom.frames import Encoding
from medvl.dicom.pixels import SYNTAX_NAMES, decode
from medvl.doctor.check import Check
from medvl.errors import InputError

SIDE = 32
PACKAGES = {
    "1.2.840.10008.1.2.4.50": "python-gdcm pillow",
    "1.2.840.10008.1.2.4.70": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.5": "pylibjpeg-rle",
}
# By transfer syntax: bits allocated, and the frame. JPEG Baseline holds the values in 8 bits, a sixteenth of them.
FRAMES: dict[str, tuple[int, str]] = {
    "1.2.840.10008.1.2.4.50": (
        8,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ"
        "EBAQEBAQH/wAALCAAgACABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAACAcL/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQAAPwDP/JAmCYRc"
        "mCYJhFyYJgkEfJgkCYf//9k=",
    ),
    "1.2.840.10008.1.2.4.70": (
        16,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALEAAgACABAREA/8QAFwABAQEBAAAAAAAAAAAAAAAAAAkKEP/aAAgBAQABAADgFLAFLAFLAABSwBSwBS"
        "wAAUsAUsAUsAAFLAFLAFLAABSwBSwBSwAAUsAUsAUsAAFLAFLAFLAABSwBSwBSwBq8AUsAUsAUsAAFLAFLAFLAABSwBSwBSwAAUsAUsAUsAAFL"
        "AFLAFLAABSwBSwBSwAAUsAUsAUsAAFLAFLAFLAGrwBSwBSwBSwAAUsAUsAUsAAFLAFLAFLAABSwBSwBSwAAUsAUsAUsAAFLAFLAFLAABSwBSwB"
        "SwAAUsAUsAUsAavAFLAFLAFLAABSwBSwBSwAAUsAUsAUsAAFLAFLAFLAABSwBSwBSwAAUsAUsAUsAAFLAFLAFLAABSwBSwBSwB///Z",
    ),
    "1.2.840.10008.1.2.4.80": (
        16,
        "/9j/9wALDAAgACABAREA/9oACAEBAAAAAPwAV4EEEIQgAAAAACStChQoooogAANYkSJEiSSdQMwXB4hcLh0hOJxwh4nHCHiccI8nOEeTmALvJJ"
        "FFFFAAFiKKKKKKAq0UUUUUUBVIoopSlKCzk5OcI8nOEeTnCPTuE9O4T07hPTsDd5ShCEIFShCEIQgVCEIQhCBToQhCEIQudOncJ6dwnp3CencJ"
        "6dwnp3CenYG7whCIiBTIiIiIKVERERBSIiIiIiM88/C+fhfPwvn4Xz8L5+F8+P/ZAA==",
    ),
    "1.2.840.10008.1.2.4.90": (
        16,
        "/0//UQApAAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAABCwEB/1IADAAAAAEABQQEAAH/XAATQGBoaHBoaHBoaHBoaHBoaHD/ZA"
        "AlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjL/kAAKAAAAAADlAAH/k8/kDAWEf8P2Ao/kCALUAz/B+YND9gcADP9JDFfjCzkq"
        "ViHaR8D8BCD8xIARYitFVz6SbI98CeUsE11oER32kV/5V3+LcSkkuoJyqpLfwPwIoPzJQBcpjKfYe51iAdSrgGEaBJJr2rIRaFMsMWt184yzwb"
        "DYbDUMImW5hfclEcS6vPjXEIqYAAGEg5DmBo8jQQDKIiQRne8+vgAvwPwHIPzGQCFsFU4JVF1GbaAABhIQHAcJCD31hIS8hNQAYSAA1LpKRR38"
        "OhqAABhIQZTsJCX+6gIAAGEg/9k=",
    ),
    "1.2.840.10008.1.2.5": (
        16,
        "AgAAAEAAAABAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPkA+QH5AvkD+QD5AfkC+QP5AP"
        "kB+QL5A/kA+QH5AvkD+QD5AfkC+QP5APkB+QL5A/kA+QH5AvkD+QD5AfkC+QP5AvkD+QX5BvkC+QP5BfkG+QL5A/kF+Qb5AvkD+QX5BvkC+QP5"
        "BfkG+QL5A/kF+Qb5AvkD+QX5BvkC+QP5BfkG+QX5BvkH+Qj5BfkG+Qf5CPkF+Qb5B/kI+QX5BvkH+Qj5BfkG+Qf5CPkF+Qb5B/kI+QX5BvkH+Q"
        "j5BfkG+Qf5CPkI+Qn5CvkL+Qj5CfkK+Qv5CPkJ+Qr5C/kI+Qn5CvkL+Qj5CfkK+Qv5CPkJ+Qr5C/kI+Qn5CvkL+Qj5CfkK+Qv5APks+Vj5hPkA"
        "+Sz5WPmE+QD5LPlY+YT5APks+Vj5hPkA+Sz5WPmE+QD5LPlY+YT5APks+Vj5hPkA+Sz5WPmE+bz56PkU+UD5vPno+RT5QPm8+ej5FPlA+bz56P"
        "kU+UD5vPno+RT5QPm8+ej5FPlA+bz56PkU+UD5vPno+RT5QPl4+aT50Pn8+Xj5pPnQ+fz5ePmk+dD5/Pl4+aT50Pn8+Xj5pPnQ+fz5ePmk+dD5"
        "/Pl4+aT50Pn8+Xj5pPnQ+fz5NPlg+Yz5uPk0+WD5jPm4+TT5YPmM+bj5NPlg+Yz5uPk0+WD5jPm4+TT5YPmM+bj5NPlg+Yz5uPk0+WD5jPm4",
    ),
}


def check_decoders() -> Iterator[Check]:
    """One check a compression."""
    for syntax, (bits, text) in FRAMES.items():
        yield check_decoder(syntax, bits, base64.b64decode(text))


def check_decoder(syntax: str, bits: int, data: bytes) -> Check:
    """Decode one frame and compare it with what went in; lossy JPEG may be 2 off."""
    name, stored = SYNTAX_NAMES[syntax], 12 if bits == 16 else 8
    encoding = Encoding(syntax, SIDE, SIDE, 1, "MONOCHROME2", bits, stored, stored - 1, False, True, 0x7FE00010)
    try:
        found = decode(data, encoding)
    except InputError:
        fix = f"Run: pip install --force-reinstall {PACKAGES[syntax]}"
        return Check("decoders", name, "problem", "A frame cannot be decoded; such studies would be skipped.", fix)
    down, right = np.indices((SIDE, SIDE)) // 8
    expected = (700 * down + 300 * right) >> (0 if bits == 16 else 4)
    off = int(np.abs(found.astype(np.int64) - expected).max())
    if off > (0 if bits == 16 else 2):
        fix = f"Run: pip install --force-reinstall {PACKAGES[syntax]}, and do not use results until this check is ok."
        return Check("decoders", name, "problem", f"A frame decodes to wrong values (up to {off} off).", fix, {"off": off})
    return Check("decoders", name, "ok", "Decodes, values right.", facts={"off": off})
