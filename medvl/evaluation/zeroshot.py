"""Zero-shot questions: prompt banks, margins, and the labels that answer them in reports or truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medvl.text.prompts import Finding, FindingList

Embed = Callable[[list[str]], Tensor]


def prompt_bank(findings: FindingList, kinds: Mapping[str, tuple[str, ...]], embed: Embed) -> dict[str, Tensor]:
    """``finding@region`` to (2, E): the mean present and mean absent prompt, each brought back to unit length."""
    bank = {}
    for finding in findings.findings:
        for region in kinds[finding.region]:
            sides = [functional.normalize(embed(texts).mean(0), dim=0) for texts in finding.prompts(region)]
            bank[f"{finding.key}@{region}"] = torch.stack(sides)
    return bank


def label_of(finding: Finding, labels: Mapping[str, Any], findings: FindingList) -> int | None:
    """1, 0, or None where a region's labels do not answer the finding (unmentioned, uncertain, or not asked)."""
    if finding.given is not None and labels.get(findings[finding.given].truth) != 1:
        return None
    value = labels.get(finding.truth)
    return int(value) if value in (0, 1) else None


def answered(
    finding: Finding, findings: FindingList, rows: list[tuple[str, Mapping[str, Any], Tensor]], bank: Mapping[str, Tensor]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (N,) and margins (N,) of one finding over (region name, labels, embedding) rows that answer it."""
    labels, margins = [], []
    for region, values, embedding in rows:
        answer = label_of(finding, values, findings)
        if answer is not None and f"{finding.key}@{region}" in bank:
            pair = bank[f"{finding.key}@{region}"]
            labels.append(answer)
            margins.append(float(embedding @ (pair[0] - pair[1])))
    return np.array(labels, dtype=np.int64), np.array(margins, dtype=np.float64)
