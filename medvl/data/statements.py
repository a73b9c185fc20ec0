"""Reports of a cohort, cut to regions and to single statements with what each asserts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.targets import KindTargets, Targets, encode_labels
from medvl.text.labels import extract_text
from medvl.text.ontology import Ontology, built_in
from medvl.text.report import split_sentences


@dataclass(frozen=True, eq=False)
class RegionTexts:
    """For one kind of region: (patient row, region column) pairs that have text, the text in sentences, and its attributes."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    sentences: list[list[str]]
    targets: Targets

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Statements:
    """Different sentences of the corpus, each with what it asserts; sentences that assert nothing are left out."""

    texts: list[str]
    targets: Targets


def ontology_of(kind: KindTargets) -> Ontology:
    """The built-in ontology that reads the regions of `kind`."""
    return next(o for o in built_in() if set(kind.regions) & set(o.regions))


def region_texts(cases: Sequence[dict[str, Any]], kind: KindTargets, regions: Sequence[str], usable: np.ndarray) -> RegionTexts:
    """Texts of every usable region of `kind`.

    Args:
        cases: with `region_texts` and `labels`, both by region name.
        kind: its regions and attributes.
        regions: column names of the cohort's crops.
        usable: (N, R) bool, whether a crop is complete enough.
    """
    places, sentences, labels = [], [], []
    for row, case in enumerate(cases):
        for name in kind.regions:
            column = list(regions).index(name)
            parts = split_sentences(case["region_texts"].get(name, ""))
            if parts and usable[row, column]:
                places.append((row, column))
                sentences.append(parts)
                labels.append(case["labels"][name])
    rows, columns = np.array(places, dtype=np.int64).reshape(-1, 2).T
    return RegionTexts(rows, columns, sentences, encode_labels(labels, kind))


def statements(texts: RegionTexts, kind: KindTargets, limit: int, seed: int) -> Statements:
    """Up to `limit` different sentences that assert something, drawn at random but repeatably."""
    ontology = ontology_of(kind)
    different = sorted({s for parts in texts.sentences for s in parts})
    order = np.random.default_rng(seed).permutation(len(different))
    kept, labels = [], []
    for index in order:
        row = extract_text(different[int(index)], ontology)
        target = encode_labels([row], kind)
        if (target.binary >= 0).any() or (target.classes >= 0).any() or np.isfinite(target.numbers).any():
            kept.append(different[int(index)])
            labels.append(row)
        if len(kept) == limit:
            break
    return Statements(kept, encode_labels(labels, kind))
