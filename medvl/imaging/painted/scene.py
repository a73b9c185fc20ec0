"""Painting CT on a label map: every HU is invented here; see docs/explanation/painted-cohort.md for what that allows.

Body, fat and muscle are a smooth outline around the kidneys; no other organ is known from the labels, so none is painted. The
renal sinus is fat, as nothing is labelled there. Contrast by phase is the phantom's (`ORGAN_HU`), and so are blur and noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvl.geometry import Geometry
from medvl.imaging.painted.masks import CYST, KIDNEY, TUMOUR
from medvl.imaging.phantom.render import FAT_HU, MUSCLE_HU, ORGAN_HU, blur_and_noise, superellipse
from medvl.imaging.phantom.shapes import F32, Canvas, ramp
from medvl.imaging.phantom.truth import Phase, Scanner
from medvl.imaging.resample import resample
from medvl.records import Volume

PAINT_VERSION = 1  # counted up with every change that moves a voxel
Enhancement = Literal["avid", "mild", "alike"]
# The ASSUMED link from histology to enhancement: strong for clear cell carcinoma and oncocytoma, weak for the others.
AVID = frozenset({"clear_cell_rcc", "oncocytoma"})
MILD = frozenset(
    {"papillary_rcc", "chromophobe_rcc", "clear_cell_papillary", "transitional_cell_carcinoma", "mest", "angiomyolipoma"}
)
SPREAD = 0.2  # standard deviation of the log of a tumour's enhancement above its unenhanced HU
UNENHANCED_HU, NECROSIS_HU, CYST_HU = 36.0, 20.0, 5.0
NECROSIS_SHARE = 0.35
CORTEX_MM, SINUS_MM, MARGIN_MM = 7.0, 9.0, 12.0


@dataclass(frozen=True)
class Tumour:
    """How tumours of one patient are painted.

    Args:
        enhancement: avid, mild, or ``alike``: the mean of both, where histology says nothing or the link is cut.
        strength: factor on its enhancement, the same in all phases.
        necrosis: a core that does not enhance.
        texture: seed of where that core lies.
    """

    enhancement: Enhancement = "alike"
    strength: float = 1.0
    necrosis: bool = False
    texture: int = 0

    def hu(self, phase: Phase) -> float:
        """Its HU in a phase."""
        avid, mild = ORGAN_HU["avid"][phase], ORGAN_HU["mild"][phase]
        full = {"avid": avid, "mild": mild, "alike": (avid + mild) / 2}[self.enhancement]
        return UNENHANCED_HU + self.strength * (full - UNENHANCED_HU)


@dataclass(frozen=True)
class Body:
    """The smooth outline: centre (x, y) LPS mm, half widths of the cavity (x, y) in mm, and fat under the skin in mm."""

    center_xy: tuple[float, float]
    cavity_mm: tuple[float, float]
    fat_mm: float


def tumour_of(subtype: str | None, necrosis: bool | None, rng: np.random.Generator, *, link: bool) -> Tumour:
    """The paint of a patient's tumours from pathology, or with the link cut, alike for all but for the random strength."""
    strength, texture = float(np.exp(rng.normal(0, SPREAD))), int(rng.integers(1 << 31))
    if not link:
        return Tumour("alike", strength, False, texture)
    kind: Enhancement = "avid" if subtype in AVID else "mild" if subtype in MILD else "alike"
    return Tumour(kind, strength, bool(necrosis), texture)


def body_around(geometry: Geometry, labels: NDArray[Any], midline_x_mm: float, bmi: float | None) -> Body:
    """An outline that holds all labels, kidneys towards its back, as wide as needed; fat after the body-mass index."""
    points = geometry.to_lps(np.argwhere(labels > 0)[::50])
    low, high = points[:, 1].min(), points[:, 1].max()
    wide, tall = 132.0, max(95.0, (high - low) / 2 + 45)
    center = (midline_x_mm, float(high) + 22 - tall)
    level = (np.abs((points[:, 0] - center[0]) / wide) ** 2.5 + np.abs((points[:, 1] - center[1]) / tall) ** 2.5) ** 0.4
    grown = max(1.0, float(level.max()) / 0.93)
    return Body(center, (grown * wide, grown * tall), max(6.0, 1.5 * ((bmi or 27.0) - 18) + 5))


def paint(
    labels: NDArray[Any],
    geometry: Geometry,
    target: Geometry,
    scanner: Scanner,
    tumour: Tumour,
    body: Body,
    rng: np.random.Generator,
) -> Volume:
    """CT of a label map on `target`.

    Args:
        labels: (D, H, W) of 1 kidney, 2 tumour, 3 cyst, on `geometry`, of any orientation; partial volume comes from it.
        geometry: where the labels lie.
        target: an upright grid, of any voxel size.
        scanner: phase, kernel and noise.
        tumour: how tumours are painted.
        body: what is around.
        rng: of the noise alone.

    Returns:
        int16 HU in [-1024, 3071]; `facts` say that it is painted.

    Raises:
        ValueError: `target` is oblique.
    """
    shares = label_shares(labels, geometry, target)
    canvas = _body(target, body)
    organ = np.minimum(sum(shares.values()), np.float32(1))
    scene = canvas.hu
    scene *= 1 - organ
    scene += shares[KIDNEY] * _parenchyma(organ, target, scanner.phase)
    scene += shares[TUMOUR] * _tumour(shares[TUMOUR], target, tumour, scanner.phase)
    scene += shares[CYST] * np.float32(CYST_HU)
    blur_and_noise(canvas, scanner, rng)
    hu = np.rint(canvas.hu).clip(-1024, 3071).astype(np.int16)
    return Volume(hu, target, facts={"painted": True, "phase": scanner.phase, "kernel_mm": scanner.kernel_mm})


def label_shares(labels: NDArray[Any], geometry: Geometry, target: Geometry) -> dict[int, F32]:
    """(D, H, W) share of each target voxel that kidney, tumour and cyst take up; 0 outside the map."""
    part, place = _near(labels, geometry, target)
    shares = {}
    for label in (KIDNEY, TUMOUR, CYST):
        mask = part == label
        empty = np.zeros(target.shape_dhw, np.float32)
        shares[label] = resample(Volume(mask.astype(np.int16), place), target, fill=0.0).clip(0, 1) if mask.any() else empty
    return shares


def _near(labels: NDArray[Any], geometry: Geometry, target: Geometry) -> tuple[NDArray[Any], Geometry]:
    """The part of a map that the target can see."""
    corners = [[d, h, w] for d in (-1, 1) for h in (-1, 1) for w in (-1, 1)] * (np.array(target.shape_dhw) / 2)
    seen = geometry.to_index(target.to_lps(corners + (np.array(target.shape_dhw) - 1) / 2))
    reach = MARGIN_MM / np.array(geometry.spacing_mm)
    top = np.array(geometry.shape_dhw)
    low = np.clip(np.floor(seen.min(0) - reach).astype(int), 0, top - 1)
    high = np.clip(np.ceil(seen.max(0) + reach).astype(int) + 1, low + 1, top)
    part = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    start = (int(low[0]), int(low[1]), int(low[2]))
    return part, geometry.crop(start, part.shape)


def _body(target: Geometry, body: Body) -> Canvas:
    """Air, skin fat, muscle wall and inner fat."""
    affine = target.affine_lps.copy()
    affine[:2, 3] -= body.center_xy
    canvas = Canvas.over(Geometry(target.shape_dhw, affine), target.spacing_mm[0], 0.0)
    wall = (body.cavity_mm[0] + 12, body.cavity_mm[1] + 12)
    skin = (wall[0] + body.fat_mm, wall[1] + body.fat_mm)
    for half, hu in ((skin, FAT_HU), (wall, MUSCLE_HU), (body.cavity_mm, FAT_HU + 4)):
        canvas.hu[:] += ramp(superellipse(canvas, half), canvas.voxel_mm[0]) * (np.float32(hu) - canvas.hu)
    return canvas


def _parenchyma(organ: F32, target: Geometry, phase: Phase) -> F32:
    """(D, H, W) HU of kidney tissue: cortex within 7 mm of the outer surface (the sinus counts as inside), medulla below it."""
    cortex, medulla = ORGAN_HU["cortex"][phase], ORGAN_HU["medulla"][phase]
    inside = organ > 0.5
    if cortex == medulla or not inside.any():
        return np.full(organ.shape, cortex, np.float32)
    reach = [int(np.ceil(SINUS_MM / step)) + 1 for step in target.spacing_mm]
    box = tuple(
        slice(max(part.start - r, 0), part.stop + r)
        for part, r in zip(ndimage.find_objects(inside.astype(np.uint8))[0], reach, strict=True)
    )
    depth = ndimage.distance_transform_edt(_closed(inside[box], target), target.spacing_mm)
    hu = np.full(organ.shape, cortex, np.float32)
    hu[box] += ramp(CORTEX_MM - depth, target.spacing_mm[2]) * np.float32(medulla - cortex)
    return hu


def _closed(mask: NDArray[np.bool_], target: Geometry) -> NDArray[np.bool_]:
    """The mask with its hollows filled: grown by `SINUS_MM` and shrunk again."""
    pad = tuple(int(np.ceil(SINUS_MM / s)) + 1 for s in target.spacing_mm)
    wide = np.pad(mask, [(p, p) for p in pad])
    grown = ndimage.distance_transform_edt(~wide, target.spacing_mm) <= SINUS_MM
    back = ndimage.distance_transform_edt(grown, target.spacing_mm) > SINUS_MM
    return np.asarray((back | wide)[tuple(slice(p, -p) for p in pad)])


def _tumour(share: F32, target: Geometry, tumour: Tumour, phase: Phase) -> F32 | float:
    """HU of tumour: one value, and where necrosis is known an uneven core of `NECROSIS_SHARE` of its volume."""
    hu, inside = np.float32(tumour.hu(phase)), share > 0.5
    if not tumour.necrosis or not inside.any():
        return float(hu)
    depth = ndimage.distance_transform_edt(inside, target.spacing_mm)
    uneven = (depth / depth.max() + 0.5 * _waves(target, tumour.texture)).astype(np.float32)
    edge = np.quantile(uneven[inside], 1 - NECROSIS_SHARE)
    core = ramp((edge - uneven) * np.float32(depth.max()), 2 * target.spacing_mm[2])
    return np.asarray(hu + core * (np.float32(NECROSIS_HU) - hu), dtype=np.float32)


def _waves(target: Geometry, seed: int) -> F32:
    """(D, H, W) a smooth field in [-1, 1] that is fixed in the patient, of wavelengths of 15 to 40 mm."""
    rng = np.random.default_rng(seed)
    field = np.zeros(target.shape_dhw)
    d, h, w = (np.arange(n) for n in target.shape_dhw)
    for _ in range(6):
        direction = rng.normal(size=3)
        wave = direction / np.linalg.norm(direction) * 2 * np.pi / rng.uniform(15, 40)
        step, start = wave @ target.affine_lps[:3, :3], wave @ target.affine_lps[:3, 3] + rng.uniform(0, 2 * np.pi)
        field += np.sin(start + step[0] * d[:, None, None] + step[1] * h[:, None] + step[2] * w)
    return (field / 6).astype(np.float32)
