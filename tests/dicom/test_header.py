"""The header walker: strange but legal files, lying files, and files that were damaged."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from synthetic import SHAPE, Plan, dataset, write

from medvl.dicom import header as dcm
from medvl.dicom.header import read_header
from medvl.dicom.read import read
from medvl.dicom.scan import scan
from medvl.dicom.verify import verify
from medvl.errors import InputError


def nested(undefined: bool):
    """Adds an icon with pixels of its own and a private sequence, of defined or undefined length."""

    def change(ds, k):
        icon, inner, outer = Dataset(), Dataset(), Dataset()
        icon.Rows = icon.Columns = 3
        icon.BitsAllocated, icon.PixelData = 8, bytes(10)
        icon["PixelData"].VR = "OB"
        inner.CodeValue = "T-1"
        outer.AnatomicRegionSequence = Sequence([inner, inner])
        ds.IconImageSequence, ds.RequestAttributesSequence = Sequence([icon]), Sequence([outer])
        block = ds.private_block(0x0043, "SOMEONE", create=True)
        block.add_new(0x10, "UN", bytes(40))
        for element in ds.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = undefined
                for item in element.value:
                    item.is_undefined_length_sequence_item = undefined

    return change


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_nested_sequences_and_icons_do_not_hide_the_image(tmp_path: Path, syntax: str, undefined: bool) -> None:
    plan = Plan(bits=12, syntax=syntax, change=nested(undefined))
    write(tmp_path, plan)
    (series,) = scan(tmp_path).series
    assert np.array_equal(read(series).hu, plan.hu)


def test_a_header_longer_than_the_first_read(tmp_path: Path) -> None:
    def long(ds, k):
        ds.private_block(0x0009, "LONG", create=True).add_new(1, "OB", bytes(50_000 if k else 1_500_000))

    plan = Plan(change=long)
    write(tmp_path, plan)
    (series,) = scan(tmp_path).series
    assert np.array_equal(read(series).hu, plan.hu)


def test_bytes_win_over_a_wrong_transfer_syntax(tmp_path: Path) -> None:
    plan = Plan()
    for path in write(tmp_path, plan):
        data = path.read_bytes()
        assert data.count(b"1.2.840.10008.1.2.1\0") == 1
        path.write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"))
    (series,) = scan(tmp_path).series
    assert np.array_equal(read(series).hu, plan.hu)


def test_an_unknown_representation_is_stepped_over(tmp_path: Path) -> None:
    """An element whose value representation is no letters, as some archives write."""

    def broken(ds, k):
        ds.private_block(0x0009, "BROKEN", create=True).add_new(1, "LO", "MARK")

    plan = Plan(change=broken)
    for path in write(tmp_path, plan):
        data = path.read_bytes()
        at = data.index(b"MARK") - 8  # tag, "LO", length
        path.write_bytes(data[: at + 4] + b"??" + data[at + 6 :])
    (series,) = scan(tmp_path).series
    assert np.array_equal(read(series).hu, plan.hu)


def test_a_header_nobody_can_follow_is_said_to_be_malformed(tmp_path: Path) -> None:
    """An item tag in the middle of the header; neither the walker nor pydicom finds pixels behind it."""
    (path,) = write(tmp_path, Plan(), slices=[0])
    data = path.read_bytes()
    at = data.index(b"\x08\x00\x60\x00")
    path.write_bytes(data[:at] + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + data[at:])
    assert [one.reason.code for one in scan(tmp_path).rejected] == ["malformed_header"]


def test_numbers_that_are_none() -> None:
    values = {1: b"1.5\\-2 \\+3e1\0", 2: b"0.2\\ \\3", 3: b"", 4: b"abc", 5: b"1e99", 6: b"nan"}
    assert dcm.numbers(values, 1) == (1.5, -2.0, 30.0)
    assert [dcm.numbers(values, tag) for tag in (2, 3, 4, 5, 6, 7)] == [None] * 6
    assert dcm.integer({1: b"\x02\x01"}, 1) == 0x0102
    assert dcm.integer({1: b"\x02\x01"}, 1, little_endian=False) == 0x0201


def test_a_file_cut_anywhere_ends_in_a_reason(tmp_path: Path) -> None:
    (path,) = write(tmp_path, Plan(change=nested(True)), slices=[0])
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        found = scan(tmp_path)
        assert len(found.rejected) + len(found.series) == 1, length
        assert all(series.verdict == "refused" for series in found.series)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"])
def test_flipped_bytes_never_crash_the_scan(tmp_path: Path, syntax: str) -> None:
    paths = write(tmp_path, Plan(syntax=syntax, change=nested(True)))
    clean = paths[2].read_bytes()
    rng = np.random.default_rng(13)
    for _ in range(150):
        data = bytearray(clean)
        for at in rng.integers(0, len(data) - 2 * SHAPE[1] * SHAPE[2], 3):
            data[at] = rng.integers(256)
        paths[2].write_bytes(bytes(data))
        for series in scan(tmp_path).series:
            judged = verify(series)
            if judged.verdict == "volume":
                assert read(judged).hu.shape == judged.shape_dhw


def test_an_endless_deflated_stream_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dcm, "MAX_INFLATED_BYTES", 100)
    write(tmp_path, Plan(syntax="1.2.840.10008.1.2.1.99"), slices=[0])
    assert [one.reason.code for one in scan(tmp_path).rejected] == ["deflate_bomb"]


def test_not_dicom_is_told_after_a_few_bytes() -> None:
    asked = []

    def source(start: int, length: int) -> bytes:
        asked.append(length)
        return bytes(length)

    with pytest.raises(InputError, match="not_dicom"):
        read_header(source, 10 << 30)
    assert sum(asked) <= 32 << 10


def test_the_written_file_is_what_the_tests_believe() -> None:
    assert dataset(Plan(), 0).ImagePositionPatient == [-12, 30, -55]
