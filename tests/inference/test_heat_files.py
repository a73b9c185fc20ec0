"""Heat maps on disk: small, and read back as they were by nibabel and by us."""

from pathlib import Path

import nibabel as nib
import numpy as np

from medvl.geometry import Geometry
from medvl.imaging.nifti import read_nifti
from medvl.inference.results import _write_heat


def test_values_are_within_half_a_step_and_never_above_1(tmp_path: Path) -> None:
    grid = Geometry.centered((1.0, -4.0, 7.0), (6, 5, 4), (3.0, 2.0, 2.5))
    heat = np.linspace(0, 1, 120, dtype=np.float32).reshape(6, 5, 4)
    _write_heat(heat, grid, tmp_path / "heat.nii.gz")
    found = nib.load(tmp_path / "heat.nii.gz")
    assert found.get_data_dtype() == np.uint8
    values = found.get_fdata(dtype=np.float32).T
    assert (values.min(), values.max()) == (0, 1)
    np.testing.assert_allclose(values, heat, atol=0.5001 / 255)
    again = read_nifti(tmp_path / "heat.nii.gz", check_hu=False)
    assert again.geometry == grid
    assert again.hu.max() <= 1
    np.testing.assert_allclose(again.hu, values, atol=1e-6)
