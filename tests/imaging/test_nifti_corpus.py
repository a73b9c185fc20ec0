"""Every NIfTI file of the shared data against its `facts.csv`: read right, or refused with the right code."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from medvl.errors import InputError
from medvl.imaging.nifti import read_labels, read_nifti

CT = (
    "abdomen_pelvis_3mm/example_ct.nii.gz",
    "abdomen_pelvis_3mm/example_ct_sm.nii.gz",
    "cardiac_cta_1p5mm/ct_aorta_crop.nii.gz",
    "cardiac_cta_1p5mm/ct_pulmonary_crop.nii.gz",
    "chest_lidc_0314/ct_2mm.nii.gz",
)
REFUSED = {"scaled_uint8_head/CT_AVM.nii.gz": "not_hounsfield", "scaled_uint8_head/CT_pitch.nii.gz": "not_hounsfield"}
AORTA = tuple(
    f"cardiac_cta_1p5mm/aorta_crop_masks/{name}.nii.gz"
    for name in (
        "annulus_proper",
        "aorta",
        "aorta_false_lumen",
        "aorta_true_lumen",
        "brachiocephalic_trunk",
        "celiac_trunk",
        "common_carotid_artery_left",
        "sinotubular_junction",
        "subclavian_artery_left",
        "superior_mesenteric_artery",
        "vertebrae_T12",
    )
)
PULMONARY = tuple(
    f"cardiac_cta_1p5mm/pulmonary_crop_masks/{name}.nii.gz"
    for name in (
        "pul_annulus",
        "pul_bifurcation",
        "pul_left_start",
        "pul_right_start",
        "pul_sinotubular_junction",
        "pulmonary_artery",
    )
)
MASKS = (
    "abdomen_pelvis_3mm/example_seg.nii.gz",
    "abdomen_pelvis_3mm/example_seg_fast_force_split.nii.gz",
    "cardiac_cta_1p5mm/heart_full_grid.nii.gz",
    *AORTA,
    *PULMONARY,
)
pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def facts(shared_data):
    with (shared_data / "nifti" / "facts.csv").open() as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def check_geometry(geometry, row):
    """Shape, spacing and axis codes of `facts.csv`, which names them in nibabel's order and RAS."""
    assert "x".join(str(n) for n in reversed(geometry.shape_dhw)) == row["shape"]
    assert geometry.spacing_mm[::-1] == pytest.approx([float(s) for s in row["spacing_mm"].split("x")], abs=1e-3)
    assert geometry.axes[::-1] == row["axcodes"]


def test_every_nifti_is_listed(shared_data, facts):
    on_disk = {str(p.relative_to(shared_data / "nifti")) for p in (shared_data / "nifti").rglob("*.nii.gz")}
    assert {*CT, *REFUSED, *MASKS} == on_disk
    assert on_disk <= set(facts)


@pytest.mark.parametrize("name", CT)
def test_ct_is_read_right(shared_data, facts, name):
    volume, row = read_nifti(shared_data / "nifti" / name), facts[name]
    check_geometry(volume.geometry, row)
    assert volume.reasons == ()
    assert volume.hu.dtype == np.int16
    assert (volume.hu.min(), volume.hu.max()) == (float(row["min"]), float(row["max"]))
    assert volume.hu.mean() == pytest.approx(float(row["mean"]), abs=1e-3)


@pytest.mark.parametrize("name", CT)
def test_ct_at_random_world_points_agrees_with_nibabel(shared_data, name):
    volume, image = read_nifti(shared_data / "nifti" / name), nib.load(shared_data / "nifti" / name)
    data = np.asarray(image.dataobj)
    index = np.random.default_rng(0).integers(0, image.shape, (200, 3))
    lps = nib.affines.apply_affine(image.affine, index) * [-1, -1, 1]
    found = volume.geometry.to_index(lps)
    np.testing.assert_allclose(found, np.rint(found), atol=1e-3)
    np.testing.assert_array_equal(volume.hu[tuple(np.rint(found).astype(int).T)], data[tuple(index.T)])


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
def test_what_is_not_hu_is_refused(shared_data, facts, name, code):
    with pytest.raises(InputError) as caught:
        read_nifti(shared_data / "nifti" / name)
    assert caught.value.code == code
    check_geometry(read_nifti(shared_data / "nifti" / name, check_hu=False).geometry, facts[name])


@pytest.mark.parametrize("name", MASKS)
def test_mask_is_read_right(shared_data, facts, name):
    (labels, geometry), row = read_labels(shared_data / "nifti" / name), facts[name]
    check_geometry(geometry, row)
    assert labels.dtype == np.uint8
    assert labels.max() == float(row["max"])
    assert np.count_nonzero(labels) * geometry.voxel_ml == pytest.approx(float(row["nonzero_ml"]), rel=1e-3, abs=2e-3)


@pytest.mark.parametrize(("names", "ct"), [(AORTA, CT[2]), (PULMONARY, CT[3])], ids=["aorta", "pulmonary"])
def test_masks_share_the_grid_of_their_ct(shared_data, names, ct):
    place = read_nifti(shared_data / "nifti" / ct).geometry
    assert all(read_labels(shared_data / "nifti" / name)[1] == place for name in names)


def test_mean_hu_under_masks_is_what_the_source_repository_states(shared_data):
    folder = shared_data / "nifti" / "abdomen_pelvis_3mm"
    volume = read_nifti(folder / "example_ct_sm.nii.gz")
    labels, _ = read_labels(folder / "example_seg.nii.gz")
    numbers = {name: int(number) for number, name in json.loads((folder / "labels_total.json").read_text()).items()}
    stated = json.loads((folder / "statistics_example_ct_sm.json").read_text())
    for name in ("spleen", "kidney_right", "kidney_left", "liver", "vertebrae_L1"):  # solid; the stated run differs slightly
        inside = labels == numbers[name]
        assert inside.sum() * volume.geometry.voxel_ml * 1000 == pytest.approx(stated[name]["volume"], rel=0.03)
        assert volume.hu[inside].mean() == pytest.approx(stated[name]["intensity"], abs=1.0)
