"""Where one region speaks for any direction of the model's space: a reader's own words, or the embedding of another region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.heads.ways import Towers
from medvl.imaging.preprocess import to_hu_grid
from medvl.inference.chunks import read_parts
from medvl.inference.explaining import spread_out
from medvl.inference.predictor import Predictor
from medvl.models.encoders.base import Encoded
from medvl.records import Volume


@dataclass(frozen=True, eq=False)
class RegionReading:
    """One region of a scan as the image tower saw it.

    Args:
        region: its name; grid: where it lies.
        encoded: one row.
        embedding: (E,) float32 of unit length.
    """

    region: str
    grid: Geometry
    encoded: Encoded
    embedding: NDArray[np.float32]


def read_region(model: Predictor, volume: Volume, region: str, grid: Geometry) -> RegionReading:
    """Read the part of a scan that lies on `grid`, as inference does with the places it found."""
    hu = to_hu_grid(volume, grid, fill=model.contract.fill_hu)
    kind = model.number_of(region)
    read, encoded = read_parts(model.answering, lambda _: model.pixels(hu, region), 1, kind, bf16=model.bf16)
    return RegionReading(region, grid, encoded[0], read.embedding[0].numpy())


def heat_along(model: Predictor, reading: RegionReading, direction: ArrayLike) -> NDArray[np.float32]:
    """(D, H, W) in [0, 1], the highest value 1: what each place adds to the product of the region's embedding with `direction`.

    Args:
        model: that made the reading.
        reading: of the region.
        direction: (E,) such as a text's embedding less that of its negation.

    Raises:
        ConfigError: the model answers by concept streams, whose space has no places.
    """
    if not isinstance(model.answering, Towers):
        raise ConfigError(f"bundle {model.bundle.name} answers by concept streams; it draws maps of its own concepts only")
    along = torch.as_tensor(np.asarray(direction, dtype=np.float32))[None]
    shares = model.answering.shares(along, reading.encoded, model.number_of(reading.region))
    return np.asarray(spread_out(shares[0], reading.grid.shape_dhw)[0])
