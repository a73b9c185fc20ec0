"""Nouns that more than one package needs. Everything here is frozen; arrays are (D, H, W)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.geometry import Geometry

RESEARCH_USE = "Research software. Not a medical device; not for diagnosis or treatment."


@dataclass(frozen=True)
class Reason:
    """Why something was noticed, changed, refused or left undecided.

    Args:
        code: snake_case code listed in `docs/reference/reason-codes.md`.
        message: one sentence with the value and the next step, free of patient identifiers.
    """

    code: str
    message: str


@dataclass(frozen=True, eq=False)
class Volume:
    """CT values with their place in the patient.

    Args:
        hu: (D, H, W) int16 or float32 Hounsfield units.
        geometry: where those voxels lie.
        reasons: warnings that did not prevent reading, such as ``tilt_resampled``.
        facts: plain values worth keeping (kernel, phase, scanner...), free of patient identifiers.
    """

    hu: NDArray[Any]
    geometry: Geometry
    reasons: tuple[Reason, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.hu.shape != self.geometry.shape_dhw:
            raise ValueError(f"array {self.hu.shape} does not fit geometry {self.geometry.shape_dhw}")
        if self.hu.dtype not in (np.dtype(np.int16), np.dtype(np.float32)):
            raise ValueError(f"hu must be int16 or float32, got {self.hu.dtype}")
