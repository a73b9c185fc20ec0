"""Compressed and multi-frame storage: the same Hounsfield units whatever the file looks like inside."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, JPEG2000Lossless, JPEGLSLossless, RLELossless
from synthetic import SHAPE, SPACING, Plan, dataset, hu_volume, oblique, write

from medvl.dicom import workers
from medvl.dicom.read import read, read_values
from medvl.dicom.scan import scan
from medvl.dicom.series import Series
from medvl.dicom.verify import verify
from medvl.errors import InputError

LARGE = (5, 70, 90)  # JPEG 2000 needs room for its wavelets
SYNTAXES = (RLELossless, JPEGLSLossless, JPEG2000Lossless)


def only(folder: Path) -> Series:
    (series,) = scan(folder).series
    return verify(series)


def write_compressed(folder: Path, plan: Plan, syntax: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(len(plan.hu)):
        ds = dataset(plan, k)
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(folder / f"{k}", enforce_file_format=True)
    return [folder / f"{k}" for k in range(len(plan.hu))]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("bits", "signed"), [(12, False), (16, True)])
def test_lossless_syntaxes_read_identically(tmp_path: Path, syntax: str, bits: int, signed: bool) -> None:
    plan = Plan(hu=hu_volume(LARGE), bits=bits, signed=signed, intercept=0.0 if signed else -1024.0, orientation=oblique())
    write_compressed(tmp_path, plan, syntax)
    volume = read(only(tmp_path))
    assert np.array_equal(volume.hu, plan.hu)
    assert volume.hu.dtype == np.int16


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="no dcmtk: install it to encode JPEG Lossless")
@pytest.mark.parametrize("process", ["+e1", "+el"])
def test_jpeg_lossless_as_dcmtk_writes_it(tmp_path: Path, process: str) -> None:
    plan = Plan(signed=True)
    for k, path in enumerate(write(tmp_path / "raw", plan)):
        (tmp_path / "jpeg").mkdir(exist_ok=True)
        subprocess.run(["dcmcjpeg", process, path, tmp_path / "jpeg" / f"{k}"], check=True)
    assert np.array_equal(read(only(tmp_path / "jpeg")).hu, plan.hu)


def test_copies_in_another_compression_are_still_copies(tmp_path: Path) -> None:
    plan = Plan(bits=12)
    write(tmp_path / "raw", plan)
    write_compressed(tmp_path / "packed", plan, JPEGLSLossless)
    series = only(tmp_path)
    assert (series.verdict, series.codes, series.n_files) == ("volume", ("duplicate_slices",), 10)
    assert np.array_equal(read(series).hu, plan.hu)


def test_near_lossless_is_read_with_a_warning(tmp_path: Path) -> None:
    import jpeg_ls

    plan = Plan(bits=12)
    for k in range(5):
        ds = dataset(plan, k)
        stored = np.frombuffer(ds.PixelData, "<u2").reshape(SHAPE[1:])
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.81"
        ds.PixelData = encapsulate([bytes(jpeg_ls.encode_array(stored, lossy_error=2))])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.save_as(tmp_path / f"{k}", enforce_file_format=True)
    series = only(tmp_path)
    assert (series.verdict, series.codes) == ("volume", ("lossy_compression",))
    difference = np.abs(read(series).hu - plan.hu)
    assert 0 < difference.max() <= 2


def test_eight_bit_ct_is_refused(tmp_path: Path) -> None:
    def narrow(ds, k):
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelData = bytes(ds.Rows * ds.Columns + 1)

    write(tmp_path, Plan(change=narrow))
    assert only(tmp_path).codes == ("eight_bit",)


def test_fragments_of_one_frame_are_joined(tmp_path: Path) -> None:
    plan = Plan(bits=12)
    for path in write_compressed(tmp_path, plan, JPEGLSLossless):
        from pydicom import dcmread

        ds = dcmread(path)
        ds.PixelData = encapsulate([next(generate_frames(ds.PixelData, number_of_frames=1))], fragments_per_frame=3)
        ds.save_as(path)
    assert np.array_equal(read(only(tmp_path)).hu, plan.hu)


def test_a_broken_stream_is_found_by_inspect_and_read_alike(tmp_path: Path) -> None:
    paths = write_compressed(tmp_path, Plan(bits=12), JPEGLSLossless)
    data = bytearray(paths[1].read_bytes())
    at = data.index(b"\xff\xf7")
    data[at : at + 2] = b"\xff\xf6"
    paths[1].write_bytes(bytes(data))
    (series,) = scan(tmp_path).series
    assert series.verdict == "volume"
    assert verify(series).codes[0] == "undecodable"
    with pytest.raises(InputError, match="undecodable"):
        read(series)


def test_a_compressed_file_cut_short_is_rejected(tmp_path: Path) -> None:
    paths = write_compressed(tmp_path, Plan(bits=12), JPEGLSLossless)
    paths[4].write_bytes(paths[4].read_bytes()[:-40])
    found = scan(tmp_path)
    assert [one.reason.code for one in found.rejected] == ["truncated_file"]
    assert found.series[0].codes == ("missing_slice",)


def test_worker_processes_decode_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(hu=hu_volume(LARGE), bits=12)
    paths = write_compressed(tmp_path, plan, JPEG2000Lossless)
    monkeypatch.setattr(workers, "MIN_PIXELS", 1)
    monkeypatch.setattr(workers, "n_cores", lambda: 2)
    series = only(tmp_path)
    assert workers.worth_workers(series.frames)
    assert np.array_equal(read(series).hu, plan.hu)
    data = bytearray(paths[3].read_bytes())
    at = data.index(b"\xff\x4f\xff\x51")
    data[at : at + 4] = bytes(4)
    paths[3].write_bytes(bytes(data))
    with pytest.raises(InputError, match="undecodable"):
        read_values(series)


def enhanced(plan: Plan, order: list[int], *, extra_time: int = 1, fit: bool = True) -> FileDataset:
    """An Enhanced CT whose frames lie in `order`, geometry only in the functional groups."""
    ds = dataset(plan, 0)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, name)
    shared, measures, plane, transform = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING[1:]), SPACING[0]
    plane.ImageOrientationPatient = [round(float(x), 8) for x in plan.orientation]
    transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = plan.slope, plan.intercept, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([plane])
    shared.PixelValueTransformationSequence = Sequence([transform])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    groups, pixels = [], []
    for time in range(extra_time):
        for k in order:
            group, place, content = Dataset(), Dataset(), Dataset()
            place.ImagePositionPatient = [round(float(x), 6) for x in plan.position(k)]
            content.TemporalPositionIndex, content.StackID = time + 1, "1"
            group.PlanePositionSequence, group.FrameContentSequence = Sequence([place]), Sequence([content])
            groups.append(group)
            pixels.append((plan.hu[k] + 10 * time - plan.intercept).astype("<u2").tobytes())
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    ds.NumberOfFrames = len(groups) if fit else len(groups) + 3
    ds.PixelData = b"".join(pixels)
    ds["PixelData"].VR = "OW"
    return ds


@pytest.mark.parametrize("turn", [False, True])
def test_enhanced_frames_are_sorted_by_place(tmp_path: Path, turn: bool) -> None:
    plan = Plan(orientation=oblique()) if turn else Plan()
    enhanced(plan, [3, 0, 4, 1, 2]).save_as(tmp_path / "one.dcm", enforce_file_format=True)
    series = only(tmp_path / "one.dcm")
    assert (series.verdict, series.n_files) == ("volume", 1)
    volume = read(series)
    assert np.array_equal(volume.hu, plan.hu)
    assert np.allclose(volume.geometry.to_lps((4, 0, 0)), plan.position(4), atol=1e-4)
    assert np.allclose(volume.geometry.spacing_mm, SPACING, atol=1e-4)


def test_enhanced_with_two_time_points_gives_two_volumes(tmp_path: Path) -> None:
    plan = Plan()
    enhanced(plan, [0, 1, 2, 3, 4], extra_time=2).save_as(tmp_path / "x", enforce_file_format=True)
    found = scan(tmp_path).series
    assert [(s.verdict, s.codes, s.n_files) for s in found] == [("volume", ("split_series",), 1)] * 2
    means = sorted(float(read(s).hu.mean()) for s in found)
    assert means[1] - means[0] == pytest.approx(10)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_enhanced_compressed_frames_find_their_place(tmp_path: Path, syntax: str) -> None:
    plan = Plan(bits=12)
    ds = enhanced(plan, [2, 4, 0, 3, 1])
    ds.compress(syntax, generate_instance_uid=False)
    ds.save_as(tmp_path / "x", enforce_file_format=True)
    assert np.array_equal(read(only(tmp_path)).hu, plan.hu)


def test_frame_counts_that_do_not_fit_are_rejected(tmp_path: Path) -> None:
    enhanced(Plan(), [0, 1, 2, 3, 4], fit=False).save_as(tmp_path / "x", enforce_file_format=True)
    found = scan(tmp_path)
    assert found.series == ()
    assert [one.reason.code for one in found.rejected] == ["implausible_frames"]


def test_multi_frame_without_functional_groups_has_no_place(tmp_path: Path) -> None:
    ds = dataset(Plan(), 0)
    del ds.ImagePositionPatient
    ds.NumberOfFrames, ds.PixelData = 5, ds.PixelData * 5
    ds.save_as(tmp_path / "x", enforce_file_format=True)
    assert only(tmp_path).codes[0] == "missing_geometry"


def test_the_phantom_is_not_constant() -> None:
    assert len(np.unique(hu_volume())) > 100
