"""Why many findings in many regions were said: heat maps and deletion tests with as few readings of regions as they allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medvl.evaluation.calibration import Calibration
from medvl.geometry import Geometry
from medvl.heads.answering import Answering, Read
from medvl.inference.answers import RegionResult
from medvl.inference.chunks import parts
from medvl.inference.evidence import Evidence, elsewhere, evidence_of, peak_of, without_ball
from medvl.models.encoders.base import Encoded
from medvl.text.prompts import Finding

Place = tuple[int, int, int]
Shown = tuple[NDArray[np.float32], Evidence]
Hu = NDArray[np.int16]
_MADE = 32  # versions of regions that are in memory at once


@dataclass(frozen=True, eq=False)
class Asked:
    """What is to be explained of one region.

    Args:
        region: with its HU.
        encoded: the region as the image tower saw it, one row.
        findings: calibrated.
        before: their scores (F,).
    """

    region: RegionResult
    encoded: Encoded
    findings: Sequence[Finding]
    before: Sequence[float]

    @property
    def hu(self) -> Hu:
        """(D, H, W)."""
        assert self.region.hu is not None  # noqa: S101 - only usable regions are explained
        return self.region.hu

    @property
    def grid(self) -> Geometry:
        """Where the region lies."""
        assert self.region.geometry is not None  # noqa: S101 - only usable regions are explained
        return self.region.geometry


def spread_out(shares: Tensor, shape: Sequence[int]) -> NDArray[np.float32]:
    """Heat (F, D, H, W) in [0, 1] from shares (F, d, h, w) on the token grid, the highest value of each 1."""
    fine = functional.interpolate(shares.clamp_min(0)[:, None], size=list(shape), mode="trilinear", align_corners=False)[:, 0]
    return np.asarray((fine / fine.amax((1, 2, 3), keepdim=True).clamp_min(1e-9)).numpy(), dtype=np.float32)


class Explainer:
    """Explains what a system says.

    Args:
        answering: the system.
        calibration: by finding.
        kind_of: number of the kind to which a region belongs.
        read: what the system makes of HU grids of regions of one kind.
    """

    def __init__(
        self,
        answering: Answering,
        calibration: Mapping[str, Calibration],
        kind_of: Callable[[str], int],
        read: Callable[[Sequence[Hu], Sequence[str]], Read],
    ) -> None:
        self.answering, self.calibration, self.kind_of, self.read = answering, calibration, kind_of, read

    def __call__(self, asked: Sequence[Asked]) -> list[list[Shown]]:
        """Heat map (D, H, W) float32 in [0, 1] and deletion test of every finding of every region."""
        heats = [self.heats(one) for one in asked]
        peaks = [[peak_of(heat) for heat in maps] for maps in heats]
        controls = [{p: elsewhere(one.hu.shape, one.grid, p) for p in each} for one, each in zip(asked, peaks, strict=True)]
        trials = [
            (row, place)
            for row, per_peak in enumerate(controls)
            for place in dict.fromkeys(at for peak, others in per_peak.items() for at in (peak, *others))
        ]
        margins = self._margins(asked, trials)
        return [
            [
                (heat, self._evidence(one, k, peak, [margins[row, place] for place in (peak, *controls[row][peak])]))
                for k, (heat, peak) in enumerate(zip(heats[row], peaks[row], strict=True))
            ]
            for row, one in enumerate(asked)
        ]

    def heats(self, asked: Asked) -> NDArray[np.float32]:
        """(F, D, H, W) heat maps of the findings of one region."""
        name = asked.region.name
        return spread_out(self.answering.heats(asked.findings, name, asked.encoded, self.kind_of(name))[0], asked.hu.shape)

    def _margins(self, asked: Sequence[Asked], trials: Sequence[tuple[int, Place]]) -> dict[tuple[int, Place], Tensor]:
        """Margins (F,) of all findings of a region, by region and the ball that was taken away; each ball is read once."""
        kinds = [self.kind_of(one.region.name) for one in asked]
        found: dict[tuple[int, Place], Tensor] = {}
        for _, same in groupby(sorted(trials, key=lambda trial: kinds[trial[0]]), key=lambda trial: kinds[trial[0]]):
            for part in parts(list(same), _MADE):
                names = [asked[row].region.name for row, _ in part]
                versions = [without_ball(asked[row].hu, asked[row].grid, place) for row, place in part]
                answers = self.read(versions, names).answers
                for (row, place), name, answer in zip(part, names, answers, strict=True):
                    found[row, place] = self.answering.margins(name, answer[None])[0]
        return found

    def _evidence(self, asked: Asked, k: int, peak: Place, margins: Sequence[Tensor]) -> Evidence:
        """From margins without the peak and without as much elsewhere; `k` is the finding's number in `asked`."""
        finding = asked.findings[k]
        column = [f.key for f in self.answering.asked(asked.region.name)].index(finding.key)
        calibrated = self.calibration[finding.key].probability(torch.stack(list(margins))[:, column].double().numpy())
        after, *controls = (float(p) for p in calibrated)
        return evidence_of(asked.grid, peak, asked.before[k], after, controls)
