"""A user's masks say where regions are: by world position, whatever the mask's own grid."""

from pathlib import Path

import numpy as np
import pytest
from tiny import Tiny, patient, places, scan_of

from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.nifti import write_nifti
from medvl.inference.masks import places_from_masks
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle

GRID = Geometry.centered((12.0, -30.0, 55.0), (9, 14, 11), (5.0, 2.0, 3.0))


def write(folder: Path, name: str, *voxels: tuple[int, int, int]) -> None:
    mask = np.zeros(GRID.shape_dhw, np.uint8)
    for voxel in voxels:
        mask[voxel] = 1
    write_nifti(mask, GRID, folder / f"{name}.nii.gz")


def test_centres_are_those_of_the_masks(tmp_path: Path) -> None:
    write(tmp_path, "kidney_left", (1, 2, 3), (3, 2, 3))
    write(tmp_path, "heart", (8, 13, 0))
    write(tmp_path, "kidney_right")
    found = places_from_masks(tmp_path, ("kidney_left", "kidney_right", "chest"))
    assert set(found) == {"kidney_left", "chest"}
    np.testing.assert_allclose(found["kidney_left"].center_lps, GRID.to_lps((2, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(found["chest"].center_lps, GRID.to_lps((8, 13, 0)), atol=1e-3)


def test_no_mask_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kidney_left\.nii\.gz"):
        places_from_masks(tmp_path, ("kidney_left",))


def test_a_given_place_stands_above_the_localiser(tiny_run: Tiny) -> None:
    who = patient(3)
    given = {"kidney_left": places(who)["kidney_left"]}
    predictor = Predictor(open_bundle(tiny_run.bundle), given=given)
    regions = predictor.predict(scan_of(who), explain=False).regions
    assert regions["kidney_left"].source == "mask"
    assert regions["kidney_right"].source == "localiser"
    geometry = regions["kidney_left"].geometry
    assert geometry is not None
    np.testing.assert_allclose(geometry.center_lps, given["kidney_left"].center_lps, atol=1e-6)
