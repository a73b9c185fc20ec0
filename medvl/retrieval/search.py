"""Exact search: a scan of 8-bit copies with a bound on its error, then full precision for all that the bound leaves open.

The k-th largest lower bound of a scan is at most the k-th best cosine, so whatever has its upper bound below cannot be among the
first k. The rest is scored in float64 from the float32 vectors: the answer is that of comparing with every vector, ties included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.retrieval.entry import Entry, Found, Hit
from medvl.retrieval.filters import Condition, parse_filter
from medvl.retrieval.people import people_of, person_in
from medvl.retrieval.store import Index
from medvl.retrieval.vectors import Matrix, Precision, exact_levels
from medvl.retrieval.view import View

NEAR = 1 - 1e-4
DIRECT = 2048
BLOCK = 64


@dataclass(frozen=True)
class Exclude:
    """What is not to be found, and not twice.

    Args:
        patient: whose cases are left out; also: other names of the same person.
        source_sha256: images whose cases are left out (the same scan under another name).
        text_sha256: report of the query, for near-equal vectors with the same words.
        duplicates: leave out what equals the query or a better hit: the same region of the same images, or, among images, a
            cosine above 1 - 1e-4 with the same report.
    """

    patient: str = ""
    source_sha256: str = ""
    text_sha256: str = ""
    duplicates: bool = False
    also: tuple[str, ...] = ()


def search(
    index: Index,
    query: ArrayLike,
    k: int = 10,
    *,
    field: str = "image",
    where: str | Sequence[Condition] = "",
    exclude: Exclude | None = None,
    precision: Precision | None = None,
) -> Found:
    """The k cases whose `field` vectors have the highest cosine with `query`, exactly; equal cosines by id.

    Args:
        index: to search.
        query: (E,) of the index's space, any length.
        k: how many.
        field: `image` or `report` vectors.
        where: conditions that cases must meet, as text or parsed.
        exclude: what is not to be found; default: nothing is left out.
        precision: of the scan; the answer does not depend on it. Default: int8 where the machine has an exact kernel.

    Raises:
        ConfigError: no such field, a query that does not fit, or a filter that the index cannot answer (a value no case has).
    """
    vector = _unit(query, index.space.width)
    if k < 1:
        raise ConfigError(f"k is {k}; ask for at least one case")
    conditions = parse_filter(where) if isinstance(where, str) else where
    with index.reading() as view:
        return _search(view, vector, k, field, conditions, exclude or Exclude(), precision=precision)


def similar(
    index: Index,
    case: str,
    k: int = 10,
    *,
    asks: str = "image",
    field: str = "image",
    where: str | Sequence[Condition] = "",
    same_patient: bool = False,
    duplicates: bool = False,
) -> Found:
    """Cases like one of the index: its `asks` vector against the `field` vectors of others.

    The case itself is never found. Other cases of its patient, under whatever name where links tell, and of its images, and
    duplicates, only when asked for.

    Raises:
        ConfigError: no such case, or it has no such vector; else as `search`.
    """
    with index.reading() as view:
        row = view.row_of(case)
        vector = _matrix(view, asks).rows(np.array([row]))[0].astype(np.float64)
        if not vector.any():
            raise ConfigError(f"case {case} has no {asks} vector; ask with another one")
        entry = view.entries([row])[row]
        exclude = Exclude(
            "" if same_patient else entry.patient,
            "" if same_patient else entry.source_sha256,
            entry.text_sha256,
            not duplicates,
            people_of(view, person).same if (person := person_in(entry)) and not same_patient else (),
        )
        conditions = parse_filter(where) if isinstance(where, str) else where
        return _search(view, _unit(vector, len(vector)), k, field, conditions, exclude, itself=row)


def _unit(query: ArrayLike, width: int) -> NDArray[np.float64]:
    vector = np.asarray(query, dtype=np.float64)
    if vector.shape != (width,):
        raise ConfigError(f"the query is {vector.shape}; the index takes ({width},)")
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length < 1e-12:
        raise ConfigError(f"the query has no direction (length {length})")
    return np.asarray(vector / length)


def _matrix(view: View, field: str) -> Matrix:
    if field not in view.matrices:
        raise ConfigError(f"the index holds no {field} vectors, only {', '.join(view.matrices)}")
    return view.matrices[field]


def _search(
    view: View,
    query: NDArray[np.float64],
    k: int,
    field: str,
    conditions: Sequence[Condition],
    exclude: Exclude,
    *,
    precision: Precision | None = None,
    itself: int | None = None,
) -> Found:
    matrix = _matrix(view, field)
    empty = matrix.steps[:, 0] == 0
    n_cases = len(empty) - int(empty.sum()) - int((~empty[view.dead]).sum())
    out = [np.flatnonzero(empty), view.dead, np.array([] if itself is None else [itself], dtype=np.int64)]
    out += [view.rows_where("patient", name) for name in exclude.also]
    out += [view.rows_where(name, v) for name in ("patient", "source_sha256") if (v := getattr(exclude, name))]
    gone = np.unique(np.concatenate(out))
    mask = view.columns.where(conditions)
    rows = None
    if mask is not None:
        rows = np.setdiff1d(np.flatnonzero(mask), gone, assume_unique=True)
    n_searched = len(empty) - len(gone) if rows is None else len(rows)
    scan = Scan(matrix, query, rows, gone, precision)
    wanted = min(k, n_searched)
    depth = wanted
    while True:
        found, scores = scan.best(depth) if depth else (np.zeros(0, np.int64), np.zeros(0))
        hits = _ordered(view, found, scores)
        if exclude.duplicates:
            hits = _without_duplicates(matrix, hits, exclude.text_sha256, words=field == "image")
        if len(hits) >= wanted or depth >= n_searched:
            return Found(tuple(Hit(score, entry) for _, score, entry in hits[:k]), n_cases, n_searched, scan.n_exact)
        depth = min(n_searched, 2 * depth + 16)


def _ordered(view: View, rows: NDArray[np.int64], scores: NDArray[np.float64]) -> list[tuple[int, float, Entry]]:
    entries = view.entries(rows.tolist())
    found = [(int(r), float(s), entries[int(r)]) for r, s in zip(rows, scores, strict=True)]
    return sorted(found, key=lambda hit: (-hit[1], hit[2].id))


def _without_duplicates(
    matrix: Matrix, hits: list[tuple[int, float, Entry]], asked: str, *, words: bool
) -> list[tuple[int, float, Entry]]:
    """Hits that equal neither the query, whose report has the hash `asked`, nor a hit before them.

    Near-equal vectors with the same `words` count for images only: reports of the same words always have the same vector.
    """
    kept: list[tuple[int, float, Entry]] = []
    vectors = matrix.rows(np.array([row for row, _, _ in hits], dtype=np.int64)).astype(np.float64)
    images: set[tuple[str, str]] = set()
    texts: dict[str, list[int]] = {}
    for i, (row, score, entry) in enumerate(hits):
        text, image = entry.text_sha256 if words else "", (entry.source_sha256, entry.region)
        like_query = score > NEAR and text != "" and text == asked
        like_hit = text != "" and any(float(vectors[i] @ vectors[j]) > NEAR for j in texts.get(text, ()))
        if like_query or like_hit or (entry.source_sha256 and image in images):
            continue
        images.add(image)
        texts.setdefault(text, []).append(i)
        kept.append((row, score, entry))
    return kept


class Scan:
    """Bounds on the cosines of one query with the rows that count, from one pass over their codes.

    Args:
        matrix: to search; query: (E,) float64 of length 1; rows: that count, ascending, or None for all but `gone`.
        precision: of the pass; None for the best that is exact here.
    """

    def __init__(
        self,
        matrix: Matrix,
        query: NDArray[np.float64],
        rows: NDArray[np.int64] | None,
        gone: NDArray[np.int64],
        precision: Precision | None,
    ) -> None:
        self.matrix, self.query, self.rows, self.n_exact = matrix, query, rows, 0
        if rows is not None and len(rows) <= DIRECT:
            exact = matrix.scores(query, rows)
            self.exact: NDArray[np.float64] | None = exact
            self.lower: NDArray[Any] = exact
            self.upper: NDArray[Any] = exact
            self.n_exact = len(rows)
            return
        self.exact = None
        middle, margin = matrix.scan(query, rows, precision or ("int8" if exact_levels() else "float32"))
        self.lower, self.upper = middle - margin, np.add(middle, margin, out=middle)
        if rows is None:
            self.lower[gone] = self.upper[gone] = -np.inf

    def best(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows and cosines of the k best, with all that are level with the last; in no order."""
        open_ = np.flatnonzero(self.upper >= _kth(self.lower, k))
        if self.exact is not None:
            scores = self.exact[open_]
        else:
            open_, scores = self._settle(open_, k)
        last = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = scores >= last
        places = open_[chosen]
        return places if self.rows is None else self.rows[places], scores[chosen]

    def _settle(self, places: NDArray[np.int64], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Full precision for what is open: the likeliest first, since their cosines close the question for most others."""
        first = places
        if len(places) > 4 * k:
            first = places[np.argpartition(-self.lower[places], 4 * k)[: 4 * k]]
        scores = self._score(first)
        if len(first) < len(places):
            last = np.partition(scores, len(scores) - k)[len(scores) - k]
            rest = np.setdiff1d(places[self.upper[places] >= last], first)
            first, scores = np.concatenate([first, rest]), np.concatenate([scores, self._score(rest)])
        return first, scores

    def _score(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        self.n_exact += len(places)
        return self.matrix.scores(self.query, places if self.rows is None else self.rows[places])


def _kth(values: NDArray[np.floating], k: int) -> float:
    """The k-th largest, or a smaller value that at least k reach: the k-th largest of the maxima of blocks, which is faster."""
    blocks = len(values) // BLOCK
    if blocks > 4 * k:
        highest = values[: blocks * BLOCK].reshape(blocks, BLOCK).max(1)
        if (kth := float(np.partition(highest, blocks - k)[blocks - k])) > -np.inf:
            return kth
    return float(np.partition(values, len(values) - k)[len(values) - k])
