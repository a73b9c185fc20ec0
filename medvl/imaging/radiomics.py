"""Radiomics of a region as the Image Biomarker Standardisation Initiative defines it, computed by `mirp` in this process.

Names are those of the IBSI's reference tables: `morph_sphericity`, `cm_contrast_3D_comb`. Two standardised features are never
given: mirp estimates Moran's I and Geary's C of 1,000 voxels and more from random points, which misses the reference values and
takes nearly all of the time. What was compared is in `docs/explanation/radiomics.md`.

Source: Zwanenburg et al. 2020 (the initiative), 2024 (mirp).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError, InputError, did_you_mean
from medvl.records import Volume

Family = Literal["morph", "loc", "stat", "ih", "ivh", "cm", "rlm", "szm", "dzm", "ngt", "ngl"]
Merging = Literal["2D_avg", "2D_comb", "2_5D_avg", "2_5D_comb", "3D_avg", "3D_comb"]
FAMILIES: Mapping[str, str] = {
    "morph": "shape",
    "loc": "local intensity",
    "stat": "intensity statistics",
    "ih": "intensity histogram",
    "ivh": "intensity-volume histogram",
    "cm": "grey level co-occurrence",
    "rlm": "grey level run length",
    "szm": "grey level size zone",
    "dzm": "grey level distance zone",
    "ngt": "neighbourhood grey tone difference",
    "ngl": "neighbouring grey level dependence",
}
MERGINGS: Mapping[
    str, tuple[str, str, str]
] = {  # mirp's name for pair matrices, for zone matrices, and the IBSI's ending of the latter
    "2D_avg": ("2d_average", "2d", "2D"),
    "2D_comb": ("2d_slice_merge", "2d", "2D"),
    "2_5D_avg": ("2.5d_direction_merge", "2.5d", "2_5D"),
    "2_5D_comb": ("2.5d_volume_merge", "2.5d", "2_5D"),
    "3D_avg": ("3d_average", "3d", "3D"),
    "3D_comb": ("3d_volume_merge", "3d", "3D"),
}
LEFT_OUT = ("morph_moran_i", "morph_geary_c")
MIN_VOXELS = 64
_MIRP = {"morph": "mrp", "loc": "loc_int", "ngt": "ngtdm", "ngl": "ngldm"}
_ENDINGS = {mirp: tag for tag, (mirp, _, _) in MERGINGS.items()}
_ENDINGS |= {
    "2d_avg": "2D_avg",
    "2d_s_mrg": "2D_comb",
    "2.5d_d_mrg": "2_5D_avg",
    "2.5d_v_mrg": "2_5D_comb",
    "3d_avg": "3D_avg",
    "3d_v_mrg": "3D_comb",
    "2d": "2D",
    "2.5d": "2_5D",
    "3d": "3D",
}
_EXTRA = "radiomics needs the extra `radiomics`: pip install 'medvl[radiomics]'"


@dataclass(frozen=True)
class RadiomicsSettings:
    """What is computed, and how. The defaults give 105 features.

    Args:
        families: keys of `FAMILIES`.
        spacing_mm: of the isotropic grid that image (trilinear) and mask (trilinear, half and more) are resampled to; None leaves
            the voxels as they are.
        smooth: blur before sampling more coarsely, so that texture is not aliased; the IBSI's configurations do not.
        bin_hu: width of the grey levels, which begin at the lower end of `range_hu`.
        range_hu: voxels outside are no part of the region, save for its shape.
        merging: how co-occurrence and run length matrices of several directions become one value; zone matrices are taken in as
            many dimensions.
        ivh_bin_hu: width of the levels of the intensity-volume histogram; None takes every HU.
        margin_mm: how much around the mask is looked at; None takes the whole image, as the IBSI's grid of new voxels needs.
        min_voxels: a smaller mask, before or after resampling, is refused.

    Raises:
        ConfigError: a family or way of merging is unknown, or a number out of range.
    """

    families: tuple[Family, ...] = ("morph", "stat", "ih", "cm", "rlm")
    spacing_mm: float | None = 2.5
    smooth: bool = True
    bin_hu: float = 25.0
    range_hu: tuple[float, float] = (-1000.0, 3071.0)
    merging: Merging = "3D_comb"
    ivh_bin_hu: float | None = 2.5
    margin_mm: float | None = 15.0
    min_voxels: int = MIN_VOXELS

    def __post_init__(self) -> None:
        unknown = [str(name) for name in self.families if name not in FAMILIES]
        if unknown:
            raise ConfigError(f"there is no family of features {unknown[0]!r}; {did_you_mean(unknown[0], FAMILIES)}")
        if not self.families or self.merging not in MERGINGS:
            raise ConfigError(f"give families, and merging as one of {', '.join(MERGINGS)}; found {self.merging!r}")
        widths = {"spacing_mm": self.spacing_mm, "bin_hu": self.bin_hu, "ivh_bin_hu": self.ivh_bin_hu}
        for what, width in widths.items():
            if width is not None and not 0 < width < np.inf:
                raise ConfigError(f"{what} must be above 0, found {width}")
        if self.margin_mm is not None and not self.margin_mm >= 0:
            raise ConfigError(f"margin_mm must be 0 or more, found {self.margin_mm}")
        if not self.range_hu[0] < self.range_hu[1] or self.min_voxels < 1:
            raise ConfigError(f"range_hu {self.range_hu} must rise, and min_voxels {self.min_voxels} be 1 or more")


DEFAULT = RadiomicsSettings()


def radiomics(volume: Volume, mask: NDArray[Any], *, settings: RadiomicsSettings = DEFAULT) -> Mapping[str, float]:
    """Features of one region, by IBSI name, in the order of `FAMILIES`.

    About 0.25 CPU seconds for a kidney on 2.5 mm voxels. A feature that is not defined for the region (the skewness of one single
    value) is NaN. Which way the axes are stored makes no difference; slices, where they count, are those nearest to axial.

    Args:
        volume: HU on any grid with right angles.
        mask: (D, H, W) of the same grid; above 0 is the region.
        settings: what and how.

    Raises:
        InputError: ``empty_mask`` or ``small_mask``, before or after resampling and cutting to `range_hu`; ``bad_geometry``.
        ConfigError: the mask does not fit the volume, or mirp is not installed.
    """
    if mask.shape != volume.hu.shape:
        raise ConfigError(f"mask {mask.shape} does not fit the volume {volume.hu.shape}; resample it to the same grid")
    if volume.geometry.shear_deg > 0.1:
        raise InputError("bad_geometry", f"axes are {volume.geometry.shear_deg:.2f} degrees off right angles; resample first")
    hu, region, spacing = _upright(volume, mask > 0)
    _enough(int(region.sum()), settings, "the mask holds")
    if settings.margin_mm is not None:
        box = _box(region, spacing, settings.margin_mm)
        hu, region = hu[box], region[box]
    with _quiet():
        image, mirps_mask = _prepare(hu, region, spacing, settings)
        kept = np.asarray(mirps_mask.roi_intensity.get_voxel_grid()) > 0
        _enough(
            int(kept.sum()), settings, f"on the grid of {settings.spacing_mm or 'its own'} mm and in {settings.range_hu} HU are"
        )
        return _compute(image, mirps_mask, settings)


def _enough(n: int, settings: RadiomicsSettings, where: str) -> None:
    if not n:
        raise InputError("empty_mask", f"{where} no voxels; is it of this patient and this grid?")
    if n < settings.min_voxels:
        raise InputError("small_mask", f"{where} {n} voxels; texture needs {settings.min_voxels} (RadiomicsSettings.min_voxels)")


def _upright(
    volume: Volume, mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[float, float, float]]:
    """HU and mask with axes SPL, and the spacing along these."""
    axes = volume.geometry.axes
    order = [next(i for i, letter in enumerate(axes) if letter in pair) for pair in ("SI", "PA", "LR")]
    flips = tuple(slice(None, None, 1 if axes[i] in "SPL" else -1) for i in order)
    spacing = [volume.geometry.spacing_mm[i] for i in order]
    hu, region = (np.ascontiguousarray(array.transpose(order)[flips]) for array in (volume.hu, mask))
    return hu.astype(np.float32), region, (spacing[0], spacing[1], spacing[2])


def _box(region: NDArray[np.bool_], spacing: tuple[float, float, float], margin_mm: float) -> tuple[slice, ...]:
    found = (np.flatnonzero(region.any(tuple(k for k in range(3) if k != axis))) for axis in range(3))
    reach = (int(np.ceil(margin_mm / step)) for step in spacing)
    return tuple(slice(max(int(at[0]) - r, 0), int(at[-1]) + r + 1) for at, r in zip(found, reach, strict=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep mirp from setting up the program's own logging, which it does where no handler is there yet."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _prepare(
    hu: NDArray[np.float32], region: NDArray[np.bool_], spacing: tuple[float, float, float], settings: RadiomicsSettings
) -> tuple[Any, Any]:
    """Mirp's own image and mask after resampling and cutting to the range of HU."""
    try:
        from mirp import extract_images
        from mirp.data_import.import_image import import_image
        from mirp.data_import.import_mask import import_mask
    except ImportError as error:
        raise ConfigError(_EXTRA) from error
    (image,) = import_image(hu, image_modality="ct")
    (mask,) = import_mask(region.astype(np.uint8))
    image.image_spacing = mask.image_spacing = spacing
    ((images, masks),) = extract_images(
        image=image,
        mask=mask,
        image_export_format="native",
        new_spacing=settings.spacing_mm,
        spline_order=1,
        anti_aliasing=settings.smooth,
        roi_spline_order=1,
        resegmentation_intensity_range=[float(v) for v in settings.range_hu],
    )
    if not masks:
        raise InputError("empty_mask", f"nothing of the mask is left on a grid of {settings.spacing_mm} mm; is it a speck?")
    return images[0], masks[0][0] if isinstance(masks[0], list) else masks[0]


def _compute(image: Any, mask: Any, settings: RadiomicsSettings) -> dict[str, float]:
    """Values by IBSI name. mirp's own command computes all of a family or nothing, so its parts are called."""
    from mirp._features.feature_generator import generate_features
    from mirp.settings.feature_parameters import FeatureExtractionSettingsClass

    pairs, zones, _ = MERGINGS[settings.merging]
    how = FeatureExtractionSettingsClass(
        base_feature_families=[_MIRP.get(name, name) for name in settings.families],
        base_discretisation_method="fixed_bin_size",
        base_discretisation_bin_width=float(settings.bin_hu),
        ivh_discretisation_method="none" if settings.ivh_bin_hu is None else "fixed_bin_size",
        ivh_discretisation_bin_width=settings.ivh_bin_hu,
        glcm_spatial_method=pairs,
        glrlm_spatial_method=pairs,
        **{f"{family}_spatial_method": zones for family in ("glszm", "gldzm", "ngtdm", "ngldm")},
    )
    wanted = [f for f in generate_features(settings=how) if f.abbr_name not in LEFT_OUT and f.is_ibsi_compliant(image=image)]
    before = None
    for feature in wanted:
        feature.compute(image=image, mask=mask)
        feature.create_table_name()
        if before is not None:
            before.clear_local_cache(other=feature)
        before = feature
    for feature in wanted:
        feature.clear_cache()
    values = {ibsi_name(str(feature.table_name)): float(feature.value) for feature in wanted}
    rank = list(FAMILIES)
    return {name: values[name] for name in sorted(values, key=lambda name: rank.index(name.partition("_")[0]))}


def ibsi_name(column: str) -> str:
    """The IBSI's name of what mirp calls `cm_contrast_d1_3d_v_mrg_fbs_w25.0`."""
    name = re.sub(r"_fb[sn]_[wn][\d.]+$", "", column)
    name = re.sub(r"_d1(\.0)?(_a0\.0)?(?=_\d)", "", name)
    ending = re.search(r"_(2d|2\.5d|3d)(_\w+)?$", name)
    return name if ending is None else name[: ending.start() + 1] + _ENDINGS[ending.group()[1:]]
