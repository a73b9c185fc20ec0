"""One interface for every trained system: regions in, answers out, whether prompts answer or queries.

A system with aligned towers answers by the cosine with present less that with absent prompts; one with concept streams by the log
odds of its queries. Bundles and training runs ask both through the same few methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from medvl.models.encoders.base import Encoded
from medvl.models.system import System
from medvl.text.prompts import Finding, FindingList


class Read(NamedTuple):
    """What a system makes of B regions of one kind, on the CPU.

    Args:
        pooled: (B, P) float32 image features.
        embedding: (B, E) float32 unit vectors, for retrieval and survival.
        answers: (B, K) float32 from which margins follow: the embedding itself, or the log odds of every concept.
    """

    pooled: Tensor
    embedding: Tensor
    answers: Tensor


class Answering(ABC):
    """A trained system with what it is asked.

    Args:
        system: trained; read in evaluation mode, wherever it lies.
        kinds: regions by kind, in the order of the system's kinds.
        findings: questions.
        prior: region to the answers (K,) of a null image, which are taken off before margins are formed; none by default.
    """

    needs: ClassVar[frozenset[str]]

    def __init__(
        self,
        system: System,
        kinds: Mapping[str, tuple[str, ...]],
        findings: FindingList,
        prior: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.system, self.kinds, self.findings = system, dict(kinds), findings
        self.prior = dict(prior or {})

    @property
    def device(self) -> torch.device:
        """Where the system lies."""
        return next(self.system.parameters()).device

    def asked(self, region: str) -> tuple[Finding, ...]:
        """The findings asked of a region, in order."""
        return tuple(f for f in self.findings.findings if region in self.kinds.get(f.region, ()))

    @torch.no_grad()
    def read(self, pixels: Tensor, kind: int) -> Read:
        """What the system makes of pixels (B, C, D, H, W) in [0, 1] of regions of one kind."""
        return self._read(pixels, kind, self.needs)[0]

    @torch.no_grad()
    def read_keeping(self, pixels: Tensor, kind: int) -> tuple[Read, Encoded]:
        """As `read`, and what the image tower saw, in float32 and where the system lies, for `heats`."""
        read, found = self._read(pixels, kind, self.needs | {"tokens", "token_grid"})
        d, h, w = found["token_grid"].tolist()
        return read, Encoded(found["tokens"].float(), (d, h, w), found["pooled"].float())

    def _read(self, pixels: Tensor, kind: int, needs: frozenset[str]) -> tuple[Read, dict[str, Tensor]]:
        self.system.eval()
        found = self.system.represent(self._inputs(pixels, kind), needs | {"pooled"})
        answers = self.answers(found).cpu()
        return Read(found["pooled"].float().cpu(), self.embedding(answers), answers), found

    def _inputs(self, pixels: Tensor, kind: int) -> dict[str, Tensor]:
        device = self.device
        return {"pixels": pixels.to(device), "kind": torch.full((len(pixels),), kind, device=device)}

    def margins(self, region: str, answers: Tensor) -> Tensor:
        """(B, F) margins of all F findings asked of a region from (B, K) answers: one product, however many they are."""
        null = self.prior.get(region)
        return self._margins(region, answers if null is None else answers - null)

    def margin(self, finding: Finding, region: str, answers: Tensor) -> Tensor:
        """(B,) margins of one finding."""
        return self.margins(region, answers)[:, [f.key for f in self.asked(region)].index(finding.key)]

    @abstractmethod
    def answers(self, found: Mapping[str, Tensor]) -> Tensor:
        """(B, K) float32 answers from the representations in `needs`."""

    @abstractmethod
    def embedding(self, answers: Tensor) -> Tensor:
        """(B, E) unit vectors of answers."""

    @abstractmethod
    def _margins(self, region: str, answers: Tensor) -> Tensor:
        """(B, F) margins without any prior."""

    @torch.no_grad()
    def heat(self, finding: Finding, region: str, pixels: Tensor, kind: int) -> Tensor:
        """(B, d, h, w) float32 on the token grid and the CPU: how much each place speaks for a finding."""
        self.system.eval()
        return self.heats([finding], region, self.system.clip.image(pixels.to(self.device)), kind)[:, 0]

    @abstractmethod
    def heats(self, findings: Sequence[Finding], region: str, encoded: Encoded, kind: int) -> Tensor:
        """(B, F, d, h, w) heat, as `heat` gives it, of all F findings in regions that the image tower has read already."""

    @abstractmethod
    def embed_reports(self, texts: Sequence[str], labels: Sequence[Mapping[str, Any]]) -> Tensor:
        """(N, E) unit vectors of reports, from their texts or the labels read from them; in the space of `embedding`."""
