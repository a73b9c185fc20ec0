"""A training run's system as it answers on crops: the same interface as a bundle's, over the samples of a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medvl.data.phases import fuse
from medvl.data.targets import KindTargets
from medvl.heads.answering import Answering
from medvl.heads.ways import answering
from medvl.models.system import System
from medvl.text.prompts import Finding, FindingList
from medvl.text.relations import Concepts
from medvl.training.batches import to_pixels
from medvl.training.features import represented
from medvl.training.samples import KindData


@dataclass(frozen=True, eq=False)
class Reader:
    """A trained system with what it is asked.

    Args:
        system: trained; kinds: regions by kind; findings: questions; concepts: of streams.
    """

    system: System
    kinds: Mapping[str, KindTargets]
    findings: FindingList
    concepts: Concepts

    @property
    def streams(self) -> bool:
        """Whether concept streams answer, not prompts."""
        return self.system.streams is not None

    @cached_property
    def asked(self) -> Answering:
        """The system with its questions."""
        return answering(self.system, {name: kind.regions for name, kind in self.kinds.items()}, self.findings)

    def features(self, part: KindData, *, fuse_phases: bool = True) -> Tensor:
        """(N, P): unit embeddings, or the log odds of every concept.

        Args:
            part: whose regions.
            fuse_phases: where patients have several scans, the mean over those that hold the region, embeddings brought back to
                unit length; else the main scan alone. Scans that do not hold the region are never read.
        """
        if not fuse_phases or part.cohort.phase_hu is None:
            return self._read(part)
        there = part.there[part.texts.rows, :, part.texts.columns]
        scans: list[Tensor] = []
        used = np.flatnonzero(there.any(axis=0))
        for scan in used:
            seen, rows = part.one_scan(int(scan))
            found = self._read(seen)
            scans.append(found.new_full((len(part), found.shape[1]), torch.nan).index_copy(0, torch.from_numpy(rows), found))
        mean = torch.from_numpy(fuse(torch.stack(scans, 1).numpy(), there[:, used]))
        return mean if self.streams else functional.normalize(mean, dim=-1)

    def _read(self, part: KindData) -> Tensor:
        """(N, P) of each row's main scan."""
        return self.asked.answers(represented(self.system, part, self.asked.needs))

    def heat(self, finding: Finding, part: KindData, rows: NDArray[np.int64]) -> Tensor:
        """(n, D, H, W) evidence for a finding in rows of one region, in the main scan, from tokens to the crops' grid."""
        crops = part.crops(rows)
        region = part.cohort.regions[int(part.texts.columns[rows[0]])]
        maps = self.asked.heat(finding, region, to_pixels(crops, part.windows_hu), part.index)[:, None]
        return functional.interpolate(maps, size=crops.shape[1:], mode="trilinear")[:, 0]

    def margins(self, finding: Finding, regions: Sequence[str], features: Tensor) -> NDArray[np.float64]:
        """(N,) scores of a finding for rows with those region names."""
        out = np.zeros(len(regions))
        for region in dict.fromkeys(regions):
            rows = np.array([name == region for name in regions])
            out[rows] = self.asked.margin(finding, region, features[torch.from_numpy(rows)]).double().numpy()
        return out
