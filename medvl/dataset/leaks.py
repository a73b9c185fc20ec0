"""Pairs of cases under different patient ids that may be one patient: same accession, nearly the same image or report.

Reports are compared as `medvl.evaluation.leaks` does, by word five-grams that are not boilerplate; images by `likeness`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import sparse

from medvl.dataset.likeness import near_pairs, unpacked
from medvl.evaluation.leaks import COMMON_LEAST, COMMON_SHARE, shingles
from medvl.evaluation.protocol import LeakLimits

IMAGE_LIKENESS = 0.975  # 60 phantoms and 9 real scans: 0.967 at most between two bodies; see docs/reference/manifest.md


@dataclass(frozen=True)
class Facts:
    """What is compared of a case: whose it is, its accession number, the hash and small picture of its scan, its report."""

    patient: str
    accession: str
    sha256: str
    picture: str
    report: str


@dataclass(frozen=True)
class Pair:
    """Two cases, by their numbers, of different patient ids; `kind` is accession, image or report; `likeness` from 0 to 1."""

    first: int
    second: int
    kind: str
    likeness: float


def find_pairs(cases: Sequence[Facts], limits: LeakLimits | None = None) -> list[Pair]:
    """All pairs, in the order of their cases."""
    limits = limits or LeakLimits()
    found = [*_same(cases), *_images(cases), *_reports(cases, limits)]
    return sorted(
        (p for p in found if cases[p.first].patient != cases[p.second].patient), key=lambda p: (p.first, p.second, p.kind)
    )


def _same(cases: Sequence[Facts]) -> list[Pair]:
    """Same accession number."""
    groups: dict[str, list[int]] = defaultdict(list)
    for k, case in enumerate(cases):
        if case.accession:
            groups[case.accession].append(k)
    return [Pair(i, j, "accession", 1.0) for group in groups.values() for i, j in combinations(group, 2)]


def _images(cases: Sequence[Facts]) -> list[Pair]:
    if not cases:
        return []
    pictures = np.stack([unpacked(case.picture) for case in cases])
    pairs = near_pairs(pictures, IMAGE_LIKENESS)
    return [Pair(i, j, "image", 1.0 if cases[i].sha256 == cases[j].sha256 else round(min(x, 0.9999), 4)) for i, j, x in pairs]


def _reports(cases: Sequence[Facts], limits: LeakLimits) -> list[Pair]:
    """Reports of which enough uncommon phrases stand in one other patient's."""
    sets = [shingles(case.report) for case in cases]
    owners = Counter(phrase for phrase, _ in {(p, c.patient) for p_set, c in zip(sets, cases, strict=True) for p in p_set})
    most = max(COMMON_LEAST, COMMON_SHARE * len({case.patient for case in cases}))
    column = {phrase: k for k, phrase in enumerate(sorted(p for p, n in owners.items() if n < most))}
    rows = [(i, column[p]) for i, phrases in enumerate(sets) for p in phrases if p in column]
    if not rows:
        return []
    i, j = np.array(rows).T
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (i, j)), (len(cases), len(column)))
    size = np.asarray(matrix.sum(1)).ravel()
    common = sparse.triu(matrix @ matrix.T, k=1).tocoo()
    found = []
    for a, b, n in zip(common.row, common.col, common.data, strict=True):
        shares = [n / size[k] for k in (a, b) if size[k] >= limits.text_phrases]
        if shares and max(shares) >= limits.text_overlap:
            found.append(Pair(int(a), int(b), "report", round(float(max(shares)), 4)))
    return found
