"""Findings and anatomies as queries (MeDSLIP): is it there, which of the other stream does it go with, are the two linked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from medvl.errors import ConfigError
from medvl.objectives.attributes import masked_bce, masked_cross_entropy
from medvl.objectives.registry import Objective, Options, Scene


def relations_of(scene: Scene, objective: str, device: torch.device) -> Tensor:
    """(B, A, F) int8 relations of the scene.

    Raises:
        ConfigError: it has none.
    """
    if scene.relations is None:
        raise ConfigError(f"objective {objective}: no relations of {scene.kind}; name a relation ontology in the recipe's data")
    return scene.relations.to(device)


def existence_labels(relations: Tensor) -> tuple[Tensor, Tensor]:
    """Findings (B, F) and anatomies (B, A) that (B, A, F) relations call present (1) or absent (0) somewhere, else -1.

    Present anywhere outweighs absent elsewhere.
    """
    return relations.amax(1), relations.amax(2)


class Existence(Objective):
    """Is each finding there, and is anything at each anatomy: cross-entropy over what is mentioned, summed over both streams.

    Source: MeDSLIP (arXiv 2403.10635), L_Exist = CE_P + CE_A. No departure; as there, an anatomy counts as present even when all
    that is seen of it is normal.
    """

    needs = ("finding_logits", "anatomy_logits")

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from finding logits (B, F, 2) and anatomy logits (B, A, 2), the second logit being present."""
        relations = relations_of(scene, "existence", found["finding_logits"].device)
        pairs = zip(("finding_logits", "anatomy_logits"), existence_labels(relations), strict=True)
        terms = [masked_cross_entropy(found[name].float().flatten(0, 1), known.flatten().long()) for name, known in pairs]
        return terms[0] + terms[1]


def draw_negatives(candidates: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Bool of the shape of bool `candidates`: up to `n` of each last-dimension row's candidates, uniform without replacement."""
    keys = torch.rand(candidates.shape, generator=generator, device=generator.device).to(candidates.device)
    keys = keys.masked_fill(~candidates, -1.0)
    picks = keys.topk(min(n, candidates.shape[-1]), dim=-1).indices
    return torch.zeros_like(candidates).scatter(-1, picks, True) & candidates


def prototype_contrast(queries: Tensor, bank: Tensor, positives: Tensor, negatives: Tensor, temperature: float | None) -> Tensor:
    """() mean loss of the queries that have a positive and a negative, each told apart from its negatives by its prototype.

    Args:
        queries: (B, Q, C) in the bank's space.
        bank: (N, C) concepts of the other stream.
        positives: (B, Q, N) bool; a query's prototype is the mean of these concepts.
        negatives: (B, Q, N) bool.
        temperature: of cosines; None for raw dot products.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries, bank = queries.float(), bank.to(queries.device).float()
        weights = positives.float() / positives.sum(-1, keepdim=True).clamp_min(1)
        prototypes = torch.einsum("bqn,nc->bqc", weights, bank)
        if temperature is not None:
            queries, bank, prototypes = (functional.normalize(values, dim=-1) for values in (queries, bank, prototypes))
        own = (queries * prototypes).sum(-1, keepdim=True)
        others = torch.einsum("bqc,nc->bqn", queries, bank).masked_fill(~negatives, -torch.inf)
    logits = torch.cat([own, others], -1) / (1.0 if temperature is None else temperature)
    usable = positives.any(-1) & negatives.any(-1)
    loss = torch.logsumexp(logits, -1) - logits[..., 0]
    return (loss * usable).sum() / usable.sum().clamp_min(1)


class PrototypeOptions(Options):
    """How queries and prototypes are compared.

    Args:
        n_negatives: drawn for each query; where fewer exist, all of them.
        form: `cosine` over `temperature`; `raw` dot products, as released.
        temperature: of the cosines.
        exclude_anatomies: numbers of anatomies that are no places, such as "unspecified"; negative ones count from the end.
        exclude_findings: numbers of findings that are no findings, such as "other".
    """

    n_negatives: int = Field(7, ge=1)
    form: Literal["cosine", "raw"] = "cosine"
    temperature: float = Field(0.1, gt=0)
    exclude_anatomies: tuple[int, ...] = ()
    exclude_findings: tuple[int, ...] = ()


class PrototypeContrastive(Objective):
    """Each present finding against the mean text of its anatomies, with other anatomies as negatives; and the other way round.

    Source: MeDSLIP (arXiv 2403.10635), ProtoCL: -log exp(u c_0) / sum_k exp(u c_k), negatives drawn uniformly without replacement
    from what is absent or unmentioned, mean over all positives, summed over both streams.
    Departures: cosines over a temperature instead of raw dot products (`form: raw`); a query without any negative is left out
    of the mean, where the release fails with fewer negatives than asked for; rows that are no places can be left out.
    """

    options_type = PrototypeOptions
    needs = ("finding_prototype", "anatomy_prototype")
    options: PrototypeOptions

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from finding (B, F, C) and anatomy (B, A, C) queries in the concept space.

        Raises:
            ConfigError: the scene lacks a bank or the generator, or an excluded number is no concept.
        """
        if scene.generator is None or scene.concepts is None or not {"findings", "anatomies"} <= set(scene.concepts):
            raise ConfigError(
                f"objective prototype_contrastive: {scene.kind} lacks a generator or the banks findings and anatomies; "
                "give the recipe's model a concept bank of each"
            )
        relations = relations_of(scene, "prototype_contrastive", found["finding_prototype"].device)
        kept = self._kept(relations)
        present, other = (relations == 1) & kept, (relations != 1) & kept
        loss = relations.new_zeros((), dtype=torch.float32)
        for stream, bank, turn in (("finding_prototype", "anatomies", True), ("anatomy_prototype", "findings", False)):
            positives, candidates = (m.transpose(1, 2) if turn else m for m in (present, other))
            negatives = draw_negatives(candidates, self.options.n_negatives, scene.generator)
            temperature = self.options.temperature if self.options.form == "cosine" else None
            loss = loss + prototype_contrast(found[stream], scene.concepts[bank], positives, negatives, temperature)
        return loss

    def _kept(self, relations: Tensor) -> Tensor:
        """(A, F) bool, False in excluded rows and columns."""
        kept = torch.ones(relations.shape[1:], dtype=torch.bool, device=relations.device)
        for numbers, axis in ((self.options.exclude_anatomies, 0), (self.options.exclude_findings, 1)):
            if any(not -kept.shape[axis] <= number < kept.shape[axis] for number in numbers):
                raise ConfigError(f"objective prototype_contrastive: cannot exclude {numbers} of {kept.shape[axis]} concepts")
            kept.index_fill_(axis, torch.tensor([n % kept.shape[axis] for n in numbers], device=kept.device).long(), False)
        return kept


class RelationOptions(Options):
    """`scale`: logits are dot products over the root of their width; or `raw`, as released."""

    scale: Literal["root_width", "raw"] = "root_width"


class RelationPrediction(Objective):
    """Is each finding at each anatomy: masked cross-entropy of dot products of the two streams' states.

    Source: MeDSLIP (arXiv 2403.10635), ICL: mean BCE(<H_A[a], H_F[j]>, M[a, j]) over M >= 0.
    Departure: logits are divided by sqrt(H), else a width of 256 starts with logits of +-16 (`scale: raw`).
    """

    options_type = RelationOptions
    needs = ("finding_states", "anatomy_states")
    options: RelationOptions

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from finding states (B, F, H) and anatomy states (B, A, H)."""
        findings, anatomies = found["finding_states"].float(), found["anatomy_states"].float()
        with torch.autocast(findings.device.type, enabled=False):
            logits = torch.einsum("bah,bfh->baf", anatomies, findings)
        if self.options.scale == "root_width":
            logits = logits / math.sqrt(findings.shape[-1])
        return masked_bce(logits, relations_of(scene, "relation_prediction", logits.device))
