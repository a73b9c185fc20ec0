"""What came back from a child process, as the towers take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.batch.ledger import Claimed
from medvl.geometry import Geometry
from medvl.inference.answers import RegionResult
from medvl.inference.regions import Prepared
from medvl.models.localiser import Place
from medvl.records import Reason


@dataclass(frozen=True, eq=False)
class Ready:
    """A study that was read and waits for the towers.

    Args:
        claimed: the study.
        prepared: its regions.
        reasons: what was noticed in its series.
        source, series: where it lies and the record of the series used, as reading told them.
        pixels: SHA-256 of the HU.
    """

    claimed: Claimed
    prepared: Prepared
    reasons: tuple[Reason, ...]
    source: Mapping[str, Any]
    series: Mapping[str, Any]
    pixels: str
    timings: Mapping[str, float] = field(default_factory=dict)


def ready(claimed: Claimed, told: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> Ready:
    """The study of a child's answer.

    Raises:
        ValueError: what the child says does not fit what it sends.
    """
    grids = iter(arrays)
    regions = [_region(values, grids) for values in told["regions"]]
    prepared = Prepared({r.name: r for r in regions}, told["age_years"], dict(told["timings"]))
    reasons = tuple(Reason(str(code), str(message)) for code, message in told["reasons"])
    return Ready(claimed, prepared, reasons, told["source"], told["series"], str(told["pixels"]), dict(told["timings"]))


def _region(values: Mapping[str, Any], grids: Any) -> RegionResult:
    place = None if values["place"] is None else Place(np.array(values["place"][0]), float(values["place"][1]))
    grid = None if values["shape"] is None else Geometry(tuple(values["shape"]), np.array(values["affine"]))
    hu = next(grids) if values["hu"] else None
    if hu is not None and (grid is None or hu.shape != grid.shape_dhw):
        raise ValueError("a region's values do not fit its grid")
    reasons = tuple(Reason(str(code), str(message)) for code, message in values["reasons"])
    return RegionResult(values["name"], place, values["source"], grid, float(values["covered"]), None, None, reasons, hu)
