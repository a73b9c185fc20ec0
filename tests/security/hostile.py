"""Inputs made to break a reader, each small on disk, with the reason codes that may answer it."""

from __future__ import annotations

import gzip
import os
import socket
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

CASES: dict[str, tuple[Callable[[Path], Path], set[str]]] = {}
LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT"}
MIB = 1 << 20


def case(*codes: str) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """Register a maker: it gets an empty folder and gives the path to read."""

    def keep(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CASES[make.__name__] = (make, set(codes))
        return make

    return keep


# --- pieces of DICOM, written by hand because no library writes what must be refused


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One explicit element; `length` lies."""
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return head + (struct.pack("<xxL", size) if vr in LONG else struct.pack("<H", size)) + value


def start(syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Preamble and meta group."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    body = element(0x00020010, b"UI", uid)
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<L", len(body))) + body


def us(tag: int, value: int) -> bytes:
    return element(tag, b"US", struct.pack("<H", value))


def image(
    pixels: bytes | None = None,
    *,
    rows: int = 8,
    columns: int = 8,
    frames: bytes = b"",
    study: bytes = b"1.2.3",
    extra: bytes = b"",
    modality: bytes = b"CT",
    pixel_length: int | None = None,
) -> bytes:
    """The data set of a small CT image, explicit little endian."""
    pixels = bytes(rows * columns * 2) if pixels is None else pixels
    parts = [
        element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
        element(0x00080018, b"UI", b"1.2.3.4\0"),
        element(0x00080060, b"CS" if len(modality) < 65536 else b"UT", modality),
        extra,
        element(0x0020000D, b"UI", study),
        element(0x0020000E, b"UI", b"1.2.4\0"),
        us(0x00280002, 1),
        element(0x00280004, b"CS", b"MONOCHROME2 "),
        element(0x00280008, b"IS", frames) if frames else b"",
        us(0x00280010, rows),
        us(0x00280011, columns),
        us(0x00280100, 16),
        us(0x00280101, 16),
        us(0x00280102, 15),
        us(0x00280103, 0),
        element(0x7FE00010, b"OB" if pixel_length == 0xFFFFFFFF else b"OW", pixels, pixel_length),
    ]
    return b"".join(parts)


def placed(rows: int, columns: int, stream: bytes) -> bytes:
    """A compressed image with a place, so that its pixels are asked for."""
    extra = element(0x00180050, b"DS", b"1 ")
    place = element(0x00200032, b"DS", b"0\\0\\0 ") + element(0x00200037, b"DS", b"1\\0\\0\\0\\1\\0 ")
    whole = image(fragments(stream), rows=rows, columns=columns, extra=extra, pixel_length=0xFFFFFFFF)
    return whole.replace(us(0x00280002, 1), place + us(0x00280002, 1) + b"", 1).replace(
        us(0x00280100, 16), element(0x00280030, b"DS", b"1\\1 ") + us(0x00280100, 16), 1
    )


def fragments(stream: bytes) -> bytes:
    padded = stream + b"\0" * (len(stream) % 2)
    return (
        struct.pack("<HHL", 0xFFFE, 0xE000, 0)
        + struct.pack("<HHL", 0xFFFE, 0xE000, len(padded))
        + padded
        + b"\xfe\xff\xdd\xe0\0\0\0\0"
    )


def save(folder: Path, data: bytes, name: str = "I1") -> Path:
    (folder / name).write_bytes(data)
    return folder


# --- archives


def zipped(folder: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(folder / "x.zip", "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return folder / "x.zip"


def patched(path: Path, signature: bytes, at: int, value: bytes) -> Path:
    """The archive with bytes behind every `signature` overwritten."""
    data = bytearray(path.read_bytes())
    found = data.find(signature)
    while found >= 0:
        data[found + at : found + at + len(value)] = value
        found = data.find(signature, found + 4)
    path.write_bytes(data)
    return path


@case("unsafe_archive")
def zip_flat_bomb(folder: Path) -> Path:
    return zipped(folder, {"a.dcm": start() + image(bytes(96 * MIB), rows=4096, columns=4096, frames=b"3 ")})


@case("unsafe_archive")
def zip_many_small_bombs(folder: Path) -> Path:
    return zipped(folder, {f"{k}": bytes(60 * MIB) for k in range(18)})


@case("nested_archive")
def zip_nested(folder: Path) -> Path:
    inner = zipped(folder, {"0": bytes(16 * MIB)})
    for _ in range(5):
        data = inner.read_bytes()
        inner = zipped(folder, {f"{k}.zip": data for k in range(8)}, zipfile.ZIP_STORED)
    return inner


@case("unsafe_archive")
def zip_overlapping(folder: Path) -> Path:
    """Five hundred entries of the directory that point to one member."""
    data = zipped(folder, {"0": bytes(8 * MIB)}).read_bytes()
    at, end = data.find(b"PK\1\2"), data.find(b"PK\5\6")
    entry = data[at:end]
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 500, 500, len(entry) * 500, at, 0)
    (folder / "x.zip").write_bytes(data[:at] + entry * 500 + tail)
    return folder / "x.zip"


@case("unsafe_archive")
def zip_directory_of_a_million(folder: Path) -> Path:
    data = zipped(folder, {"0": b"1"}).read_bytes()
    at, end = data.find(b"PK\1\2"), data.find(b"PK\5\6")
    entry = data[at:end]
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry) * 1_000_000, at, 0)
    (folder / "x.zip").write_bytes(data[:at] + entry * 1_000_000 + tail)
    return folder / "x.zip"


@case("truncated_file", "unreadable_file")
def zip_says_less_than_it_holds(folder: Path) -> Path:
    path = zipped(folder, {"a": start() + image(bytes(40 * MIB), rows=4096, columns=4096)})
    return patched(path, b"PK\1\2", 24, struct.pack("<L", 2000))


@case("unsafe_archive")
def zip_says_more_than_it_holds(folder: Path) -> Path:
    return patched(zipped(folder, {"a": b"1" * 900}), b"PK\1\2", 24, struct.pack("<L", 0xF0000000))


@case("unsafe_archive")
def zip_reaches_beyond_its_end(folder: Path) -> Path:
    return patched(zipped(folder, {"a": b"1" * 900}), b"PK\1\2", 20, struct.pack("<L", 0xF0000000))


@case("unsafe_archive")
def zip_by_bzip2(folder: Path) -> Path:
    return zipped(folder, {"a": bytes(60 * MIB)}, zipfile.ZIP_BZIP2)


def named(name: str) -> Callable[[Path], Path]:
    return lambda folder: zipped(folder, {name: start() + image()})


for _k, _name in enumerate(
    [
        "../a",
        "a/../../b",
        "/etc/a",
        "..\\a",
        "C:a",
        "c:\\a",
        "\\\\host\\share\\a",
        "a/\u2025/b",
        "\uff0e\uff0e/a",
        "\uff0fetc\uff0fa",
        "..\uff0fa",
    ]
):
    CASES[f"zip_name_{_k}"] = (named(_name), {"unsafe_archive"})


@case("unsafe_archive")
def zip_name_with_nul(folder: Path) -> Path:
    path = zipped(folder, {"a_b": start() + image()})
    return patched(patched(path, b"PK\1\2", 47, b"\0"), b"PK\3\4", 31, b"\0")


def special(mode: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        info = zipfile.ZipInfo("a")
        info.external_attr = (mode | 0o777) << 16
        with zipfile.ZipFile(folder / "x.zip", "w") as archive:
            archive.writestr(info, b"/etc/passwd")
        return folder / "x.zip"

    return make


for _name, _mode in {"link": stat.S_IFLNK, "pipe": stat.S_IFIFO, "device": stat.S_IFCHR}.items():
    CASES[f"zip_{_name}"] = (special(_mode), {"unsafe_archive"})


# --- folders


def outside(folder: Path) -> Path:
    """A study beside the input folder."""
    place = folder / "secret"
    place.mkdir()
    save(place, start() + image())
    (folder / "in").mkdir()
    return place


@case("outside_link")
def folder_link_to_a_file_outside(folder: Path) -> Path:
    (folder / "in" / "a").symlink_to(outside(folder) / "I1")
    return folder / "in"


@case("outside_link")
def folder_link_to_a_folder_outside(folder: Path) -> Path:
    (folder / "in" / "a").symlink_to(outside(folder))
    return folder / "in"


@case("outside_link")
def folder_link_to_a_neighbour_of_like_name(folder: Path) -> Path:
    outside(folder).rename(folder / "in2")
    (folder / "in" / "a").symlink_to("../in2/I1")
    return folder / "in"


@case("outside_link")
def folder_link_to_endless_zeros(folder: Path) -> Path:
    (folder / "a").symlink_to("/dev/zero")
    return folder


@case("unreadable_file")
def folder_link_to_itself(folder: Path) -> Path:
    (folder / "a").symlink_to("a")
    return folder


@case("special_file")
def folder_with_a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a")
    return folder


@case("special_file")
def a_pipe_as_input(folder: Path) -> Path:
    os.mkfifo(folder / "a")
    return folder / "a"


@case("special_file")
def folder_with_a_socket(folder: Path) -> Path:
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket may take 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("a")
    finally:
        os.chdir(here)
    return folder


@case("truncated_file", "not_dicom")
def folder_names_of_no_charset(folder: Path) -> Path:
    return save(folder, start() + image()[:40], os.fsdecode(b"\xff\xfe\x1b[31m"))


# --- headers


@case("truncated_file", "malformed_header")
def header_two_gigabyte_element(folder: Path) -> Path:
    return save(folder, start() + image()[:80] + element(0x00081030, b"UT", b"x", 0x7FFFFFFE))


@case("truncated_file", "malformed_header")
def header_two_gigabyte_kept_element(folder: Path) -> Path:
    return save(folder, start() + element(0x00080060, b"UT", b"CT", 0x7FFFFFFE))


@case("truncated_file", "malformed_header")
def header_of_a_sparse_gigabyte(folder: Path) -> Path:
    save(folder, start() + element(0x00080060, b"UT", b"CT", 0x3FFFFFFE))
    os.truncate(folder / "I1", 1 << 30)
    return folder


def sequences(depth: int, tag: int, *, closed: bool) -> bytes:
    one = struct.pack("<HH2sxxLHHL", tag >> 16, tag & 0xFFFF, b"SQ", 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return one * depth + (end * depth if closed else b"")


@case("malformed_header", "truncated_file")
def header_nested_100k_deep(folder: Path) -> Path:
    return save(folder, start() + sequences(100_000, 0x00081140, closed=True) + image())


@case("malformed_header", "truncated_file")
def header_nested_and_never_closed(folder: Path) -> Path:
    return save(folder, start() + sequences(100_000, 0x00081140, closed=False))


@case("malformed_header", "truncated_file")
def header_functional_groups_100k_deep(folder: Path) -> Path:
    head, pixels = image()[:-138], image()[-138:]
    return save(folder, start() + head + sequences(100_000, 0x52009230, closed=True) + pixels)


@case("malformed_header", "truncated_file")
def header_functional_groups_of_lengths_100k_deep(folder: Path) -> Path:
    body = b""
    for _ in range(3000):  # each level counts the bytes of the next
        inner = struct.pack("<HHL", 0xFFFE, 0xE000, len(body)) + body
        body = struct.pack("<HH2sxxL", 0x5200, 0x9230, b"SQ", len(inner)) + inner
    head, pixels = image()[:-138], image()[-138:]
    return save(folder, start() + head + body + pixels)


@case("too_few_slices", "missing_geometry")
def header_of_a_million_elements(folder: Path) -> Path:
    return save(folder, start() + element(0x00081030, b"LO", b"") * 1_000_000 + image())


@case("malformed_header")
def header_of_four_million_elements(folder: Path) -> Path:
    return save(folder, start() + element(0x00081030, b"LO", b"") * 4_000_000 + image())


@case("malformed_header")
def header_of_four_million_items(folder: Path) -> Path:
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 4_000_000
    return save(folder, start() + element(0x00081140, b"SQ", items, 0xFFFFFFFF) + image())


@case("malformed_header")
def header_modality_of_100_kilobytes(folder: Path) -> Path:
    return save(folder, start() + image(modality=b"CT" * 50_000))


def uid(value: bytes) -> Callable[[Path], Path]:
    return lambda folder: save(folder, start() + image(study=value))


for _k, _uid in enumerate(
    [b"../../etc/passwd", b"1.2..3", b"/etc/a", b"1.2\\..\\3", b"1" * 10_240, b"1.2\n3 ", b"1.2\x1b[31m ", b"1.2\0.3 "]
):
    CASES[f"uid_{_k}"] = (uid(_uid), {"invalid_uid"})


def charset(value: bytes) -> Callable[[Path], Path]:
    return lambda folder: save(
        folder, start() + image(extra=element(0x00080005, b"CS", value) + element(0x00100010, b"PN", b"\x1b$B\xff\xff\x1b"))
    )


for _k, _value in enumerate(
    [b"ISO 2022 IR 9999", b"\\".join([b"ISO 2022 IR 87"] * 2000), b"../../etc", b"\xff\xfe\0\x80", b"utf_16_be", b"idna"]
):
    CASES[f"charset_{_k}"] = (charset(_value), {"too_few_slices", "missing_geometry"})


# --- pixels


def many(frames: bytes) -> Callable[[Path], Path]:
    return lambda folder: save(folder, start() + image(frames=frames))


for _k, _n in enumerate([b"2147483648", b"-5", b"99999999999999999999", b"1e300 ", b"65537 "]):
    CASES[f"frames_{_k}"] = (many(_n), {"implausible_frames"})


@case("missing_geometry", "conflicting_slices", "same_position", "implausible_frames")
def frames_of_one_pixel(folder: Path) -> Path:
    return save(folder, start() + image(bytes(2 * 65536), rows=1, columns=1, frames=b"65536 "))


@case("too_large")
def pixels_65535_square(folder: Path) -> Path:
    return save(folder, start() + image(b"1234", rows=65535, columns=65535))


@case("truncated_file")
def pixels_8192_square_and_four_bytes(folder: Path) -> Path:
    return save(folder, start() + image(b"1234", rows=8192, columns=8192))


@case("implausible_frames")
def pixels_of_a_million_fragments(folder: Path) -> Path:
    body = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 1_000_000
    return save(folder, start(RLELossless) + image(body, pixel_length=0xFFFFFFFF))


def j2k(rows: int, columns: int) -> bytes:
    siz = struct.pack(">HHLLLLLLLLH3B", 41, 0, columns, rows, 0, 0, columns, rows, 0, 0, 1, 15, 1, 1)
    cod = b"\xff\x52\x00\x0c\x00\x00\x00\x01\x00\x05\x04\x04\x00\x01"
    return (
        b"\xff\x4f\xff\x51"
        + siz
        + cod
        + b"\xff\x5c\x00\x13\x40"
        + bytes(16)
        + b"\xff\x90\x00\x0a\0\0\0\0\0\x10\0\x01\xff\x93\0\0\xff\xd9"
    )


def jpeg(marker: int, rows: int, columns: int) -> bytes:
    frame = b"\xff" + bytes([marker]) + struct.pack(">HBHHB3B", 11, 16, rows, columns, 1, 1, 0x11, 0)
    return b"\xff\xd8" + frame + b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00" + bytes(64) + b"\xff\xd9"


def two_slices(folder: Path, syntax: str, stream: bytes) -> Path:
    """Two slices with a place each, so that the series is a volume until its pixels are decoded."""
    first = start(syntax) + placed(512, 512, stream)
    save(folder, first, "I1")
    return save(folder, first.replace(b"0\\0\\0 ", b"0\\0\\9 ").replace(b"1.2.3.4\0", b"1.2.3.5\0"), "I2")


for _name, _syntax, _stream in (
    ("jpeg2000", JPEG2000Lossless, j2k(60000, 60000)),
    ("jpeg2000_other", JPEG2000Lossless, j2k(511, 512)),
    ("jpegls", JPEGLSLossless, jpeg(0xF7, 65535, 65535)),
    ("jpeg", JPEGLosslessSV1, jpeg(0xC3, 65535, 65535)),
    ("jpeg_two_sizes", JPEGLosslessSV1, b"\xff\xd8" + jpeg(0xC3, 512, 512)[2:15] + jpeg(0xC3, 65535, 65535)[2:]),
    ("rle", RLELossless, struct.pack("<16L", 2, 64, 70, *[0] * 13) + b"\x81\x00" * 8),
    ("rle_offsets", RLELossless, struct.pack("<16L", 15, *[0xFFFFFFF0] * 15)),
    ("rle_segments", RLELossless, struct.pack("<16L", 0xFFFFFFFF, *[64] * 15) + b"\x81\x00" * 8),
):
    CASES[f"decodes_otherwise_{_name}"] = (lambda folder, s=_syntax, d=_stream: two_slices(folder, s, d), {"undecodable"})  # type: ignore[misc]


@case("deflate_bomb")
def deflated_bomb(folder: Path) -> Path:
    engine = zlib.compressobj(9, wbits=-15)
    packed = engine.compress(image()[:-138] + struct.pack("<HH2sxxL", 0x7FE0, 0x10, b"OW", 0xFFFFFFF0))
    packed += b"".join(engine.compress(bytes(16 * MIB)) for _ in range(16)) + engine.flush()
    return save(folder, start(DeflatedExplicitVRLittleEndian) + packed)


@case("implausible_frames", "truncated_file")
def deflated_frames_beyond_the_stream(folder: Path) -> Path:
    engine = zlib.compressobj(9, wbits=-15)
    packed = engine.compress(image(b"1234", rows=512, columns=512, frames=b"60000 ", pixel_length=0xFFFFFFF0)) + engine.flush()
    return save(folder, start(DeflatedExplicitVRLittleEndian) + packed)


@case("malformed_header", "truncated_file", "index_file", "missing_geometry", "not_an_image", "too_few_slices")
def implicit_header_of_noise(folder: Path) -> Path:
    noise = np.random.default_rng(5).integers(0, 256, 4 * MIB, dtype=np.uint8).tobytes()
    return save(folder, start(ImplicitVRLittleEndian) + noise)


# --- NIfTI


@case("too_large")
def nifti_bomb(folder: Path) -> Path:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((1024, 1024, 1024))
    header.set_sform(np.eye(4), code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(folder / "a.nii.gz", "wb") as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(8):
            file.write(bytes(16 * MIB))
    return folder / "a.nii.gz"
