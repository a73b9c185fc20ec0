"""Who is asked a finding and what is so, by the truth of phantoms or by reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medvl.evaluation.phantom_truth import patient_of, truth_of
from medvl.heads.zeroshot import label_of
from medvl.text.prompts import Finding, FindingList
from medvl.training.samples import KindData


@dataclass(frozen=True, eq=False)
class Answers:
    """Who is asked a finding, and what is so.

    Args:
        rows: (n,) row numbers of the kind that have an answer.
        labels: (n,) 1 present, 0 absent.
        patients: (n,) whose.
        against: `truth` of the phantoms, or `report`: what the reports state.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]
    against: Literal["truth", "report"]

    @property
    def both(self) -> bool:
        """Whether there are present and absent ones."""
        return len(set(self.labels.tolist())) == 2


def answers(finding: Finding, part: KindData, findings: FindingList, *, reports: bool = False) -> Answers:
    """The phantoms' truth on a finding; what the reports state where a case is no phantom, or if `reports` are asked for."""
    cases = part.cohort.cases
    told = reports or any("seed" not in (cases[int(r)].get("truth") or {}) for r in part.texts.rows)
    found: list[int | None] = []
    for row, region in zip(part.texts.rows, region_names(part), strict=True):
        case = cases[int(row)]
        if told:
            found.append(label_of(finding, case["labels"][region], findings))
        else:
            found.append(truth_of(finding, region, patient_of(case["truth"])))
    rows = np.flatnonzero([label is not None for label in found])
    labels = np.array([found[int(r)] for r in rows], dtype=np.int64)
    return Answers(rows, labels, np.asarray(part.texts.rows)[rows], "report" if told else "truth")


def region_names(part: KindData) -> list[str]:
    """(N,) the region of each row."""
    return [part.cohort.regions[int(c)] for c in part.texts.columns]
