"""Label maps measured and painted: sides, sizes, HU, partial volume and what the paint knows of pathology."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from medvl.errors import InputError
from medvl.geometry import Geometry
from medvl.imaging.painted.masks import STEP_MM, read_kidneys
from medvl.imaging.painted.report import write_report
from medvl.imaging.painted.scene import (
    CYST_HU,
    NECROSIS_SHARE,
    Tumour,
    body_around,
    label_shares,
    paint,
    tumour_of,
)
from medvl.imaging.phantom.render import FAT_HU, ORGAN_HU
from medvl.imaging.phantom.truth import Scanner
from medvl.text.labels import extract
from medvl.text.report import parse_report

GRID = Geometry.centered((10.0, 20.0, -400.0), (52, 60, 100), (3.0, 2.0, 2.0))
QUIET = Scanner((3.0, 2.0, 2.0), 3.0, 0.01, 0.0, "abdomen", False, "arterial", "")


def ball(center: tuple[float, float, float], radii: tuple[float, float, float], grid: Geometry = GRID) -> NDArray[np.bool_]:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape_dhw), indexing="ij"), -1)
    return (((grid.to_lps(index) - center) / radii) ** 2).sum(-1) <= 1


def a_map(grid: Geometry = GRID) -> NDArray[np.uint8]:
    """Left kidney (x above the middle, 10) with a tumour of 40 mm on its upper pole, right one with a cyst of 20 mm."""
    labels = np.zeros(grid.shape_dhw, np.uint8)
    labels[ball((70, 20, -400), (25, 22, 50), grid) | ball((-50, 20, -400), (25, 22, 50), grid)] = 1
    labels[ball((70, 20, -355), (20, 20, 20), grid)] = 2
    labels[ball((-70, 20, -440), (10, 10, 10), grid)] = 3
    return labels


def test_side_size_pole_and_growth_come_from_geometry() -> None:
    found = read_kidneys(a_map(), GRID, 10.0)
    left, right = found["left"], found["right"]
    assert [t.size_mm for t in left.tumours] == [pytest.approx(40, abs=3)]  # voxels of 2 mm add up to that
    assert left.tumours[0].volume_ml == pytest.approx(4 / 3 * np.pi * 8, rel=0.03)
    assert left.tumours[0].pole == "upper"
    assert right.cysts[0].size_mm == pytest.approx(20, abs=2)
    assert right.cysts[0].pole == "lower"
    assert (left.cysts, right.tumours) == ((), ())
    assert right.length_mm == pytest.approx(100, abs=5)
    assert np.allclose(right.center_lps, (-51.5, 20, -400), atol=4)


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2)])
def test_stored_orientation_changes_nothing(order: tuple[int, int, int]) -> None:
    """Axes permuted and one flipped, as KiTS stores them; half a voxel of the grid is all that may differ."""
    labels = a_map().transpose(order)[::-1]
    affine = GRID.affine_lps[:, [*order, 3]].copy()
    affine[:3, 3] += affine[:3, 0] * (labels.shape[0] - 1)
    affine[:3, 0] *= -1
    turned = read_kidneys(labels, Geometry(labels.shape, affine), 10.0)
    plain = read_kidneys(a_map(), GRID, 10.0)
    for side in plain:
        assert np.allclose(turned[side].center_lps, plain[side].center_lps, atol=STEP_MM)
        assert [t.size_mm for t in turned[side].tumours] == [pytest.approx(t.size_mm, abs=2) for t in plain[side].tumours]


def test_mirroring_the_middle_swaps_the_sides() -> None:
    """With the body's middle to the left of both kidneys, both are the right one."""
    assert set(read_kidneys(a_map(), GRID, 200.0)) == {"right"}


def test_a_fused_kidney_is_cut_at_the_midline() -> None:
    labels = a_map()
    labels[ball((10, 20, -440), (60, 8, 8))] = 1
    found = read_kidneys(labels, GRID, 10.0)
    assert set(found) == {"left", "right"}
    assert found["left"].tumours and not found["right"].tumours


def test_how_far_a_tumour_sticks_out_is_measured() -> None:
    inner, outer = a_map(), a_map()
    for labels in (inner, outer):
        labels[labels == 2] = 1
    inner[ball((70, 20, -400), (10, 10, 10))] = 2
    outer[ball((108, 20, -400), (15, 15, 15))] = 2
    assert read_kidneys(inner, GRID, 10.0)["left"].tumours[0].outside == 0
    far = read_kidneys(outer, GRID, 10.0)["left"].tumours[0]
    assert far.outside > 0.8 and far.exophytic


def test_an_empty_map_is_refused() -> None:
    with pytest.raises(InputError, match="15 mL"):
        read_kidneys(np.zeros(GRID.shape_dhw, np.uint8), GRID, 0.0)


def painted(tumour: Tumour, scanner: Scanner = QUIET, seed: int = 0) -> NDArray[np.int16]:
    labels = a_map()
    return paint(labels, GRID, GRID, scanner, tumour, body_around(GRID, labels, 10.0, 27.0), np.random.default_rng(seed)).hu


def deep(center: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    return ball(center, (radius, radius, radius))


@pytest.mark.parametrize("phase", ["noncontrast", "arterial", "portal_venous", "delayed"])
def test_each_tissue_has_the_hu_of_its_phase(phase: str) -> None:
    hu = painted(Tumour("avid"), replace(QUIET, phase=phase))
    assert np.median(hu[deep((70, 20, -355), 12)]) == pytest.approx(ORGAN_HU["avid"][phase], abs=1)
    assert np.median(hu[deep((-70, 20, -440), 5)]) == pytest.approx(CYST_HU, abs=1)
    assert np.median(hu[deep((-50, 20, -400), 6)]) == pytest.approx(ORGAN_HU["medulla"][phase], abs=1)
    rim = ball((-50, 20, -400), (22, 19, 40)) & ~ball((-50, 20, -400), (20, 17, 38)) & ~deep((-70, 20, -440), 16)
    assert np.median(hu[rim]) == pytest.approx(ORGAN_HU["cortex"][phase], abs=2)
    assert np.median(hu[deep((10, 20, -400), 10)]) == pytest.approx(FAT_HU + 4, abs=1)


def test_strength_scales_what_contrast_adds() -> None:
    tumour = Tumour("mild", strength=1.5)
    assert tumour.hu("arterial") == pytest.approx(36 + 1.5 * (55 - 36))
    assert tumour.hu("noncontrast") == 36
    assert Tumour("alike").hu("arterial") == pytest.approx((145 + 55) / 2)


def test_necrosis_is_a_core_of_the_stated_share() -> None:
    dry, wet = painted(Tumour("avid")), painted(Tumour("avid", necrosis=True, texture=5))
    inside = deep((70, 20, -355), 19)
    dark = (wet[inside] < 80).mean()
    assert dark == pytest.approx(NECROSIS_SHARE, abs=0.08)
    assert (dry[inside] < 80).mean() == 0
    shell = inside & ~deep((70, 20, -355), 15)
    assert (wet[shell] < 80).mean() < dark


def test_coarse_voxels_share_their_labels() -> None:
    coarse = Geometry.centered(GRID.center_lps, (16, 12, 20), (9.75, 10.0, 10.0))
    shares = label_shares(a_map(), GRID, coarse)
    for label, share in shares.items():
        assert share.sum() * coarse.voxel_ml == pytest.approx((a_map() == label).sum() * GRID.voxel_ml, rel=0.03)
    assert 0.2 < np.median(shares[3][shares[3] > 0.05]) < 0.9


def test_noise_is_the_scanners_and_the_seed_s() -> None:
    loud = replace(QUIET, noise_hu=15.0)
    a, b, again = painted(Tumour(), loud, 1), painted(Tumour(), loud, 2), painted(Tumour(), loud, 1)
    assert (a == again).all() and (a != b).any()
    assert (a - painted(Tumour()))[deep((10, 20, -400), 20)].std() == pytest.approx(15, rel=0.15)


def test_the_body_holds_every_label() -> None:
    labels = a_map()
    labels[ball((100, 40, -400), (8, 8, 8))] = 2
    body = body_around(GRID, labels, 10.0, None)
    points = GRID.to_lps(np.argwhere(labels > 0))[:, :2] - body.center_xy
    assert ((np.abs(points / body.cavity_mm) ** 2.5).sum(1) < 1).all()


def test_histology_decides_only_where_linked() -> None:
    def look(subtype: str | None, link: bool) -> Tumour:
        return tumour_of(subtype, True, np.random.default_rng(3), link=link)

    assert [look(s, True).enhancement for s in ("clear_cell_rcc", "papillary_rcc", None)] == ["avid", "mild", "alike"]
    assert look("clear_cell_rcc", True).necrosis
    assert look("clear_cell_rcc", False) == look("papillary_rcc", False) == look(None, False)
    assert not look("clear_cell_rcc", False).necrosis


@pytest.mark.parametrize("seed", range(12))
def test_the_extractor_reads_what_the_mask_says(seed: int) -> None:
    found = read_kidneys(a_map(), GRID, 10.0)
    labels = extract(parse_report(write_report(found, np.random.default_rng(seed))))
    left, right, tumour = labels["kidney_left"], labels["kidney_right"], found["left"].tumours[0]
    assert (left["renal_mass"], left["mass_size_mm"], left["mass_pole"]) == (1, tumour.size_mm, "upper")
    assert left["mass_large"] == int(tumour.size_mm >= 40)
    assert left["mass_exophytic"] == int(tumour.exophytic)
    assert (right["renal_cyst"], right["cyst_size_mm"]) == (1, found["right"].cysts[0].size_mm)
    assert right["renal_mass"] in (0, -1) and left["renal_cyst"] in (0, -1)
    unseen = ("mass_necrosis", "mass_avid", "mass_calcification", "mass_cystic", "renal_stone", "hydronephrosis")
    assert all(side[name] == -1 for side in (left, right) for name in unseen)
