"""Every case of the shared corpus: right shape, places and values as the headers say, or refused for the right reason."""

import csv
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from medvl.dicom.pixels import decode, frame_data
from medvl.dicom.read import read, read_values
from medvl.dicom.scan import scan
from medvl.dicom.series import Series
from medvl.dicom.source import Opener
from medvl.dicom.verify import verify
from medvl.errors import InputError
from medvl.geometry import Geometry

pytestmark = pytest.mark.data

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Expect:
    modality: str
    n_files: int
    verdict: str
    codes: tuple[str, ...] = ()


CT = "CT"
CASES = {
    "abdomen_portal_venous_crlm1004": (Expect(CT, 41, "volume"),),
    "bits12_dirty_high_bits": (Expect("MR", 2, "refused", ("not_ct",)),),
    "chest_64x64_copdgene": (Expect(CT, 79, "volume"),),
    "enhanced_multiframe_ct": (Expect(CT, 1, "refused", ("not_hounsfield",)),),
    "fragmented_jpeg_lossless_mr": (Expect("MR", 8, "refused", ("not_ct",)),),
    "gated_cardiac_2slices": (Expect(CT, 2, "volume"),),
    "liver_ct_with_dicom_seg": (Expect(CT, 3, "volume", ("overlapping_slices",)), Expect("SEG", 1, "refused", ("not_an_image",))),
    "lung_tumour_ibsi1": (Expect(CT, 60, "volume"), Expect("RTSTRUCT", 1, "refused", ("not_an_image",))),
    "missing_slice_ge": (Expect(CT, 4, "refused", ("missing_slice",)),),
    "mixed_study_philips_phantom": (
        Expect(CT, 28, "volume"),
        Expect(CT, 2, "refused", ("secondary_capture", "duplicate_slices")),
        Expect(CT, 1, "refused", ("localizer",)),
    ),
    "one_image_16_transfer_syntaxes": (
        Expect(CT, 16, "refused", ("jpeg_not_hu", "same_position", "lossy_compression", "rescale_per_slice", "duplicate_slices")),
    ),
    "petct_abdomen_j2k": (Expect(CT, 20, "volume", ("overlapping_slices",)),),
    "position_HFDL_sagittal_mr": (Expect("MR", 11, "refused", ("not_ct", "gaps_between_slices")),),
    "same_position_not_a_volume": (Expect(CT, 4, "refused", ("same_position",)),),
    "sarcoma_multimodal_sts008": (
        Expect(CT, 51, "volume"),
        Expect("MR", 28, "refused", ("not_ct",)),
        Expect("PT", 51, "refused", ("not_ct",)),
        *(Expect("RTSTRUCT", 1, "refused", ("not_an_image",)),) * 3,
    ),
    "single_file_oddities": (
        Expect(CT, 4, "refused", ("several_stacks",)),
        Expect(CT, 3, "refused", ("same_position", "lossy_compression", "duplicate_slices")),
        *(Expect(CT, 1, "refused", ("localizer", "split_series")),) * 2,
        *(Expect(CT, 1, "refused", ("localizer",)),) * 2,
        Expect(CT, 1, "refused", ("not_an_image",)),
        Expect(CT, 1, "refused", ("secondary_capture",)),
        Expect(CT, 1, "refused", ("secondary_capture", "rescale_absent")),
        *(Expect(CT, 1, "refused", ("too_few_slices",)),) * 4,
    ),
    "tilt14_siemens_4slices": (Expect(CT, 4, "volume", ("tilt_resampled",)),),
    "tilt_plus16_philips_phantom": (Expect(CT, 20, "volume", ("tilt_resampled",)),),
    "wrong_modality_mr_tagged_ct": (Expect(CT, 17, "refused", ("wrong_modality",)),),
}
GEOMETRY = sorted(set(CASES) - {"single_file_oddities"})
_verified: dict[Path, list[Series]] = {}


def series_of(folder: Path) -> list[Series]:
    """All series with their final verdict, read once per session."""
    if folder not in _verified:
        _verified[folder] = [verify(series) for series in scan(folder).series]
    return _verified[folder]


def expected_series(folder: Path) -> list[dict]:
    return json.loads((folder / "expected.json").read_text())["series"]


def digest(values: np.ndarray) -> str:
    assert np.array_equal(values, np.rint(values))
    return hashlib.sha256(values.astype("<i4").tobytes()).hexdigest()


def test_the_list_names_every_case_of_the_corpus(shared_data: Path) -> None:
    assert sorted(p.name for p in (shared_data / "dicom").iterdir() if p.is_dir()) == sorted(CASES)


@pytest.mark.parametrize("case", CASES)
def test_verdict_and_reason_codes(shared_data: Path, case: str) -> None:
    found = [Expect(s.modality, s.n_files, s.verdict, s.codes) for s in series_of(shared_data / "dicom" / case)]
    assert sorted(found, key=repr) == sorted(CASES[case], key=repr)


@pytest.mark.parametrize("case", [name for name, series in CASES.items() if any(s.verdict == "refused" for s in series)])
def test_reading_a_refused_series_names_its_first_reason(shared_data: Path, case: str) -> None:
    for series in series_of(shared_data / "dicom" / case):
        if series.verdict == "refused":
            with pytest.raises(InputError) as raised:
                read(series)
            assert raised.value.code == series.codes[0]


@pytest.mark.parametrize("case", GEOMETRY)
def test_values_shape_and_world_positions(shared_data: Path, case: str) -> None:
    """The 32-bit hash of all values of each series, and 200 random points through the affine from the headers."""
    folder = shared_data / "dicom" / case
    rng = np.random.default_rng(20261122)
    found = {series.n_files: series for series in series_of(folder) if series.frames and series.modality != "PT"}
    checked = 0
    for expected in expected_series(folder):
        sha = expected.get("sha256_int32_slice_row_col")
        if sha is None:
            continue
        series = found[expected["n_files"]]
        values = read_values(series)
        if case == "enhanced_multiframe_ct":  # expected.json has stored values in file order; the groups say -1024 and place
            values = values[np.argsort([frame.chunks[0][0] for frame in series.frames])] + 1024
        if "duplicate_slices" in series.codes:
            values = np.concatenate([values, values])  # the copy that was dropped
        assert digest(values) == sha
        checked += 1
        affine = expected.get("affine_ras_col_row_slice")
        if series.stored is None or affine is None:
            assert {"same_position", "missing_slice", "not_ct", "not_hounsfield"} & set(series.codes)
            continue
        assert series.stored.shape_dhw == values.shape or "duplicate_slices" in series.codes
        points = rng.uniform(0, np.array(series.stored.shape_dhw) - 1, (200, 3))
        world = np.c_[points[:, ::-1], np.ones(200)] @ (RAS_TO_LPS @ np.array(affine)).T
        assert np.allclose(series.stored.to_lps(points), world[:, :3], atol=2e-3)
        if series.stored.shape_dhw[0] > 1:
            assert series.stored.spacing_mm[0] == pytest.approx(np.linalg.norm(np.array(affine)[:3, 2]), abs=1e-4)
    assert checked or case == "one_image_16_transfer_syntaxes"


@pytest.mark.parametrize("case", [name for name, series in CASES.items() if any(s.verdict == "volume" for s in series)])
def test_a_volume_reads_as_inspected(shared_data: Path, case: str) -> None:
    """`read` gives the geometry that `scan` promised, and the stored values wherever nothing had to be resampled."""
    for series in series_of(shared_data / "dicom" / case):
        if series.verdict != "volume":
            continue
        volume = read(series)
        assert volume.geometry == series.geometry
        assert volume.hu.dtype == np.int16
        if "tilt_resampled" not in series.codes:
            assert np.array_equal(volume.hu, read_values(series))


@pytest.mark.parametrize("case", ["tilt14_siemens_4slices", "tilt_plus16_philips_phantom"])
def test_tilted_stacks_are_straightened_in_place(shared_data: Path, case: str) -> None:
    """scipy, given the sheared affine of expected.json, finds the same value at the world position of each output voxel."""
    folder = shared_data / "dicom" / case
    (series,) = series_of(folder)
    volume = read(series)
    stored = read_values(series).astype(np.float64)
    assert volume.geometry.shear_deg < 1e-6
    expected = expected_series(folder)[0]
    assert volume.geometry.spacing_mm[0] == pytest.approx(expected["spacing_mm"]["median"], abs=1e-3)
    rng = np.random.default_rng(5)
    index = rng.integers(0, volume.hu.shape, (5000, 3))
    world = np.c_[volume.geometry.to_lps(index) * [-1, -1, 1], np.ones(5000)]
    col_row_slice = world @ np.linalg.inv(np.array(expected["affine_ras_col_row_slice"])).T
    source = col_row_slice[:, [2, 1, 0]].T
    source[0] = np.rint(source[0])  # slices keep their planes
    inside = (source >= -1e-6).all(axis=0) & (source <= np.array(stored.shape)[:, None] - 1 + 1e-6).all(axis=0)
    oracle = map_coordinates(stored, source.clip(0), order=1, mode="nearest")
    values = volume.hu[tuple(index.T)]
    assert inside.mean() > 0.85
    error = np.abs(values[inside] - oracle[inside])
    assert error.max() < 1.5  # expected.json rounds its affine to 1e-6, which moves the far end by 0.001 voxels
    assert (error <= 0.51).mean() > 0.98
    outside = (source < -1).any(axis=0) | (source > np.array(stored.shape)[:, None]).any(axis=0)
    assert outside.sum() > 10
    assert set(values[outside]) == {-1024}


def test_the_philips_tilt_agrees_with_the_corrected_reference(shared_data: Path) -> None:
    """Made by dcm2niix with its origin recomputed from the headers (its own lies 27 mm off)."""
    folder = shared_data / "dicom" / "tilt_plus16_philips_phantom"
    (series,) = series_of(folder)
    volume = read(series)
    image = nib.load(folder / "reference" / "s301_tilt_corrected_origin_fixed.nii.gz")
    reference = np.asarray(image.dataobj).transpose(2, 1, 0)
    grid = Geometry.from_ras_ijk(image.shape, image.affine)
    rng = np.random.default_rng(9)
    index = rng.uniform((1, 60, 20), np.array(volume.hu.shape) - (2, 61, 21), (4000, 3))
    index[:, 0] = np.rint(index[:, 0])
    ours = map_coordinates(volume.hu.astype(np.float64), index.T, order=1)
    theirs = map_coordinates(reference.astype(np.float64), grid.to_index(volume.geometry.to_lps(index)).T, order=1, cval=-1024)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999


def test_the_enhanced_sample_lies_where_dcm2niix_puts_it(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "enhanced_multiframe_ct"
    (series,) = series_of(folder)
    image = nib.load(folder / "reference" / "s3.nii.gz")
    reference = Geometry.from_ras_ijk(image.shape[:3], image.affine)
    values, other = read_values(series), np.asarray(image.dataobj).transpose(2, 1, 0)
    rng = np.random.default_rng(3)
    index = rng.integers(0, values.shape, (500, 3))
    assert series.stored is not None
    theirs = reference.to_index(series.stored.to_lps(index))
    assert np.abs(theirs - np.rint(theirs)).max() < 0.01
    assert np.array_equal(values[tuple(index.T)], other[tuple(np.rint(theirs).astype(int).T)])


def test_pet_values_are_rescaled_slice_by_slice(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "sarcoma_multimodal_sts008"
    (series,) = [s for s in series_of(folder) if s.modality == "PT"]
    (expected,) = [e for e in expected_series(folder) if e["modality"] == ["PT"]]
    values = read_values(series)
    assert values.dtype == np.float32
    assert len({frame.slope for frame in series.frames}) == 51
    assert float(values.max()) == pytest.approx(expected["value_max"], rel=1e-6)
    assert float(values.mean()) == pytest.approx(expected["value_mean"], abs=1e-4)


def test_every_transfer_syntax_of_one_image(shared_data: Path) -> None:
    """Lossless ones are identical, lossy ones differ by what the manifest says, two no plug-in decodes."""
    folder = shared_data / "dicom" / "one_image_16_transfer_syntaxes"
    rows = {row["file"]: row for row in csv.DictReader((folder / "manifest.csv").read_text().splitlines())}
    (series,) = series_of(folder)
    assert series.frames
    frames = {frame.item.name.rpartition("/")[2]: frame for part in (folder / "dicom").iterdir() for frame in _frames(part)}
    assert len(rows) == len(frames) == 16
    with Opener() as opener:
        truth = decode(frame_data(frames["CTImage.dcm"], opener), frames["CTImage.dcm"].encoding)
        for name, row in rows.items():
            if "Process" in name and row["identical_to_uncompressed"] != "True":
                (alone,) = series_of(folder / "dicom" / name)
                assert alone.codes[0] == "jpeg_not_hu", name
                continue
            values = decode(frame_data(frames[name], opener), frames[name].encoding)
            assert np.abs(values.astype(int) - truth).max() == int(row["max_abs_pixel_difference"]), name


def _frames(path: Path) -> tuple:
    return tuple(frame for series in scan(path).series for frame in series.frames)


def test_single_files_decode_to_the_pixels_of_the_manifest(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "single_file_oddities"
    checked = 0
    with Opener() as opener:
        for row in csv.DictReader((folder / "manifest.csv").read_text().splitlines()):
            if row["decoded"] != "yes":
                continue
            (frame,) = _frames(folder / row["file"])
            values = decode(frame_data(frame, opener), frame.encoding)
            assert hashlib.sha256(values.astype("<i4").tobytes()).hexdigest() == row["pixel_sha256_int32"], row["file"]
            checked += 1
    assert checked == 17


def test_a_truncated_copy_of_a_real_slice_costs_the_series_not_the_scan(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "dicom" / "chest_64x64_copdgene" / "dicom"
    for path in source.iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[:-100] if path.name == "IMG0079.dcm" else data)
    found = scan(tmp_path)
    assert [(one.path, one.reason.code) for one in found.rejected] == [("IMG0079.dcm", "truncated_file")]
    (series,) = found.series
    assert (series.verdict, series.codes) == ("refused", ("missing_slice",))
    assert replace(series, verdict="volume").n_files == 78
