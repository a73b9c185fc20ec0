"""The two ways in which trained systems answer: prompts against regions, and queries of concept streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medvl.errors import ConfigError, did_you_mean
from medvl.heads.answering import Answering
from medvl.heads.zeroshot import pair_of, prompt_vectors, questions
from medvl.models.encoders.base import Encoded
from medvl.models.streams import grounding_map
from medvl.models.system import System
from medvl.models.text_cache import embed_cached
from medvl.text.prompts import Finding, FindingList

TEXTS = 64


class Towers(Answering):
    """Aligned towers: prompts and cosines.

    Args:
        bank: ``finding@region`` to its present and absent prompt (2, E); what is missing is embedded.
        cache: folder that keeps vectors of prompts by their hash and that of the text tower; never those of reports.
    """

    needs = frozenset({"image"})

    def __init__(
        self,
        system: System,
        kinds: Mapping[str, tuple[str, ...]],
        findings: FindingList,
        prior: Mapping[str, Tensor] | None = None,
        *,
        bank: Mapping[str, Tensor] | None = None,
        cache: Path | None = None,
    ) -> None:
        super().__init__(system, kinds, findings, prior)
        self.cache = cache
        self._given = dict(bank or {})
        self._bank: dict[str, Tensor] | None = None
        self._vectors: dict[str, tuple[Tensor, Tensor]] | None = None
        self._directions: dict[str, Tensor] = {}

    @property
    def vectors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """``finding@region`` to the unit embeddings of its present and absent prompts, each (templates, descriptors, E)."""
        if self._vectors is None:
            self._vectors = prompt_vectors(self.findings, self.kinds, self.embed_prompts)
        return self._vectors

    @property
    def bank(self) -> dict[str, Tensor]:
        """``finding@region`` to its present and absent prompts (2, E)."""
        if self._bank is None:
            names = [name for name, _, _ in questions(self.findings, self.kinds)]
            self._bank = {name: self._given[name] if name in self._given else pair_of(*self.vectors[name]) for name in names}
        return self._bank

    def direction(self, finding: Finding, region: str) -> Tensor:
        """(E,) present minus absent prompt."""
        pair = self.bank[f"{finding.key}@{region}"]
        return pair[0] - pair[1]

    def answers(self, found: Mapping[str, Tensor]) -> Tensor:
        """The embedding."""
        return found["image"]

    def embedding(self, answers: Tensor) -> Tensor:
        """The answers themselves."""
        return answers

    def _margins(self, region: str, answers: Tensor) -> Tensor:
        if region not in self._directions:
            rows = [self.direction(finding, region) for finding in self.asked(region)]
            self._directions[region] = torch.stack(rows) if rows else torch.zeros(0, answers.shape[1])
        return answers @ self._directions[region].T

    def heats(self, findings: Sequence[Finding], region: str, encoded: Encoded, kind: int) -> Tensor:
        """Contributions of each place to the margins: over the grid they add up to them, but for a constant."""
        return self.shares(torch.stack([self.direction(finding, region) for finding in findings]), encoded, kind)

    @torch.no_grad()
    def shares(self, directions: Tensor, encoded: Encoded, kind: int) -> Tensor:
        """(B, F, d, h, w) of each place in the products of the embeddings with directions (F, E), but for a constant."""
        self.system.eval()
        kinds = torch.full((len(encoded.tokens),), kind, device=self.device)
        return self.system.clip.contributions_of(encoded, kinds, directions.to(self.device))[1].float().cpu()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(N, E) unit embeddings of any texts; nothing of them is kept."""
        return self._embedded(texts, None)

    @torch.no_grad()
    def embed_prompts(self, texts: Sequence[str]) -> Tensor:
        """(N, E) unit embeddings of prompts; with a cache each is read by the tower once, by any number of runs."""
        return self._embedded(texts, self.cache)

    def _embedded(self, texts: Sequence[str], cache: Path | None) -> Tensor:
        clip = self.system.clip.eval()
        if not texts:
            return torch.zeros(0, clip.config.embed_dim)
        if cache is not None:
            states = embed_cached(clip.text, list(texts), cache, TEXTS)
        else:
            states = clip.text.embed(list(texts), batch=TEXTS)
        return functional.normalize(clip.text_projection(states.to(self.device)).float(), dim=-1).cpu()

    def embed_reports(self, texts: Sequence[str], labels: Sequence[Mapping[str, Any]]) -> Tensor:
        """Their embedded texts."""
        return self.embed_texts(texts)


class Streams(Answering):
    """Concept streams: the log odds of trained queries, and their attention as heat.

    Raises:
        ConfigError: a finding is asked that is no concept of the streams.
    """

    needs = frozenset({"finding_logits", "anatomy_logits"})

    def __init__(
        self,
        system: System,
        kinds: Mapping[str, tuple[str, ...]],
        findings: FindingList,
        prior: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(system, kinds, findings, prior)
        self.concepts = system.findings.names
        for finding in findings.findings:
            if finding.truth not in self.concepts:
                raise ConfigError(
                    f"this model answers by concept streams, which were not taught {finding.truth}, asked by {finding.key}; "
                    f"{did_you_mean(finding.truth, self.concepts)}"
                )

    def answers(self, found: Mapping[str, Tensor]) -> Tensor:
        """Log odds of every finding, then of every anatomy."""
        return torch.cat([found[name][..., 1] - found[name][..., 0] for name in ("finding_logits", "anatomy_logits")], 1).float()

    def embedding(self, answers: Tensor) -> Tensor:
        """Log odds brought to unit length."""
        return functional.normalize(answers, dim=-1)

    def column(self, finding: Finding) -> int:
        """The finding's place among the concepts."""
        return self.concepts.index(finding.truth)

    def _margins(self, region: str, answers: Tensor) -> Tensor:
        return answers[:, [self.column(finding) for finding in self.asked(region)]]

    @torch.no_grad()
    def heats(self, findings: Sequence[Finding], region: str, encoded: Encoded, kind: int) -> Tensor:
        """Attention of each finding's query, mean over heads and layers, its own highest value 1."""
        self.system.eval()
        if self.system.streams is None:
            raise ConfigError("this system has no concept streams; ask it by prompts")
        banks = self.system.concepts()
        found = self.system.streams(encoded.tokens, encoded.grid, banks["anatomies"], banks["findings"], attention=True)
        columns = [self.column(finding) for finding in findings]
        maps = [[grounding_map(each[:, column], encoded.grid) for column in columns] for each in found["finding_attention"]]
        return torch.stack([torch.stack(row) for row in maps]).cpu()

    def embed_reports(self, texts: Sequence[str], labels: Sequence[Mapping[str, Any]]) -> Tensor:
        """What the reports say of each finding (1, -1, or 0 for nothing), zero for anatomies, brought to unit length."""
        said = torch.zeros(len(labels), len(self.concepts) + len(self.system.anatomies.names))
        for row, values in enumerate(labels):
            for column, name in enumerate(self.concepts):
                said[row, column] = {0: -1.0, 1: 1.0}.get(values.get(name, -1), 0.0)
        return functional.normalize(said, dim=-1)


def answering(
    system: System,
    kinds: Mapping[str, tuple[str, ...]],
    findings: FindingList,
    *,
    bank: Mapping[str, Tensor] | None = None,
    prior: Mapping[str, Tensor] | None = None,
    cache: Path | None = None,
) -> Answering:
    """The way in which a system answers: streams where it has them, else prompts."""
    if system.streams is not None:
        return Streams(system, kinds, findings, prior)
    return Towers(system, kinds, findings, prior, bank=bank, cache=cache)
