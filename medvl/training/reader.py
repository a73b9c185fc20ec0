"""A trained system that answers: prompts and cosines where it has towers, queries where it has concept streams."""

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
from medvl.evaluation.zeroshot import prompt_bank
from medvl.models.streams import grounding_map
from medvl.models.system import System
from medvl.text.prompts import Finding, FindingList
from medvl.text.relations import Concepts
from medvl.training.batches import to_pixels
from medvl.training.features import embed_texts, represented
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
    def bank(self) -> dict[str, Tensor]:
        """``finding@region`` to its present and absent prompts (2, E)."""
        kinds = {name: kind.regions for name, kind in self.kinds.items()}
        return prompt_bank(self.findings, kinds, lambda texts: embed_texts(self.system.clip, texts))

    def column(self, finding: Finding) -> int:
        """The finding's place among the concepts."""
        return [c.key for c in self.concepts.findings].index(finding.truth)

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
        if not self.streams:
            return represented(self.system, part, frozenset({"image"}))["image"]
        found = represented(self.system, part, frozenset({"finding_logits", "anatomy_logits"}))
        return torch.cat([_odds(found["finding_logits"]), _odds(found["anatomy_logits"])], 1)

    @torch.no_grad()
    def heat(self, finding: Finding, part: KindData, rows: NDArray[np.int64]) -> Tensor:
        """(n, D, H, W) evidence for a finding in rows of one region, in the main scan, from tokens to the crops' grid."""
        crops = part.crops(rows)
        pixels, kind = to_pixels(crops, part.windows_hu), torch.full((len(rows),), part.index)
        if self.streams:
            encoded = self.system.clip.image(pixels)
            found = self.system.represent({"pixels": pixels, "kind": kind}, frozenset({"finding_attention"}))
            shown = found["finding_attention"][:, :, self.column(finding)]
            maps = torch.stack([grounding_map(attention, encoded.grid) for attention in shown])[:, None]
        else:
            region = part.cohort.regions[int(part.texts.columns[rows[0]])]
            pair = self.bank[f"{finding.key}@{region}"]
            maps = self.system.clip.contributions(pixels, kind, (pair[0] - pair[1])[None])[1]
        return functional.interpolate(maps.float(), size=crops.shape[1:], mode="trilinear")[:, 0]

    def margins(self, finding: Finding, regions: Sequence[str], features: Tensor) -> NDArray[np.float64]:
        """(N,) scores of a finding for rows with those region names."""
        if self.streams:
            return features[:, self.column(finding)].double().numpy()
        directions = torch.stack([self.bank[f"{finding.key}@{r}"][0] - self.bank[f"{finding.key}@{r}"][1] for r in regions])
        return (features * directions).sum(1).double().numpy()


def _odds(logits: Tensor) -> Tensor:
    return logits[..., 1] - logits[..., 0]
