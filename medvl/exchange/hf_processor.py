"""From a scan to `pixel_values`, by the input contract that travels in `preprocessor_config.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin

from medvl.errors import ConfigError, InputError
from medvl.exchange.hf_config import kinds_of, number_of
from medvl.geometry import Geometry
from medvl.imaging.load import load
from medvl.imaging.preprocess import Contract
from medvl.models.bundle import Bundle
from medvl.models.localiser import Place
from medvl.records import Volume


class MedvlImageProcessor(ImageProcessingMixin):
    """Cuts regions out of scans on the grids, in the orientation and under the windows that the model was trained with.

    Args:
        contract: the input contract as JSON.
        kinds: name and regions of every kind, in the model's order.
    """

    model_input_names = ("pixel_values",)

    def __init__(self, contract: Mapping[str, Any], kinds: Sequence[Mapping[str, Any]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.contract = dict(contract)
        self.kinds = [dict(kind) for kind in kinds]

    def __call__(
        self,
        images: Volume | Path | str | np.ndarray,
        centers: Mapping[str, ArrayLike | Place],
        *,
        affine: ArrayLike | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Regions of one scan, ready for the model.

        Args:
            images: a scan: DICOM folder, file or zip, NIfTI, `Volume`, or HU as an array of axes as `affine` says.
            centers: region to its middle (3,) in LPS mm, or the `Place` that `MedvlModel.locate` found.
            affine: (4, 4) from indices of the array to RAS mm, as nibabel gives it; for arrays only.
            return_tensors: pt, the only one.

        Returns:
            `pixel_values` (R, C, D, H, W) float32 in [0, 1], `kind` (R,) int64, and by row `regions` (names) and `covered`, the
            share of the region inside the scan; below 0.7 `medvl infer` says nothing of a region.

        Raises:
            ConfigError: no region, an unknown one, regions of different shapes, or an array without affine.
            InputError: the file is no CT volume.
        """
        if return_tensors != "pt":
            raise ConfigError(f"medvl gives torch tensors; return_tensors is {return_tensors}, leave it out")
        volume = self.read(images, affine)
        contract = Contract.from_json(self.contract)
        cut = {name: contract.apply(volume, _center(middle), name) for name, middle in centers.items()}
        shapes = {made.pixels.shape for made in cut.values()}
        if len(shapes) != 1:
            raise ConfigError(f"regions of one call need one shape, got {sorted(shapes) or 'no region'}; ask for them one by one")
        return BatchFeature(
            {
                "pixel_values": torch.from_numpy(np.stack([made.pixels for made in cut.values()])),
                "kind": torch.tensor([number_of(self.kinds, name) for name in cut]),
                "regions": list(cut),
                "covered": [made.covered for made in cut.values()],
            }
        )

    def read(self, image: Volume | Path | str | np.ndarray, affine: ArrayLike | None = None) -> Volume:
        """A scan as HU with its place in the patient; of several series that which `medvl infer` would take.

        Raises:
            ConfigError: an array without affine.
            InputError: no CT volume there.
        """
        if isinstance(image, Volume):
            return image
        if isinstance(image, np.ndarray):
            if affine is None:
                raise ConfigError("an array of HU needs affine=, (4, 4) from its indices to RAS mm; without it left is right")
            shape = (int(image.shape[0]), int(image.shape[1]), int(image.shape[2]))
            values = image if image.dtype == np.int16 else image.astype(np.float32)
            return Volume(values.transpose(2, 1, 0), Geometry.from_ras_ijk(shape, affine))
        found = load(Path(image))
        if found.chosen is None:
            raise InputError("no_volume", "no CT volume there; see `medvl inspect`")
        return found.chosen.read()


def processor_of(bundle: Bundle) -> MedvlImageProcessor:
    """The processor of a bundle's model."""
    return MedvlImageProcessor(bundle.contract.to_json(), kinds_of(bundle))


def _center(middle: ArrayLike | Place) -> ArrayLike:
    return middle.center_lps if isinstance(middle, Place) else middle
