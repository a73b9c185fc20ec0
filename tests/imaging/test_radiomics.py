"""Radiomics: the IBSI's reference values, numbers worked out by hand, axes, refusals."""

from __future__ import annotations

import csv
import logging
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medvl.errors import ConfigError, InputError
from medvl.geometry import Geometry
from medvl.imaging.nifti import read_nifti
from medvl.imaging.radiomics import FAMILIES, RadiomicsSettings, ibsi_name, radiomics
from medvl.records import Volume

pytest.importorskip("mirp", reason="the extra radiomics is not installed")
MERGED = {"cm_joint_avg_3D_comb", "cm_contrast_3D_comb", "rlm_sre_3D_comb"}


def ball(radius_mm: float = 15.0, spacing: tuple[float, float, float] = (2.5, 2.5, 2.5)) -> tuple[Volume, np.ndarray]:
    """A ball of noisy tissue in fat, off centre, and its mask."""
    shape = tuple(int(60 / s) for s in spacing)
    geometry = Geometry.centered((10.0, -20.0, 30.0), shape, spacing)  # type: ignore[arg-type]
    where = geometry.to_lps(np.stack(np.indices(shape), -1)) - (12.0, -17.0, 31.0)
    mask = (where**2).sum(-1) < radius_mm**2
    hu = np.random.default_rng(5).normal(0, 25, shape) + np.where(mask, 90, -100)
    return Volume(hu.astype(np.float32), geometry), mask


@pytest.mark.data
@pytest.mark.slow
def test_reference_values_of_configuration_c(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "lung_tumour_ibsi1"
    mask = np.asarray(nib.load(folder / "repo_mask.nii.gz").dataobj).T
    families = tuple(FAMILIES)
    settings = RadiomicsSettings(families, 2.0, False, 25.0, (-1000.0, 400.0), "3D_comb", 2.5, None)
    found = radiomics(read_nifti(folder / "repo_image.nii.gz"), mask, settings=settings)
    with (folder / "ibsi_reference_config_c.csv").open(encoding="utf-8", newline="") as file:
        known = {r["tag"]: r for r in csv.DictReader(file, delimiter=";") if r["tolerance"] and not r["tag"].endswith("_3D_avg")}
    known = {tag: row for tag, row in known.items() if tag.split("_")[0] in FAMILIES and not tag.endswith("_roi")}
    assert set(known) - set(found) == {"morph_moran_i", "morph_geary_c"}
    off = {
        t: (found[t], r)
        for t, r in known.items()
        if t in found and abs(found[t] - float(r["reference value"])) > float(r["tolerance"])
    }
    assert off == {}
    assert len(known) == 169


def test_by_hand() -> None:
    """Statistics and histogram again with numpy; co-occurrence and shape from their definitions."""
    volume, mask = ball()
    settings = RadiomicsSettings(spacing_mm=None)
    found = radiomics(volume, mask, settings=settings)
    values = np.rint(volume.hu[mask]).astype(float)
    assert found["stat_mean"] == pytest.approx(values.mean(), abs=1e-3)
    assert found["stat_var"] == pytest.approx(values.var(), rel=1e-5)
    assert found["stat_skew"] == pytest.approx(((values - values.mean()) ** 3).mean() / values.std() ** 3, rel=1e-3)
    levels = np.floor((values + 1000) / 25) + 1
    share = np.bincount(levels.astype(int)) / len(levels)
    assert found["ih_mean"] == pytest.approx(levels.mean(), rel=1e-6)
    assert found["ih_entropy"] == pytest.approx(-(share[share > 0] * np.log2(share[share > 0])).sum(), rel=1e-6)
    assert found["morph_vol_approx"] == pytest.approx(mask.sum() * 2.5**3)
    assert found["morph_volume"] == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.03)
    assert found["morph_diam"] == pytest.approx(30, abs=2.5)
    assert found["cm_contrast_3D_comb"] == pytest.approx(contrast(volume.hu, mask), rel=1e-6)


def contrast(hu: np.ndarray, mask: np.ndarray) -> float:
    """Mean squared difference of levels over all pairs of neighbouring voxels of the region, 13 directions together."""
    levels = np.floor((np.rint(hu).astype(float) + 1000) / 25)
    padded, inside = np.pad(levels, 1), np.pad(mask, 1)
    total = pairs = 0.0
    for step in product((-1, 0, 1), repeat=3):
        if step > (0, 0, 0):
            both = inside & np.roll(inside, step, (0, 1, 2))
            total += ((padded - np.roll(padded, step, (0, 1, 2)))[both] ** 2).sum()
            pairs += both.sum()
    return float(total / pairs)


def test_stored_axes_make_no_difference() -> None:
    volume, mask = ball(spacing=(5.0, 2.0, 1.5))
    turned = nib_like_order(volume), mask.transpose(2, 0, 1)[:, ::-1]
    settings = RadiomicsSettings(("morph", "stat", "cm"), merging="2D_comb")
    plain, other = radiomics(volume, mask, settings=settings), radiomics(*turned, settings=settings)
    assert plain.keys() == other.keys()
    assert [other[k] for k in plain] == pytest.approx(list(plain.values()), rel=1e-6)


def nib_like_order(volume: Volume) -> Volume:
    """The same voxels with axes (W, D, H), D upside down."""
    d, _, _ = volume.hu.shape
    affine = volume.geometry.affine_lps[:, [2, 0, 1, 3]].copy()
    affine[:3, 3] += (d - 1) * affine[:3, 1]
    affine[:3, 1] *= -1
    hu = np.ascontiguousarray(volume.hu.transpose(2, 0, 1)[:, ::-1])
    return Volume(hu, Geometry(hu.shape, affine))


def test_default_set_and_names() -> None:
    volume, mask = ball()
    found = radiomics(volume, mask)
    families = [name.split("_")[0] for name in found]
    assert {f: families.count(f) for f in dict.fromkeys(families)} == {"morph": 23, "stat": 18, "ih": 23, "cm": 25, "rlm": 16}
    assert next(iter(found)) == "morph_volume"
    assert found.keys() >= MERGED
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("morph_volume", "morph_volume"),
        ("ih_p10_fbs_w25.0", "ih_p10"),
        ("cm_info_corr1_d1_2d_s_mrg_fbs_w25.0", "cm_info_corr1_2D_comb"),
        ("cm_info_corr1_d1_2.5d_d_mrg_fbs_w2.5", "cm_info_corr1_2_5D_avg"),
        ("rlm_sre_3d_v_mrg_fbs_w25.0", "rlm_sre_3D_comb"),
        ("ngl_lde_d1_a0.0_3d_fbs_w25.0", "ngl_lde_3D"),
    ],
)
def test_ibsi_name(column: str, name: str) -> None:
    assert ibsi_name(column) == name


def test_cropping_and_margin_hardly_matter() -> None:
    volume, mask = ball()
    near, whole = (radiomics(volume, mask, settings=RadiomicsSettings(("stat",), margin_mm=m)) for m in (5.0, None))
    assert near["stat_mean"] == pytest.approx(whole["stat_mean"], abs=1.0)


def test_refusals() -> None:
    volume, mask = ball()
    with pytest.raises(InputError, match="empty_mask"):
        radiomics(volume, np.zeros_like(mask))
    speck = np.zeros_like(mask)
    speck[10, 10, 10:14] = True
    with pytest.raises(InputError, match=r"small_mask.* 4 voxels"):
        radiomics(volume, speck)
    with pytest.raises(InputError, match=r"empty_mask.*HU"):
        radiomics(volume, mask, settings=RadiomicsSettings(range_hu=(2000.0, 3000.0)))
    with pytest.raises(ConfigError, match="does not fit"):
        radiomics(volume, mask[1:])
    sheared = volume.geometry.affine_lps.copy()
    sheared[0, 0] = 0.5
    with pytest.raises(InputError, match="bad_geometry"):
        radiomics(Volume(volume.hu, Geometry(mask.shape, sheared)), mask)


@pytest.mark.parametrize(
    "wrong",
    [
        {"families": ("glcm",)},
        {"families": ()},
        {"bin_hu": 0.0},
        {"range_hu": (1.0, 0.0)},
        {"merging": "4D"},
        {"margin_mm": -1.0},
    ],
)
def test_wrong_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(RadiomicsSettings(), **wrong)  # type: ignore[arg-type]


def test_logging_is_left_alone() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    volume, mask = ball()
    radiomics(volume, mask, settings=RadiomicsSettings(("stat",)))
    assert (list(root.handlers), root.level) == before


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mirp", None)
    volume, mask = ball()
    with pytest.raises(ConfigError, match=r"medvl\[radiomics\]"):
        radiomics(volume, mask)
