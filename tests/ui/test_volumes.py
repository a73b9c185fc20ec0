"""Turning upright, sending and caching voxels, against nibabel and SimpleITK."""

import os
import threading
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from results_folder import DONE, MARKER_DHW, grid, image_hu, save_nifti
from tiny import patient, scan_of

from medvl.errors import InputError
from medvl.geometry import Geometry
from medvl.imaging.load import Entry, load
from medvl.imaging.phantom.dicom import write_dicom
from medvl_ui.pictures import Picture, PictureCache
from medvl_ui.plain_images import grey_slice, side_letters
from medvl_ui.results import study_file
from medvl_ui.station import Station
from medvl_ui.volumes import heat_picture, image_picture, index_map, upright


def oblique(order: tuple[int, ...], signs: tuple[int, ...]) -> Geometry:
    """A 5x7x11 grid turned by 17 degrees, its axes permuted and flipped."""
    angle = np.radians(17)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (turn @ np.eye(3)[:, list(order)]) * signs * np.array([2.5, 0.8, 0.7])
    affine[:3, 3] = (12.0, -34.0, 56.0)
    return Geometry((5, 7, 11), affine)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_upright_equals_nibabels_closest_canonical(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    geometry = oblique(order, signs)
    array = np.arange(5 * 7 * 11, dtype=np.int16).reshape(5, 7, 11)
    turned, place = upright(array, geometry)
    ras = nib.as_closest_canonical(nib.Nifti1Image(array.transpose(2, 1, 0), geometry.affine_ras_ijk))
    expected = np.asarray(ras.dataobj)[::-1, ::-1].transpose(2, 1, 0)
    assert place.axes == "SPL"
    np.testing.assert_array_equal(turned, expected)
    corner = nib.affines.apply_affine(ras.affine, (np.array(ras.shape) - 1) * [1, 1, 0]) * [-1, -1, 1]
    np.testing.assert_allclose(place.to_lps((0, 0, 0)), corner, atol=1e-4)


def test_the_picture_is_little_endian_int16_that_nobody_can_change() -> None:
    values = np.array([-1e6, -1000.4, 0.5, 40.6, 1e6, np.nan], dtype=np.float32).reshape(1, 2, 3)
    picture = image_picture(values, Geometry.centered((0, 0, 0), (1, 2, 3), (2.5, 0.8, 0.7)))
    assert picture.voxels.dtype == np.dtype("<i2")
    assert picture.voxels.ravel().tolist() == [-32768, -1000, 0, 41, 32767, -1024]
    assert not picture.voxels.flags.writeable
    assert picture.oblique_deg == pytest.approx(0, abs=1e-4)


def test_an_oblique_grid_says_by_how_much() -> None:
    geometry = oblique((2, 1, 0), (1, 1, 1))
    assert image_picture(np.zeros((5, 7, 11), np.int16), geometry).oblique_deg == pytest.approx(17)


@pytest.mark.parametrize(("dtype", "top"), [(np.float32, 1.0), (np.uint8, 255)])
def test_heat_maps_of_both_kinds_fill_the_byte(dtype: type, top: float) -> None:
    values = np.zeros((5, 7, 11), dtype)
    values[1, 2, 3] = top
    picture = heat_picture(values, oblique((0, 1, 2), (1, 1, 1)))
    assert picture.voxels.dtype == np.uint8
    assert picture.voxels[1, 2, 3] == 255
    assert picture.voxels.sum() == 255


def itk_grid(geometry: Geometry) -> SimpleITK.Image:
    image = SimpleITK.Image([int(n) for n in geometry.shape_dhw[::-1]], SimpleITK.sitkUInt8)
    image.SetSpacing([float(mm) for mm in geometry.spacing_mm[::-1]])
    image.SetDirection(geometry.directions[:, ::-1].ravel().tolist())
    image.SetOrigin(geometry.to_lps((0, 0, 0)).tolist())
    return image


def test_evidence_lands_where_simpleitk_puts_it() -> None:
    source, target = oblique((2, 1, 0), (1, -1, 1)), Geometry.centered((8, -30, 60), (9, 6, 4), (1.3, 2.1, 3.4))
    one, other = itk_grid(source), itk_grid(target)
    matrix = index_map(source, target)
    for index in [(0, 0, 0), (4, 1, 9), (2, 6, 5)]:
        world = one.TransformIndexToPhysicalPoint(index[::-1])
        expected = other.TransformPhysicalPointToContinuousIndex(world)[::-1]
        np.testing.assert_allclose((matrix @ [*index, 1])[:3], expected, atol=1e-6)


def test_the_plain_slice_shows_the_patients_right_on_the_left() -> None:
    picture = image_picture(image_hu(), grid())
    assert grid().to_lps(MARKER_DHW)[0] < grid().center_lps[0]  # LPS: smaller x is further right
    axial = grey_slice(picture, "Axial", MARKER_DHW[0], (1800, 400))
    rows, columns = np.nonzero(axial > 200)
    assert columns.max() < axial.shape[1] / 2
    assert side_letters(picture, "Axial") == "left R, right L, top A, bottom P"
    coronal = grey_slice(picture, "Coronal", MARKER_DHW[1], (1800, 400))
    rows, columns = np.nonzero(coronal > 200)
    assert rows.max() < coronal.shape[0] / 2  # towards the head is up
    assert columns.max() < coronal.shape[1] / 2
    assert side_letters(picture, "Sagittal") == "left A, right P, top S, bottom I"


def test_the_image_is_read_from_its_source_when_no_copy_is_kept(results: Path) -> None:
    folder = results / "studies" / DONE
    elsewhere = results.parent / "archive" / "scan.nii.gz"
    save_nifti(elsewhere, image_hu(), grid())
    (folder / "image.nii.gz").unlink()
    (results / "sources.json").write_text(f'{{"{DONE}": {{"path": "{elsewhere}", "series_key": ""}}}}')
    picture = Station(results).picture(DONE, "image")
    np.testing.assert_array_equal(picture.voxels, image_hu())
    assert picture.geometry == grid()


@pytest.mark.parametrize("syntax", ["explicit", "jpegls"])
def test_single_slices_come_before_the_whole_and_are_the_same(
    results: Path, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, go_on = results.parent / "series", threading.Event()
    who = patient(3)
    write_dicom(scan_of(who), who, series, syntax=syntax)  # type: ignore[arg-type]
    (results / "studies" / DONE / "image.nii.gz").unlink()
    (results / "sources.json").write_text(f'{{"{DONE}": {{"path": "{series}", "series_key": ""}}}}')
    monkeypatch.setattr(Entry, "read", lambda self, whole=Entry.read: go_on.wait(60) and whole(self))
    picture = Station(results).picture(DONE, "image")
    depth, height, width = picture.geometry.shape_dhw
    size = 2 * height * width
    early = [bytes(picture.part(k * size, (k + 1) * size - 1)) for k in range(depth)]
    go_on.set()
    assert picture.geometry.axes == "SPL" and picture.n_bytes == picture.voxels.nbytes == depth * size
    assert b"".join(early) == picture.voxels.tobytes() == bytes(picture.part(0, depth * size - 1))
    plain = load(series).chosen.read()
    np.testing.assert_array_equal(picture.voxels, upright(plain.hu, plain.geometry)[0])


def test_images_whose_pixels_cannot_be_read_fail_when_they_are_asked_for(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series, who = results.parent / "series", patient(3)
    files = write_dicom(scan_of(who), who, series)
    (results / "studies" / DONE / "image.nii.gz").unlink()
    (results / "sources.json").write_text(f'{{"{DONE}": {{"path": "{series}", "series_key": ""}}}}')
    station, whole = Station(results), Entry.read
    monkeypatch.setattr(Entry, "read", lambda self: (_ for _ in ()).throw(OSError(str(files[0]))))
    picture = station.picture(DONE, "image")
    with pytest.raises(InputError, match="source_unreadable") as caught:
        picture.part(0, picture.n_bytes - 1)
    assert picture.failed and "series" not in caught.value.message
    monkeypatch.setattr(Entry, "read", whole)
    assert station.picture(DONE, "image").voxels.any(), "read anew"


@pytest.mark.parametrize("entry", ["", "{", "[]", '{"a1b2c3d4e5f6": 3}', '{"a1b2c3d4e5f6": {"path": "gone/SMITH"}}'])
def test_a_lost_source_is_an_input_error_without_its_path(results: Path, entry: str) -> None:
    (results / "studies" / DONE / "image.nii.gz").unlink()
    (results / "sources.json").write_text(entry)
    with pytest.raises(InputError, match="source_gone") as caught:
        Station(results).picture(DONE, "image")
    assert "SMITH" not in caught.value.message


def test_a_damaged_image_is_an_input_error(results: Path) -> None:
    (results / "studies" / DONE / "image.nii.gz").write_bytes(b"not an image")
    with pytest.raises(InputError, match="source_unreadable"):
        Station(results).picture(DONE, "image")


@pytest.mark.parametrize(
    ("case_id", "path"), [(DONE, "../b0skipped/findings.json"), ("..", "x"), (DONE, "/etc/hostname"), ("", "x")]
)
def test_files_outside_the_study_are_refused(results: Path, case_id: str, path: str) -> None:
    with pytest.raises(InputError, match="file_outside_study"):
        study_file(results, case_id, path)


def picture_of(n_bytes: int) -> Picture:
    return Picture(np.zeros((1, 1, n_bytes), np.uint8), Geometry.centered((0, 0, 0), (1, 1, n_bytes), (1.0, 1.0, 1.0)))


def test_the_cache_drops_what_was_not_used_longest() -> None:
    cache, read = PictureCache(max_bytes=100), []

    def get(name: str) -> None:
        cache.get((name,), lambda: read.append(name) or picture_of(40))

    for name in "abacab":
        get(name)
    assert read == ["a", "b", "c", "b"]
    assert cache.n_bytes == 80


def test_a_picture_larger_than_the_cache_is_still_served() -> None:
    cache = PictureCache(max_bytes=10)
    assert cache.get(("big",), lambda: picture_of(50)).voxels.nbytes == 50


def test_two_askers_at_once_read_once() -> None:
    cache, started, reads = PictureCache(), threading.Barrier(2), []

    def read() -> Picture:
        reads.append(1)
        threading.Event().wait(0.1)
        return picture_of(1)

    def ask() -> None:
        started.wait()
        cache.get(("one",), read)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1


def test_a_failed_read_is_tried_again() -> None:
    cache = PictureCache()
    with pytest.raises(InputError):
        cache.get(("x",), lambda: (_ for _ in ()).throw(InputError("source_gone", "gone")))
    assert cache.get(("x",), lambda: picture_of(3)).voxels.nbytes == 3


def test_a_heat_map_written_anew_is_read_anew(results: Path) -> None:
    station, name = Station(results), "heatmaps/stone_kidney_left.nii.gz"
    first = station.picture(DONE, name)
    assert station.picture(DONE, name) is first
    before = station.version(DONE, name)
    path = results / "studies" / DONE / name
    save_nifti(path, np.zeros((5, 7, 11), np.float32), oblique((0, 1, 2), (1, 1, 1)))
    os.utime(path, ns=(1, 1))
    assert station.version(DONE, name) != before
    assert station.picture(DONE, name).voxels.shape == (5, 7, 11)
