"""Neighbours of a case that is not in the index, whose patient the index may hold all the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from medvl.retrieval.entry import Hit
from medvl.retrieval.filters import Condition, parse_filter
from medvl.retrieval.search import NEAR, Exclude, search
from medvl.retrieval.store import Index

_FIRST = 5


@dataclass(frozen=True)
class Neighbours:
    """What was found.

    Args:
        hits: best first, none of the patients left out and none twice.
        same: patients with a vector so near (cosine above 1 - 1e-4) that it is of the same images.
        n_searched: cases that were compared.
    """

    hits: tuple[Hit, ...]
    same: tuple[str, ...]
    n_searched: int


def neighbours_of(
    index: Index,
    vector: ArrayLike,
    k: int = 10,
    *,
    where: str | Sequence[Condition] = "",
    source_sha256: str = "",
    without: Sequence[str] = (),
) -> Neighbours:
    """The k nearest image vectors of other patients.

    A case from outside has no patient number of the index. Whoever has the same images in it, by their hash or by a vector that
    is equal but for rounding, is the same patient, and all of that patient's cases are left out.

    Args:
        index: of the model that made `vector`.
        vector: (E,).
        k: how many.
        where: conditions that cases must meet.
        source_sha256: of the images, where known.
        without: patients known to be the same person.

    Raises:
        ConfigError: as `search`.
    """
    conditions = tuple(parse_filter(where) if isinstance(where, str) else where)
    near = search(index, vector, _FIRST, where=conditions)
    found = [
        hit.entry.patient for hit in near.hits if hit.score > NEAR or (source_sha256 and hit.entry.source_sha256 == source_sha256)
    ]
    same = tuple(dict.fromkeys(patient for patient in found if patient))
    gone = tuple(dict.fromkeys((*same, *without)))
    if gone:
        conditions = (*conditions, Condition("patient", "!=", gone))
    kept = search(index, vector, k, where=conditions, exclude=Exclude("", source_sha256, "", duplicates=True))
    return Neighbours(kept.hits, same, kept.n_searched)
