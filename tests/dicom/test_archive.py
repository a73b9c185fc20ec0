"""Zip archives: read without unpacking, refused when no honest export looks like that."""

import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from synthetic import Plan, write

from medvl.dicom import archive as limits
from medvl.dicom.read import read
from medvl.dicom.scan import scan
from medvl.errors import InputError


def zip_of(folder: Path, target: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["export.zip", "export"])
def test_a_zipped_study_reads_like_the_folder(tmp_path: Path, method: int, name: str) -> None:
    plan = Plan()
    write(tmp_path / "in" / "deep", plan)
    (tmp_path / "in" / "readme.txt").write_text("x" * 300)
    found = scan(zip_of(tmp_path / "in", tmp_path / name, method))
    assert [one.path for one in found.rejected] == ["readme.txt"]
    assert np.array_equal(read(found.series[0]).hu, plan.hu)
    assert found.series[0].key == scan(tmp_path / "in").series[0].key


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:evil"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"1")
    with pytest.raises(InputError, match="unsafe_archive"):
        scan(tmp_path / "x.zip")


def test_links_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, b"/etc/passwd")
    with pytest.raises(InputError, match="unsafe_archive"):
        scan(tmp_path / "x.zip")


def test_bombs_are_refused_before_they_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATIO_FREE_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(4 << 20))
    with pytest.raises(InputError, match="unsafe_archive"):
        scan(tmp_path / "x.zip")


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_MEMBERS", 3)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for k in range(4):
            archive.writestr(f"{k}", b"1")
    with pytest.raises(InputError, match="unsafe_archive"):
        scan(tmp_path / "x.zip")


def test_a_damaged_member_is_rejected_and_missed(tmp_path: Path) -> None:
    write(tmp_path / "in", Plan())
    target = zip_of(tmp_path / "in", tmp_path / "x.zip", zipfile.ZIP_STORED)
    data = bytearray(target.read_bytes())
    with zipfile.ZipFile(target) as archive:
        info = archive.infolist()[2]
    at = info.header_offset + 30 + len(info.filename) + info.file_size - 30
    data[at] ^= 0xFF
    target.write_bytes(bytes(data))
    found = scan(target)
    assert [one.reason.code for one in found.rejected] == ["unreadable_file"]
    assert [series.codes for series in found.series] == [("missing_slice",)]


def test_an_archive_inside_a_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path / "in", Plan())
    zip_of(tmp_path / "in", tmp_path / "in" / "again.zip")
    assert [one.reason.code for one in scan(tmp_path / "in").rejected] == ["nested_archive"]


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not_found"):
        scan(tmp_path / "nowhere")
