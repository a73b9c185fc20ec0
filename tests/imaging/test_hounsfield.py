"""`hu_check`: silent on every real CT of the shared data, and awake to each way of losing HU."""

import warnings
from functools import cache

import nibabel as nib
import numpy as np
import pydicom
import pytest

from medvl.imaging.hounsfield import hu_check

# Folder under the shared data -> modality of the series to take. Every CT series there that holds an image of a body or
# phantom is listed; `NOISE` are the ones whose pixels their source replaced by random numbers between -1024 and -770.
REAL_CT = (
    "dicom/abdomen_portal_venous_crlm1004/dicom",
    "dicom/chest_64x64_copdgene/dicom",
    "dicom/gated_cardiac_2slices/dicom",
    "dicom/liver_ct_with_dicom_seg/dicom",
    "dicom/lung_tumour_ibsi1/dicom",
    "dicom/mixed_study_philips_phantom/dicom",
    "dicom/petct_abdomen_j2k/dicom",
    "dicom/sarcoma_multimodal_sts008/dicom",
    "dicom/tilt_plus16_philips_phantom/dicom",
    "dicom/enhanced_multiframe_ct/dicom",
    "nifti/abdomen_pelvis_3mm/example_ct.nii.gz",
    "nifti/abdomen_pelvis_3mm/example_ct_sm.nii.gz",
    "nifti/cardiac_cta_1p5mm/ct_aorta_crop.nii.gz",
    "nifti/cardiac_cta_1p5mm/ct_pulmonary_crop.nii.gz",
    "nifti/chest_lidc_0314/ct_2mm.nii.gz",
)
NOISE = ("dicom/tilt14_siemens_4slices/dicom", "dicom/missing_slice_ge/dicom", "dicom/same_position_not_a_volume/dicom")
FOREIGN = (
    "dicom/wrong_modality_mr_tagged_ct/dicom",
    "dicom/position_HFDL_sagittal_mr/dicom",
    "nifti/scaled_uint8_head/CT_AVM.nii.gz",
    "nifti/scaled_uint8_head/CT_pitch.nii.gz",
)


@cache
def load(path):
    """All voxels of the largest series under `path` that is no PET, MR of another series or derived object, after rescale."""
    if path.is_file():
        return np.asarray(nib.load(path).dataobj).astype(np.float32)
    series = {}
    for file in sorted(path.rglob("*")):
        if not file.is_file():
            continue
        try:
            dataset = pydicom.dcmread(file)
        except pydicom.errors.InvalidDicomError:
            continue
        if "PixelData" in dataset and dataset.Modality in ("CT", "MR") and dataset.get("SamplesPerPixel") == 1:
            key = (dataset.Modality != "CT", dataset.SeriesInstanceUID)
            series.setdefault(key, []).append(rescaled(dataset).ravel())
    modality = min(key[0] for key in series)
    largest = max((frames for key, frames in series.items() if key[0] == modality), key=lambda frames: sum(map(len, frames)))
    return np.concatenate(largest).reshape(1, 1, -1)


def rescaled(dataset):
    tags = dataset
    if "SharedFunctionalGroupsSequence" in dataset:
        tags = dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = dataset.pixel_array
    return pixels.astype(np.float32) * float(tags.get("RescaleSlope") or 1) + float(tags.get("RescaleIntercept") or 0)


def codes(values, **options):
    return [reason.code for reason in hu_check(values, **options)]


@pytest.mark.data
@pytest.mark.parametrize("name", REAL_CT + NOISE)
def test_real_ct_is_accepted(shared_data, name):
    assert codes(load(shared_data / name)) == []


@pytest.mark.data
@pytest.mark.parametrize("name", FOREIGN)
def test_other_values_are_refused(shared_data, name):
    assert codes(load(shared_data / name)) == ["not_hounsfield"]


@pytest.mark.data
@pytest.mark.parametrize("name", REAL_CT)
@pytest.mark.parametrize("intercept", [-1024, -1000])
@pytest.mark.parametrize("padding", ["padding kept", "padding clipped"])
def test_rescale_applied_twice(shared_data, name, intercept, padding):
    values = load(shared_data / name)
    values = values if padding == "padding kept" else np.clip(values, -1024, None)
    assert codes(values + intercept) == ["rescaled_twice"]


@pytest.mark.data
@pytest.mark.parametrize("name", REAL_CT)
@pytest.mark.parametrize("intercept", [-1024, -1000])
def test_rescale_not_applied(shared_data, name, intercept):
    # One head phantom is plastic of 200 to 700 HU all through: no water to find, refused under the general code.
    expected = "not_hounsfield" if "mixed_study" in name else "rescale_missing"
    assert codes(load(shared_data / name) - intercept) == [expected]


@pytest.mark.data
@pytest.mark.parametrize("name", REAL_CT)
@pytest.mark.parametrize("low, high", [(-160, 240), (-1000, 400)])
def test_windowed_normalised_and_standardised(shared_data, name, low, high):
    values = load(shared_data / name)
    unit = np.clip((values - low) / (high - low), 0, 1)
    assert codes(np.rint(unit * 255)) == ["not_hounsfield"]
    assert codes(unit) == ["not_hounsfield"]
    assert codes(unit * 2 - 1) == ["not_hounsfield"]
    assert codes((values - values.mean()) / values.std()) == ["not_hounsfield"]


@pytest.mark.data
@pytest.mark.parametrize("name", REAL_CT)
def test_clipped_to_a_soft_tissue_window(shared_data, name):
    assert codes(np.clip(load(shared_data / name), -160, 240)) == ["not_hounsfield"]


def body(n=20_000, seed=0):
    """A crop inside the body: fat, muscle and some bone, with noise; no air."""
    generator = np.random.default_rng(seed)
    means = generator.choice([-100, 45, 60, 400], size=n, p=[0.3, 0.4, 0.25, 0.05])
    return np.rint(means + generator.normal(0, 12, n)).reshape(20, 25, -1)


def test_crop_without_air_is_accepted_and_its_shift_seen():
    assert codes(body()) == []
    assert codes(body() - 1024) == ["rescaled_twice"]
    assert codes(body() + 1024) == ["rescale_missing"]


def test_eight_bits_cannot_hold_hu():
    assert codes(body(), stored_bits=8) == ["not_hounsfield"]
    assert codes(body(), stored_bits=12) == []


def test_mr_with_a_ct_intercept():
    assert codes(np.random.default_rng(1).gamma(2.0, 90.0, (20, 30, 40)).clip(0, 700) - 1024) == ["not_hounsfield"]


def test_values_beyond_any_scanner():
    wild = body()
    wild[:2] = 30_000
    assert codes(wild) == ["not_hounsfield"]


def test_only_padding():
    assert codes(np.full((10, 11, 12), -2000)) == ["not_hounsfield"]


def test_too_few_voxels_give_no_verdict():
    assert codes(np.zeros((5, 7, 11))) == []


def test_not_a_number_is_left_to_the_reader():
    values = body().astype(np.float32)
    values[0] = np.nan
    assert codes(values) == []


def test_messages_hold_the_value_and_the_next_step():
    (reason,) = hu_check(body() - 1024)
    assert "instead of -1000" in reason.message
    assert "convert" in reason.message
