"""Maps that inference did not make: where a region speaks for a reader's own words, or is like another case's.

Results keep embeddings and no image features, so the region is read again by the viewer's bundle: from the image on the page, at
the place that the result records. What is read must give the embedding that the result holds; else no map is drawn.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from medvl.errors import ConfigError, InputError
from medvl.geometry import Geometry

from .embeddings import Vectors, other_bundle
from .extras import asking, extras
from .station import IMAGE, station
from .study import FindingRecord, RegionRecord, Study
from .volumes import heat_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvl.inference.free_heat import RegionReading
    from medvl.inference.predictor import Predictor

SAME = 0.995  # cosine of the embedding read now with the one on record
HELD = 8
_readings: OrderedDict[tuple[str, str, str, str], RegionReading] = OrderedDict()


def map_along(study: Study, vectors: Vectors, region: str, direction: NDArray[np.float64], label: str) -> FindingRecord:
    """A record whose heat map shows what each place of a region adds to the product of its embedding with `direction` (E,).

    Raises:
        ConfigError: no bundle or another one was given, it draws no such maps, or others ask for too long.
        InputError: the images are gone, or they are not those of the result.
    """
    from medvl.inference.free_heat import heat_along

    bundle = extras().opened_bundle
    if bundle is None:
        raise ConfigError("Start the viewer with --bundle NAME to see where in the image: the map is made by the model.")
    if why_not := other_bundle(study, vectors, bundle):
        raise ConfigError(why_not)
    station().picture(study.case_id, IMAGE)  # read before the model is held
    with asking() as model:
        reading = _reading(study, region, model)
        if float(reading.embedding @ vectors.by_region[region]) < SAME:
            raise InputError("image_changed", "The images read now are not those of this result, so no map is drawn from them.")
        heat = heat_along(model, reading, direction)
    peak = np.unravel_index(int(heat.argmax()), heat.shape)
    x, y, z = (float(n) for n in reading.grid.to_lps([int(n) for n in peak]))
    name = station().keep(heat_picture(heat, reading.grid))
    return FindingRecord(finding="asked", label=label, region=region, heatmap=name, peak_lps=(x, y, z))


def _reading(study: Study, region: str, model: Predictor) -> RegionReading:
    """The region as the model sees it, kept for the next question; the caller holds the model."""
    from medvl.inference.free_heat import read_region
    from medvl.records import Volume

    key = (model.bundle.sha256, study.case_id, station().version(study.case_id, IMAGE), region)
    if key not in _readings:
        picture = station().picture(study.case_id, IMAGE)
        volume = Volume(picture.voxels.astype(np.int16, copy=False), picture.geometry)
        _readings[key] = read_region(model, volume, region, _place(study, region))
        while len(_readings) > HELD:
            _readings.popitem(last=False)
    _readings.move_to_end(key)
    return _readings[key]


def _place(study: Study, region: str) -> Geometry:
    """The grid on which inference read a region.

    Raises:
        InputError: the result does not say.
    """
    found = next((r for r in study.regions if r.name == region), RegionRecord(name=region))
    if found.shape_dhw is None or found.affine_lps is None:
        raise InputError("region_unknown", "The result does not say where this region lies. Run this study again for maps of it.")
    return Geometry(found.shape_dhw, np.array(found.affine_lps))
