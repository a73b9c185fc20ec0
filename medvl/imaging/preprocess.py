"""The preprocessing contract: which grid, axes and windows a model takes, and the one path from a volume to that input.

Inference and training caches share it: a crop is one resampling to the region's SPL grid rounded to int16 HU
(`to_hu_grid`), and the windows are cut from that (`window`). See `docs/reference/preprocessing-contract.md`.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.resample import covered_fraction, resample
from medvl.records import Volume

AXES = "SPL"
CONTRACT_VERSION = 1
MIN_COVERED = 0.7  # share of a region that a scan must hold for the region to be used, in training and after
FILL_HU = -1024.0


@dataclass(frozen=True)
class RegionSpec:
    """The input of one model region. Its axes are always SPL.

    Args:
        name: of the region, such as ``"kidney"``.
        grid_dhw: voxels along D, H, W.
        spacing_mm: distance between voxel centres along D, H, W.
        windows_hu: one (low, high) per channel, in HU, mapped to [0, 1].

    Raises:
        ConfigError: an empty name, a grid or spacing that is not three positive numbers, or a window whose high is not
            above its low.
    """

    name: str
    grid_dhw: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    windows_hu: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        grid = tuple(int(n) for n in self.grid_dhw)
        spacing = tuple(float(s) for s in self.spacing_mm)
        windows = tuple((float(low), float(high)) for low, high in self.windows_hu)
        where = f"region {self.name!r} of the preprocessing contract"
        if not self.name:
            raise ConfigError("a region of the preprocessing contract has no name; give it one")
        if len(grid) != 3 or min(grid) < 1:
            raise ConfigError(f"{where}: grid_dhw must be three positive whole numbers, found {list(self.grid_dhw)}")
        if len(spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing):
            raise ConfigError(f"{where}: spacing_mm must be three positive numbers, found {list(self.spacing_mm)}")
        if not windows or not all(math.isfinite(low) and math.isfinite(high) and low < high for low, high in windows):
            raise ConfigError(f"{where}: windows_hu needs (low, high) pairs with low < high, found {list(self.windows_hu)}")
        object.__setattr__(self, "grid_dhw", grid)
        object.__setattr__(self, "spacing_mm", spacing)
        object.__setattr__(self, "windows_hu", windows)

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Edge lengths of the grid along D, H, W in mm, voxel borders included."""
        d, h, w = (n * s for n, s in zip(self.grid_dhw, self.spacing_mm, strict=True))
        return d, h, w

    def geometry(self, center_lps: ArrayLike) -> Geometry:
        """The SPL grid of this region whose middle lies at `center_lps` (3,), in mm."""
        return Geometry.centered(center_lps, self.grid_dhw, self.spacing_mm)


@dataclass(frozen=True)
class Contract:
    """What a model's inputs must be; it travels in the bundle, and its hash with every result.

    Args:
        regions: at least one, with different names.
        fill_hu: HU outside the scan.
        version: of this format; a reader refuses any other.

    Raises:
        ConfigError: no region, a repeated name, a fill that is not an int16 number, or an unknown version.
    """

    regions: tuple[RegionSpec, ...]
    fill_hu: float = FILL_HU
    version: int = CONTRACT_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "regions", tuple(self.regions))
        object.__setattr__(self, "fill_hu", float(self.fill_hu))
        names = [spec.name for spec in self.regions]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"a preprocessing contract needs regions with different names, found {names}")
        if not (-32768 <= self.fill_hu <= 32767 and self.fill_hu.is_integer()):
            raise ConfigError(f"fill_hu must be a whole number of HU that fits int16, found {self.fill_hu}")
        if self.version != CONTRACT_VERSION:
            raise ConfigError(
                f"preprocessing contract version {self.version} is not {CONTRACT_VERSION}, the one this medvl reads; "
                "install the medvl that wrote the bundle or make the bundle again"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Region names, in order."""
        return tuple(spec.name for spec in self.regions)

    def __getitem__(self, name: str) -> RegionSpec:
        """The region called `name`.

        Raises:
            ConfigError: there is none.
        """
        for spec in self.regions:
            if spec.name == name:
                return spec
        known = ", ".join(spec.name for spec in self.regions)
        raise ConfigError(f"the preprocessing contract has no region {name!r}; it has: {known}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values that `from_json` turns back into an equal contract with the same hash."""
        regions = [
            {
                "name": spec.name,
                "grid_dhw": list(spec.grid_dhw),
                "spacing_mm": list(spec.spacing_mm),
                "windows_hu": [list(pair) for pair in spec.windows_hu],
            }
            for spec in self.regions
        ]
        return {"version": self.version, "axes": AXES, "fill_hu": self.fill_hu, "regions": regions}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Contract:
        """The contract that `to_json` wrote.

        Raises:
            ConfigError: a key is missing or unknown, the axes are not SPL, or a value is out of range.
        """
        _expect_keys(values, {"version", "axes", "fill_hu", "regions"}, "the preprocessing contract")
        if values["axes"] != AXES:
            raise ConfigError(f"the preprocessing contract must have axes {AXES!r}, found {values['axes']!r}")
        specs = []
        for entry in values["regions"]:
            _expect_keys(entry, {"name", "grid_dhw", "spacing_mm", "windows_hu"}, "a region of the preprocessing contract")
            try:
                windows = tuple((float(low), float(high)) for low, high in entry["windows_hu"])
                grid = cast(tuple[int, int, int], tuple(int(n) for n in entry["grid_dhw"]))
                spacing = cast(tuple[float, float, float], tuple(float(s) for s in entry["spacing_mm"]))
            except (TypeError, ValueError) as error:
                raise ConfigError(f"region {entry['name']!r} of the preprocessing contract is malformed: {error}") from error
            specs.append(RegionSpec(str(entry["name"]), grid, spacing, windows))
        return cls(tuple(specs), float(values["fill_hu"]), int(values["version"]))

    @cached_property
    def hash(self) -> str:
        """SHA-256 (64 hex digits) of the canonical JSON: sorted keys, no spaces, UTF-8."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def apply(self, volume: Volume, center_lps: ArrayLike, name: str) -> ModelInput:
        """Input of region `name` around `center_lps` (3,) mm, stamped with this contract's hash.

        Raises:
            ConfigError: no such region.
        """
        return preprocess(volume, center_lps, self[name], fill=self.fill_hu, contract_hash=self.hash)


@dataclass(frozen=True, eq=False)
class ModelInput:
    """What an encoder takes.

    Args:
        pixels: (C, D, H, W) float32 in [0, 1], one channel per window.
        geometry: of the SPL grid.
        covered: fraction in [0, 1] of the grid's voxels inside the scan.
        contract_hash: of the contract that made it; empty where a bare `RegionSpec` was used.
    """

    pixels: NDArray[np.float32]
    geometry: Geometry
    covered: float
    contract_hash: str = ""


def preprocess(
    volume: Volume, center_lps: ArrayLike, spec: RegionSpec, *, fill: float = FILL_HU, contract_hash: str = ""
) -> ModelInput:
    """Model input of the region `spec` around `center_lps`.

    Args:
        volume: the scan, in HU.
        center_lps: (3,) LPS mm of the middle of the grid.
        spec: grid, spacing and windows.
        fill: HU outside the scan.
        contract_hash: kept in the result.

    Returns:
        Pixels equal to ``window(to_hu_grid(...))``, the path that training caches take.
    """
    geometry = spec.geometry(center_lps)
    pixels = window(to_hu_grid(volume, geometry, fill=fill), spec.windows_hu)
    return ModelInput(pixels, geometry, covered_fraction(volume.geometry, geometry), contract_hash)


def to_hu_grid(volume: Volume, geometry: Geometry, *, fill: float = FILL_HU) -> NDArray[np.int16]:
    """`volume` on `geometry` as (D, H, W) int16 HU, rounded to the nearest whole number (half to even)."""
    hu = resample(volume, geometry, fill=fill)
    np.rint(hu, out=hu)
    return np.clip(hu, -32768, 32767, out=hu).astype(np.int16)


def window(hu: NDArray[Any], windows_hu: tuple[tuple[float, float], ...]) -> NDArray[np.float32]:
    """(..., C, D, H, W) float32 in [0, 1] of (..., D, H, W) HU: a channel per (low, high), 0 up to low and 1 from high on."""
    out = np.empty((*hu.shape[:-3], len(windows_hu), *hu.shape[-3:]), dtype=np.float32)
    for number, (low, high) in enumerate(windows_hu):
        channel = out[..., number, :, :, :]
        np.subtract(hu, np.float32(low), out=channel, dtype=np.float32)
        np.divide(channel, np.float32(high - low), out=channel)
        np.clip(channel, 0.0, 1.0, out=channel)
    return out


def _expect_keys(values: Any, keys: set[str], where: str) -> None:
    """Raise ConfigError unless `values` is a mapping with exactly `keys`."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a mapping, found {type(values).__name__}")
    found = {str(key) for key in values}
    if found != keys:
        raise ConfigError(f"{where}: missing keys {sorted(keys - found)}, unknown keys {sorted(found - keys)}")
