"""The nouns of reading DICOM: what was found, what it is good for, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from medvl.dicom.frames import Frame
from medvl.geometry import Geometry
from medvl.records import Reason

Verdict = Literal["volume", "refused"]


@dataclass(frozen=True, eq=False)
class Series:
    """One stack of images, or images that make none.

    Args:
        key: short stable hash of the series and of what split it; never the UID itself.
        study: the same for the study.
        modality: as tagged, such as ``"CT"``.
        n_files: files it came from, repeats included.
        verdict: ``"volume"`` when `read` gives a CT volume.
        reasons: the refusals first, then what was noticed.
        geometry: grid of the volume that `read` gives; for other modalities, of the stack as it lies; None without one.
        facts: scanner, kernel, thickness, phase hints..., plain values without identifiers.
        why: filled by `choose`.
        frames: the planes in ascending order along the normal, repeats dropped.
        stored: grid of the frames as they are, sheared under gantry tilt; None when they make none.
    """

    key: str
    study: str
    modality: str
    n_files: int
    verdict: Verdict
    reasons: tuple[Reason, ...] = ()
    geometry: Geometry | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    frames: tuple[Frame, ...] = field(default=(), repr=False)
    stored: Geometry | None = field(default=None, repr=False)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the reasons."""
        return tuple(reason.code for reason in self.reasons)

    @property
    def shape_dhw(self) -> tuple[int, int, int] | None:
        """Shape of the volume, or of the pile of images when they make none; None without images."""
        if self.geometry is not None:
            return self.geometry.shape_dhw
        if not self.frames:
            return None
        return len(self.frames), self.frames[0].encoding.rows, self.frames[0].encoding.columns


@dataclass(frozen=True)
class Rejected:
    """A file that belongs to no series.

    Args:
        path: relative to the source; for the person in front of it, never for a log.
        reason: why.
    """

    path: str
    reason: Reason


@dataclass(frozen=True, eq=False)
class Scan:
    """What a source holds, from headers alone."""

    series: tuple[Series, ...]
    rejected: tuple[Rejected, ...] = ()
