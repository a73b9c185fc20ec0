"""Zero-shot questions: prompt banks, margins, and the labels that answer them in reports or truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medvl.text.prompts import Finding, FindingList

Embed = Callable[[list[str]], Tensor]


def questions(findings: FindingList, kinds: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, Finding, str]]:
    """(``finding@region``, finding, region) of everything that is asked; a region of another kind is asked nothing."""
    for finding in findings.findings:
        for region in kinds.get(finding.region, ()):
            yield f"{finding.key}@{region}", finding, region


def prompt_vectors(findings: FindingList, kinds: Mapping[str, tuple[str, ...]], embed: Embed) -> dict[str, tuple[Tensor, Tensor]]:
    """``finding@region`` to the unit embeddings of its present and of its absent prompts, each (templates, descriptors, E).

    Every sentence is embedded once, all of them in one call.
    """
    asked = {name: finding.prompts(region) for name, finding, region in questions(findings, kinds)}
    frames = {name: max(len(finding.templates), 1) for name, finding, _ in questions(findings, kinds)}
    texts = list(dict.fromkeys(text for sides in asked.values() for side in sides for text in side))
    if not texts:
        return {}
    place, vectors = {text: i for i, text in enumerate(texts)}, embed(texts)

    def rows(side: list[str], name: str) -> Tensor:
        found = vectors[[place[text] for text in side]]
        return found.reshape(frames[name], -1, found.shape[-1])

    return {name: (rows(sides[0], name), rows(sides[1], name)) for name, sides in asked.items()}


def pair_of(present: Tensor, absent: Tensor) -> Tensor:
    """(2, E): the mean present and mean absent prompt of (T, D, E) unit embeddings, each brought back to unit length."""
    return torch.stack([functional.normalize(side.flatten(0, 1).mean(0), dim=0) for side in (present, absent)])


def label_of(finding: Finding, labels: Mapping[str, Any], findings: FindingList) -> int | None:
    """1, 0, or None where a region's labels do not answer the finding (unmentioned, uncertain, or not asked)."""
    if finding.given is not None and labels.get(findings[finding.given].truth) != 1:
        return None
    value = labels.get(finding.truth)
    return int(value) if value in (0, 1) else None


def answered(
    finding: Finding, findings: FindingList, labels: Sequence[Mapping[str, Any]], margins: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Labels (n,), margins (n,) and row numbers (n,) of the rows that answer a finding, of (N,) labels and margins."""
    found = [label_of(finding, values, findings) for values in labels]
    rows = np.array([i for i, value in enumerate(found) if value is not None and np.isfinite(margins[i])], dtype=np.int64)
    return np.array([found[i] for i in rows], dtype=np.int64), np.asarray(margins, dtype=np.float64)[rows], rows
