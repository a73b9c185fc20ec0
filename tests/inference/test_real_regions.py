"""Real CT: masks are read where SimpleITK puts them, and given masks bring the crops to the kidneys, in HU as in the scan."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import binary_erosion

from medvl.evaluation.overlap import compare
from medvl.imaging.mask_shape import mask_shape
from medvl.imaging.nifti import read_labels, read_nifti, write_nifti
from medvl.imaging.preprocess import RegionSpec, to_hu_grid
from medvl.inference.masks import places_from_masks

pytestmark = pytest.mark.data
NAMES = {"spleen": 1, "kidney_right": 2, "kidney_left": 3, "liver": 5}
TOP_SLICE = 82


@pytest.fixture
def folder(shared_data: Path) -> Path:
    """Abdomen and pelvis at 3 mm."""
    return shared_data / "nifti" / "abdomen_pelvis_3mm"


@pytest.mark.parametrize("file", ["example_seg.nii.gz", "example_seg_fast_force_split.nii.gz"])
def test_volumes_and_centroids_equal_simpleitk(folder: Path, file: str) -> None:
    labels, geometry = read_labels(folder / file)
    theirs = sitk.LabelShapeStatisticsImageFilter()
    theirs.Execute(sitk.Cast(sitk.ReadImage(str(folder / file)), sitk.sitkUInt8))
    for name, number in NAMES.items():
        found = mask_shape(labels == number, geometry)
        assert found.volume_ml == pytest.approx(theirs.GetPhysicalSize(number) / 1000, rel=1e-6), name
        np.testing.assert_allclose(found.centroid_lps, theirs.GetCentroid(number), atol=1e-4)
    left, right = (mask_shape(labels == NAMES[f"kidney_{side}"], geometry).centroid_lps for side in ("left", "right"))
    assert left[0] > right[0] + 50  # LPS: x grows to the patient's left


def test_shipped_volumes_are_of_another_mask_but_close(folder: Path) -> None:
    """The repository's numbers belong to a later segmentation: the left kidney is equal, the others differ by a few per cent."""
    labels, geometry = read_labels(folder / "example_seg.nii.gz")
    shipped = json.loads((folder / "statistics_example_ct_sm.json").read_text(encoding="utf-8"))
    for name, number in NAMES.items():
        ours = (labels == number).sum() * geometry.voxel_ml * 1000
        assert ours == pytest.approx(shipped[name]["volume"], rel=1e-6 if name == "kidney_left" else 0.02), name


def test_both_references_agree_by_voxel_and_not_by_world_position(folder: Path) -> None:
    whole, top = (read_labels(folder / f) for f in ("example_seg_fast_force_split.nii.gz", "example_seg.nii.gz"))
    for name, number in NAMES.items():
        part = whole[0][TOP_SLICE : TOP_SLICE + top[0].shape[0]] == number
        assert compare(part, top[0] == number, top[1]).dice > 0.95, name
    assert whole[1].to_lps((TOP_SLICE, 0, 0))[2] - top[1].to_lps((0, 0, 0))[2] == pytest.approx(246.0)


def test_given_masks_bring_the_crop_to_the_kidney(folder: Path, tmp_path: Path) -> None:
    volume = read_nifti(folder / "example_ct.nii.gz")
    labels, geometry = read_labels(folder / "example_seg_fast_force_split.nii.gz")
    for side in ("left", "right"):
        write_nifti(labels == NAMES[f"kidney_{side}"], geometry, tmp_path / f"kidney_{side}.nii.gz")
    places = places_from_masks(tmp_path, ("kidney_left", "kidney_right"))
    for name, place in places.items():
        mask = labels == NAMES[name]
        grid = RegionSpec(name, (52, 48, 56), (3.0, 3.0, 3.0), ((-150.0, 250.0),)).geometry(place.center_lps)
        inside = geometry.to_lps(np.argwhere(mask))
        assert grid.contains(inside).all()
        np.testing.assert_allclose(grid.center_lps, inside.mean(0), atol=1e-6)
        core = binary_erosion(mask, iterations=2)
        near = np.rint(grid.to_index(geometry.to_lps(np.argwhere(core)))).astype(int)
        crop = to_hu_grid(volume, grid)[near[:, 0], near[:, 1], near[:, 2]]
        assert crop.mean() == pytest.approx(volume.hu[core].mean(), abs=2.0)
