"""Reading and writing NIfTI: every header trap with its verdict, written by nibabel and read back by SimpleITK."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (the name its own documentation uses)
from scipy import ndimage

from medvl.errors import InputError
from medvl.geometry import Geometry
from medvl.imaging.nifti import read_labels, read_nifti, write_nifti
from medvl.records import Volume

SHAPE = (11, 7, 5)  # i, j, k
AFFINE = np.array([[-0.7, 0, 0, 40.0], [0, 0.8, 0, -31.0], [0, 0, 2.5, 12.0], [0, 0, 0, 1]])
OBLIQUE = np.array([[-0.66, 0.26, 0.1, 40.0], [0.22, 0.75, -0.3, -31.0], [-0.12, 0.12, 2.48, 12.0], [0, 0, 0, 1]])


def values(shape=SHAPE, dtype=np.int16):
    return np.random.default_rng(4).integers(-1000, 900, shape).astype(dtype)


def save(path, data=None, affine=AFFINE, *, sform=1, qform=1, qaffine=None, slope=None, units="mm"):
    image = nib.Nifti1Image(values() if data is None else data, affine)
    image.set_sform(affine, code=sform)
    image.set_qform(affine if qaffine is None else qaffine, code=qform)
    image.header.set_xyzt_units(units)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nib.save(image, path)
    return path


def warning_codes(volume):
    return [reason.code for reason in volume.reasons]


def refused(path, **options):
    with pytest.raises(InputError) as caught:
        read_nifti(path, **options)
    assert str(path) not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_values_and_places_agree_with_simpleitk(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}")
    volume = read_nifti(path)
    oracle = sitk.ReadImage(str(path))
    assert volume.hu.dtype == np.int16
    assert volume.hu.flags.c_contiguous
    assert volume.reasons == ()
    np.testing.assert_array_equal(volume.hu, sitk.GetArrayFromImage(oracle))
    for d, h, w in ((0, 0, 0), (4, 6, 10), (3, 1, 7)):
        np.testing.assert_allclose(volume.geometry.to_lps((d, h, w)), oracle.TransformIndexToPhysicalPoint((w, h, d)), atol=1e-4)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
def test_any_axis_order_and_flip_keeps_world_positions(tmp_path, order, flips):
    affine = AFFINE[:, [*order, 3]].copy()
    affine[:3, :3] *= flips
    data = values()
    volume = read_nifti(save(tmp_path / "a.nii.gz", data, affine))
    for index in ((0, 0, 0), (10, 6, 4), (7, 1, 3)):
        lps = nib.affines.apply_affine(affine, index) * [-1, -1, 1]
        d, h, w = np.rint(volume.geometry.to_index(lps)).astype(int)
        np.testing.assert_allclose(volume.geometry.to_lps((d, h, w)), lps, atol=1e-4)
        assert volume.hu[d, h, w] == data[index]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint16, np.float32, np.float64, ">i2", ">f4"])
def test_whole_numbers_become_int16(tmp_path, dtype):
    data = values() if np.dtype(dtype).kind != "u" else values().clip(0)
    with np.errstate(all="raise"):
        image = nib.Nifti1Image(
            data.astype(np.dtype(dtype)),
            AFFINE,
            header=nib.Nifti1Header(endianness=np.dtype(dtype).byteorder.replace("=", "<").replace("|", "<")),
            dtype=np.dtype(dtype),
        )
    nib.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii", check_hu=False)
    assert volume.hu.dtype == np.int16
    assert volume.hu.dtype.isnative
    np.testing.assert_array_equal(volume.hu, data.T)


def test_fractions_and_great_values_stay_float(tmp_path):
    data = values().astype(np.float32) + np.float32(0.25)
    volume = read_nifti(save(tmp_path / "a.nii", data))
    assert volume.hu.dtype == np.float32
    np.testing.assert_array_equal(volume.hu, data.T)
    data = values(dtype=np.int32)
    data[0, 0, 0] = 40_000
    np.testing.assert_array_equal(read_nifti(save(tmp_path / "b.nii", data)).hu, data.T.astype(np.float32))


@pytest.mark.parametrize(
    ("slope", "dtype"), [((1.0, -1024.0), np.int16), ((2.0, -1000.0), np.int16), ((0.5, -1000.0), np.float32)]
)
def test_slope_and_intercept_are_applied(tmp_path, slope, dtype):
    stored = values().clip(0).astype(np.uint16)
    image = nib.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(*slope)
    path = tmp_path / "a.nii.gz"
    nib.save(image, path)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[112:120] = np.array(slope, "<f4").tobytes()  # nibabel rescales on save: put the scaling and stored values back
    raw[352:] = np.asfortranarray(stored).tobytes(order="F")
    path.write_bytes(gzip.compress(bytes(raw)))
    volume = read_nifti(path, check_hu=False)
    assert volume.hu.dtype == dtype
    np.testing.assert_allclose(volume.hu, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    np.testing.assert_allclose(volume.hu, stored.T * slope[0] + slope[1])


def test_no_geometry_is_refused_not_invented(tmp_path):
    assert refused(save(tmp_path / "a.nii", sform=0, qform=0)) == "missing_geometry"


@pytest.mark.parametrize(("sform", "qform"), [(0, 1), (2, 0), (1, 1)])
def test_the_coded_affine_counts(tmp_path, sform, qform):
    wrong = np.diag([3.0, 3.0, 3.0, 1.0])
    path = tmp_path / "a.nii"
    save(path, affine=AFFINE if sform else wrong, qaffine=AFFINE if qform else wrong, sform=sform, qform=qform)
    assert read_nifti(path).geometry == Geometry.from_ras_ijk(SHAPE, AFFINE)


def changed(**steps):
    affine = AFFINE.copy()
    for name, value in steps.items():
        axis = "ijk".find(name[-1])
        if name.startswith("flip"):
            affine[:3, axis] *= -1
        elif name.startswith("stretch"):
            affine[:3, axis] *= value
        elif name.startswith("shift"):
            affine[axis, 3] += value
        else:
            angle = np.radians(value)
            turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
            affine[:3, :3] = turn @ affine[:3, :3]
    return affine


@pytest.mark.parametrize("qaffine", [changed(flip_i=1), changed(flip_k=1), changed(turn_k=1.5), changed(stretch_k=1.2)])
def test_mirror_turn_or_stretch_between_sform_and_qform_is_refused(tmp_path, qaffine):
    assert refused(save(tmp_path / "a.nii", qaffine=qaffine)) == "affine_disagreement"


def test_shift_between_sform_and_qform_is_told_and_sform_used(tmp_path):
    volume = read_nifti(save(tmp_path / "a.nii", qaffine=changed(shift_j=7)))
    assert warning_codes(volume) == ["affine_disagreement"]
    assert "7.0 mm" in volume.reasons[0].message
    assert volume.geometry == Geometry.from_ras_ijk(SHAPE, AFFINE)


@pytest.mark.parametrize("qaffine", [changed(shift_j=0.3), changed(turn_k=0.2), changed(stretch_k=1.0005)])
def test_rounding_between_sform_and_qform_is_silent(tmp_path, qaffine):
    assert read_nifti(save(tmp_path / "a.nii", qaffine=qaffine)).reasons == ()


@pytest.mark.parametrize(("units", "factor"), [("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_units_other_than_mm(tmp_path, units, factor):
    affine = np.diag([1 / factor, 1 / factor, 1 / factor, 1]) @ AFFINE
    assert read_nifti(save(tmp_path / "a.nii", affine=affine, units=units)).geometry == Geometry.from_ras_ijk(SHAPE, AFFINE)


def test_implausible_spacing_is_refused(tmp_path):
    assert refused(save(tmp_path / "a.nii", affine=np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE)) == "bad_geometry"


def test_singular_sform_is_refused(tmp_path):
    affine = AFFINE.copy()
    affine[:3, 2] = 0
    path = save(tmp_path / "a.nii", qform=0)
    raw = bytearray(path.read_bytes())
    raw[280:328] = affine[:3].astype("<f4").tobytes()
    path.write_bytes(raw)
    assert refused(path) == "bad_geometry"


def test_four_axes_with_one_frame(tmp_path):
    volume = read_nifti(save(tmp_path / "a.nii.gz", values()[..., None]))
    assert warning_codes(volume) == ["single_frame_4d"]
    np.testing.assert_array_equal(volume.hu, values().T)


@pytest.mark.parametrize(("data", "code"), [(values((11, 7, 5, 2)), "several_frames"), (values((11, 7)), "not_a_volume")])
def test_other_numbers_of_frames(tmp_path, data, code):
    assert refused(save(tmp_path / "a.nii", data)) == code


def test_colour_and_complex_are_refused(tmp_path):
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert refused(save(tmp_path / "a.nii", colour)) == "not_grayscale"
    assert refused(save(tmp_path / "b.nii", values().astype(np.complex64))) == "not_grayscale"


def test_few_nan_become_air_and_many_are_refused(tmp_path):
    data = values().astype(np.float32)
    data[:2] = np.nan
    data[2, 0, 0] = np.inf
    volume = read_nifti(save(tmp_path / "a.nii", data))
    assert warning_codes(volume) == ["nan_filled"]
    assert volume.hu.dtype == np.int16
    assert (volume.hu[:, :, :2] == -1024).all()
    assert volume.hu[0, 0, 2] == -1024
    np.testing.assert_array_equal(volume.hu[:, :, 3:], data.T[:, :, 3:])
    data[:6] = np.nan
    assert refused(save(tmp_path / "b.nii", data)) == "nan_voxels"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
def test_cut_files(tmp_path, suffix, share):
    path = save(tmp_path / f"a{suffix}", values((31, 17, 23)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert refused(path) == ("truncated_file" if share else "unreadable_file")


def test_what_is_no_nifti(tmp_path):
    assert refused(tmp_path / "absent.nii") == "unreadable_file"
    (tmp_path / "a.nii").write_bytes(b"\x00" * 1000)
    assert refused(tmp_path / "a.nii") == "unreadable_file"
    (tmp_path / "b.nii.gz").write_bytes(b"no gzip" * 100)
    assert refused(tmp_path / "b.nii.gz") == "unreadable_file"
    nib.save(nib.MGHImage(values(), AFFINE), tmp_path / "c.mgz")
    assert refused(tmp_path / "c.mgz") == "unreadable_file"


def test_header_that_asks_for_too_much(tmp_path):
    path = save(tmp_path / "a.nii")
    raw = bytearray(path.read_bytes())
    raw[40:56] = np.array([3, 32767, 32767, 32767, 1, 1, 1, 1], "<i2").tobytes()
    path.write_bytes(raw)
    assert refused(path) == "too_large"


def test_values_not_in_hu_are_refused_unless_asked_for(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 256, (21, 17, 13)).astype(np.uint8))
    assert refused(path) == "not_hounsfield"
    assert read_nifti(path, check_hu=False).hu.max() == 255


@pytest.mark.parametrize("feet_first", [False, True])
def test_sheared_file_becomes_orthogonal_at_true_positions(tmp_path, feet_first):
    affine = np.diag([0.8, 0.8, 2.5, 1.0])
    affine[1, 2] = 2.5 * np.tan(np.radians(14))
    affine[:3, 2] *= -1 if feet_first else 1
    shape = (40, 50, 24)
    where = nib.affines.apply_affine(affine, (18, 23, 11))
    points = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    blob = -1000 + 1800 * np.exp(-((points - where) ** 2).sum(axis=-1) / (2 * 2.5**2))
    volume = read_nifti(save(tmp_path / "a.nii", np.rint(blob).astype(np.int16), affine, qform=0))
    assert warning_codes(volume) == ["shear_resampled"]
    assert "14.0 degrees" in volume.reasons[0].message
    assert volume.hu.dtype == np.int16
    assert volume.geometry.shear_deg < 1e-6
    assert volume.geometry.axes == ("IAR" if feet_first else "SAR")
    assert volume.geometry.spacing_mm == pytest.approx((2.5, 0.8, 0.8))
    weight = np.clip(volume.hu.astype(float) + 1000, 0, None)
    found = volume.geometry.to_lps(ndimage.center_of_mass(weight)) * [-1, -1, 1]
    np.testing.assert_allclose(found, where, atol=0.06)
    assert volume.geometry.contains(np.array([c * np.array([-1, -1, 1]) for c in points[[0, -1], [0, -1], [0, -1]]])).all()


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["upright", "sheared"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8, np.bool_])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_write_is_read_back_by_nibabel(tmp_path, affine, dtype, suffix):
    geometry = Geometry.from_ras_ijk(SHAPE, affine)
    data = np.ascontiguousarray(values().T).astype(dtype)
    path = tmp_path / f"a{suffix}"
    write_nifti(data, geometry, path)
    image = nib.load(path)
    assert image.get_data_dtype() == (np.uint8 if dtype == np.bool_ else dtype)
    np.testing.assert_array_equal(np.asarray(image.dataobj), data.T)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    assert int(image.header["sform_code"]) == 1
    assert int(image.header["qform_code"]) == int(affine is AFFINE)
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.header.get_zooms(), nib.affines.voxel_sizes(affine), atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), data) if affine is AFFINE else None


def test_written_file_holds_no_text_and_is_the_same_each_time(tmp_path):
    geometry = Geometry.from_ras_ijk(SHAPE, AFFINE)
    volume = Volume(np.ascontiguousarray(values().T), geometry)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(volume, None, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (tmp_path / "a.nii.gz").read_bytes()[3:8] == bytes(5)  # gzip: no flags, so no file name, and no time
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]
    header = nib.load(tmp_path / "a.nii.gz").header
    assert all(bytes(header[key].tobytes()).strip(b"\0") == b"" for key in ("descrip", "aux_file", "intent_name", "db_name"))
    again = read_nifti(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(again.hu, volume.hu)
    assert again.geometry == geometry


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    geometry = Geometry.from_ras_ijk(SHAPE, AFFINE)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"old")

    class Broken(np.ndarray):
        def __iter__(self):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_nifti(Volume(np.ascontiguousarray(values().T).view(Broken), geometry), geometry, path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize(
    ("data", "name", "says"),
    [
        (np.zeros((5, 7, 11)), "a.nii", "float64"),
        (np.zeros((5, 11, 7), np.int16), "a.nii", "geometry of its shape"),
        (np.zeros((5, 7, 11), np.int16), "a.img", "must end in"),
    ],
)
def test_what_cannot_be_written(tmp_path, data, name, says):
    with pytest.raises(ValueError, match=says):
        write_nifti(data, Geometry.from_ras_ijk(SHAPE, AFFINE), tmp_path / name)


def test_array_without_geometry_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="needs a geometry"):
        write_nifti(np.zeros((5, 7, 11), np.int16), None, tmp_path / "a.nii")


def test_labels(tmp_path):
    labels = np.random.default_rng(0).integers(0, 118, SHAPE)
    for dtype in (np.uint8, np.int16, np.float64):
        found, geometry = read_labels(save(tmp_path / "a.nii.gz", labels.astype(dtype)))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, labels.T)
        assert geometry == Geometry.from_ras_ijk(SHAPE, AFFINE)
    labels[0, 0, 0] = 512
    assert read_labels(save(tmp_path / "b.nii", labels.astype(np.int16)))[0].dtype == np.uint16


@pytest.mark.parametrize("data", [values(), np.full(SHAPE, 0.5, np.float32), np.full(SHAPE, np.nan, np.float32)])
def test_values_that_are_no_labels(tmp_path, data):
    with pytest.raises(InputError, match="not_labels"):
        read_labels(save(tmp_path / "a.nii", data))
