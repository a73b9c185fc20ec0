"""What of a scan a bundle looks at: regions found by its localiser and cut out on their grids. Needs no towers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from medvl.imaging.preprocess import MIN_COVERED, to_hu_grid
from medvl.imaging.resample import covered_fraction
from medvl.inference.answers import RegionResult
from medvl.models.bundle import Bundle
from medvl.models.config import LocaliserConfig
from medvl.models.localiser import Localiser, Place
from medvl.records import Reason, Volume


@dataclass(frozen=True, eq=False)
class Prepared:
    """One scan, ready for the towers.

    Args:
        regions: by name, in the contract's order, not yet embedded.
        age_years: if known.
        timings_s: seconds of each step so far.
    """

    regions: dict[str, RegionResult]
    age_years: float | None = None
    timings_s: dict[str, float] = field(default_factory=dict)


class Preparer:
    """The first half of a bundle: from a volume to HU grids. Loads the localiser only, so that many processes can hold one.

    Args:
        bundle: verified.
        given: places of regions known from elsewhere, such as masks; they stand above the localiser.
    """

    def __init__(self, bundle: Bundle, given: Mapping[str, Place] | None = None) -> None:
        self.contract, self.given = bundle.contract, dict(given or {})
        self.localiser = Localiser(LocaliserConfig.model_validate(bundle.values("model.json")["localiser"]))
        self.localiser.load_state_dict(bundle.tensors("weights.safetensors", "localiser."))
        self.localiser.eval()

    def __call__(self, volume: Volume, *, age_years: float | None = None) -> Prepared:
        """Find and cut out every region of a scan."""
        clock = Clock()
        places = {**self.localiser.locate(volume), **self.given}
        clock.lap("localise")
        regions = {spec.name: self._region(volume, spec.name, places[spec.name]) for spec in self.contract.regions}
        clock.lap("preprocess")
        return Prepared(regions, age_years, clock.laps)

    def _region(self, volume: Volume, name: str, place: Place) -> RegionResult:
        spec, source = self.contract[name], "mask" if name in self.given else "localiser"
        if place.confidence < self.localiser.config.min_confidence:
            least = self.localiser.config.min_confidence
            reason = Reason(
                "region_not_found", f"the localiser is {place.confidence:.2f} sure of {name}; at least {least} is needed"
            )
            return RegionResult(name, place, source, None, 0.0, None, None, (reason,))
        grid = spec.geometry(place.center_lps)
        covered = covered_fraction(volume.geometry, grid)
        reasons: tuple[Reason, ...] = ()
        if covered < MIN_COVERED:
            message = f"the scan covers {covered:.0%} of {name}; at least {MIN_COVERED:.0%} is needed"
            reasons = (Reason("region_incomplete", message),)
        hu = to_hu_grid(volume, grid, fill=self.contract.fill_hu)
        return RegionResult(name, place, source, grid, covered, None, None, reasons, hu)


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Note the seconds since the lap before."""
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 4), now
