"""Where the regions of a table's scans lie: masks where a row names some, else a bundle's localiser."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvl.errors import ConfigError, InputError

if TYPE_CHECKING:
    from medvl.data.table import Scan
    from medvl.models.localiser import Localiser
    from medvl.records import Volume


@dataclass(frozen=True)
class Locator:
    """Can be sent to worker processes; each opens the bundle once.

    Args:
        folder: of the bundle; regions: whose places are wanted.
    """

    folder: Path
    regions: tuple[str, ...]

    @cached_property
    def _localiser(self) -> Localiser:
        from medvl.training.localise import from_bundle

        return from_bundle(self.folder)

    def __call__(self, volume: Volume, scan: Scan) -> dict[str, tuple[np.ndarray, float]]:
        """Region to centre (3,) LPS mm and confidence.

        Raises:
            InputError: the masks of the row hold none of the regions.
        """
        from medvl.inference.masks import places_from_masks

        if scan.masks is None:
            places = self._localiser.locate(volume)
        else:
            try:
                places = places_from_masks(scan.masks, self.regions)
            except ConfigError as error:
                raise InputError("region_not_found", str(error)) from error
        return {name: (place.center_lps, place.confidence) for name, place in places.items()}

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "regions": self.regions}
