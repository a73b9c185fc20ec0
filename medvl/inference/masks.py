"""Regions from a user's masks instead of the localiser: one NIfTI a region, named as TotalSegmentator names its output."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medvl.errors import ConfigError
from medvl.imaging.nifti import read_labels
from medvl.models.localiser import Place

ALSO_CALLED = {"chest": ("heart",)}


def places_from_masks(folder: Path, regions: tuple[str, ...]) -> dict[str, Place]:
    """The centre of mass of each mask in `folder`, with confidence 1.

    Args:
        folder: holds REGION.nii.gz (``heart.nii.gz`` stands for the chest); any nonzero voxel counts.
        regions: names to look for.

    Returns:
        Region to place; a region without a mask, or with an empty one, is left out.

    Raises:
        ConfigError: no mask of any region is there.
        InputError: a mask cannot be read.
    """
    places = {}
    for region in regions:
        names = (region, *ALSO_CALLED.get(region, ()))
        found = [folder / f"{name}.nii.gz" for name in names if (folder / f"{name}.nii.gz").is_file()]
        if found:
            labels, geometry = read_labels(found[0])
            voxels = np.argwhere(labels > 0)
            if len(voxels):
                places[region] = Place(geometry.to_lps(voxels.mean(0)), 1.0)
    if not places:
        wanted = ", ".join(f"{name}.nii.gz" for region in regions for name in (region, *ALSO_CALLED.get(region, ())))
        raise ConfigError(f"no mask with any voxel in the masks folder; it should hold some of {wanted}")
    return places
