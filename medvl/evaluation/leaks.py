"""Has a test case been seen before? The same patient, the same image or nearly so, or nearly the same report, in another split.

Images are compared by pooled features standardised on the other split, so what all scans of a region share counts little.
Reports are compared by word five-grams. Those that many patients' reports share are boilerplate: they are taken out first, and
a report of which little remains cannot be judged. Two identical normal reports are therefore no leak, and are counted apart.

Source: shingles and resemblance after Broder 1997, computed exactly (no MinHash: rare shingles make the overlap matrix sparse).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medvl.evaluation.embedded import Embedded
from medvl.evaluation.protocol import LeakLimits

WORDS = 5
COMMON_SHARE = 0.01
COMMON_LEAST = 5
SAME_COSINE = 1 - 1e-6
BLOCK = 1024
SHOWN = 20


def leaks(table: Embedded, others: Mapping[str, Embedded], limits: LeakLimits) -> dict[str, Any]:
    """What the cohort shares with each of `others`, and with itself; `found` is true where another split holds a test case.

    With itself: cases of different patients that look or read alike. They make intervals too narrow, but leak nothing.
    """
    told: dict[str, Any] = {"limits": limits.model_dump(mode="json"), "splits": {}}
    for name, other in others.items():
        told["splits"][name] = _against(table, other, limits)
    told["within"] = _against(table, None, limits)
    told["found"] = any(_n_leaks(part) for part in told["splits"].values())
    if not others:
        told["na"] = "no other split was given, so only cases within this cohort were compared; give --training FOLDER"
    return told


def _n_leaks(part: Mapping[str, Any]) -> int:
    return sum(int(part[kind]["n"]) for kind in ("patients", "images", "reports") if kind in part)


def _against(table: Embedded, other: Embedded | None, limits: LeakLimits) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if other is not None:
        same = sorted(set(table.patients.index.astype(str)) & set(other.patients.index.astype(str)))
        out["compared_with"] = {"patients": len(other.patients), "regions": len(other)}
        out["patients"] = {"n": len(same), "examples": same[:SHOWN]}
        if _other_model(table, other):
            out["images"] = {"n": 0, "na": "embedded by another model; images cannot be compared"}
    if "images" not in out:
        out["images"] = near_images(table, other, limits.image_cosine)
    out["reports"] = near_reports(_reports(table), None if other is None else _reports(other), limits)
    return out


def _other_model(table: Embedded, other: Embedded) -> bool:
    return table.source.get("model_sha256") != other.source.get("model_sha256") or table.pooled.shape[1] != other.pooled.shape[1]


def near_images(table: Embedded, other: Embedded | None, limit: float) -> dict[str, Any]:
    """Regions of `table` whose nearest of the same name in `other` reach `limit`; without `other`, nearest of another patient."""
    pairs: list[dict[str, Any]] = []
    n = compared = same = 0
    nearest: list[float] = []
    base = table if other is None else other
    for region in sorted(table.rows["region"].unique()):
        mine, theirs = _usable(table, region), _usable(base, region)
        if len(mine) < 1 or len(theirs) < 2:
            continue
        one, two = _standardised(table.pooled[mine], base.pooled[theirs])
        who, whose = (t.rows["patient_id"].to_numpy(dtype=str)[r] for t, r in ((table, mine), (base, theirs)))
        best, at = _nearest(one, two, who if other is None else None, whose)
        compared += len(mine)
        nearest += best.tolist()
        same += int((best >= SAME_COSINE).sum())
        for i in np.flatnonzero(best >= limit):
            n += 1
            pairs.append({"patient": who[i], "other": whose[at[i]], "region": region, "cosine": round(float(best[i]), 5)})
    pairs.sort(key=lambda p: -p["cosine"])
    told = {"n": n, "same": same, "compared": compared, "examples": pairs[:SHOWN]}
    spread = [round(float(q), 4) for q in np.quantile(nearest, [0.5, 0.99, 1.0])] if nearest else None
    return told | {"nearest_cosine_median_p99_max": spread}


def _usable(table: Embedded, region: str) -> NDArray[np.int64]:
    return np.flatnonzero((table.rows["region"] == region).to_numpy() & table.usable & np.isfinite(table.pooled).all(1))


def _standardised(one: NDArray[np.float32], two: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both centred and scaled by the second's mean and spread, rows of unit length; features that do not vary are left out."""
    mean, spread = two.mean(0, dtype=np.float64), two.std(0, dtype=np.float64)
    varies = spread > 1e-6 * max(float(spread.max()), 1e-12)
    parts = [((x[:, varies] - mean[varies]) / spread[varies]).astype(np.float32) for x in (one, two)]
    first, second = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in parts)
    return first, second


def _nearest(
    one: NDArray[np.float32], two: NDArray[np.float32], who: NDArray[np.str_] | None, whose: NDArray[np.str_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cosine of the nearest row and its place; rows of the same patient are passed over when `who` is given."""
    best, at = np.empty(len(one)), np.empty(len(one), dtype=np.int64)
    for start in range(0, len(one), BLOCK):
        part = slice(start, start + BLOCK)
        cosine = one[part] @ two.T
        if who is not None:
            cosine[who[part][:, None] == whose[None]] = -1
        at[part] = cosine.argmax(1)
        best[part] = cosine.max(1)
    return best, at


def _reports(table: Embedded) -> dict[str, str]:
    """Each patient's report, its regions' texts in order."""
    rows = table.rows[table.rows["report"] != ""].sort_values("region")
    return {str(who): " ".join(dict.fromkeys(part["report"])) for who, part in rows.groupby("patient_id")}


def normalised(text: str) -> list[str]:
    """Words and numbers of a text, without case and punctuation; a number keeps its decimals."""
    return re.findall(r"[^\W\d_]+|\d+(?:\.\d+)?", text.casefold())


def shingles(text: str) -> set[str]:
    """Its word five-grams; a shorter text is one shingle."""
    words = normalised(text)
    return {" ".join(words[i : i + WORDS]) for i in range(max(len(words) - WORDS + 1, 1))} if words else set()


def near_reports(mine: Mapping[str, str], theirs: Mapping[str, str] | None, limits: LeakLimits) -> dict[str, Any]:
    """Reports of which `text_overlap` of the uncommon five-grams stand in one other report.

    Args:
        mine: report by patient.
        theirs: of the other split, None to compare `mine` among themselves.
        limits: what counts as the same.

    Returns:
        `n` reports found again, `judged`, `boilerplate` (too little left to be judged), `identical_boilerplate` (of those, how
        many have a twin word for word: normal reports, no leak) and `examples`.
    """
    names = [list(mine), list(mine if theirs is None else theirs)]
    texts = [list(mine.values()), list((mine if theirs is None else theirs).values())]
    sets = [[shingles(text) for text in side] for side in texts]
    rare = _uncommon(sets[:1] if theirs is None else sets)
    kept = [_matrix(side, rare) for side in sets]
    size = np.asarray(kept[0].sum(1)).ravel()
    judged = size >= limits.text_phrases
    common = (kept[0] @ kept[1].T).tolil() if theirs is None else (kept[0] @ kept[1].T)
    if theirs is None:
        common.setdiag(0)
    overlap = sparse.csr_matrix(sparse.diags(1 / np.maximum(size, 1)) @ common)
    pairs: list[dict[str, Any]] = []
    for i in np.flatnonzero(judged):
        row = overlap.getrow(i)
        if row.nnz and row.data.max() >= limits.text_overlap:
            j = int(row.indices[row.data.argmax()])
            pairs.append({"patient": names[0][i], "other": names[1][j], "overlap": round(float(row.data.max()), 3)})
    pairs.sort(key=lambda p: -p["overlap"])
    plain = [[" ".join(normalised(t)) for t in side] for side in texts]
    counts = Counter(plain[1])
    twins = sum(1 for i, t in enumerate(plain[0]) if not judged[i] and counts[t] > (1 if theirs is None else 0))
    told = {"n": len(pairs), "judged": int(judged.sum()), "boilerplate": int((~judged).sum())}
    return told | {"identical_boilerplate": twins, "examples": pairs[:SHOWN]}


def _uncommon(sets: list[list[set[str]]]) -> dict[str, int]:
    """Column of each five-gram that few reports share: at most 1 % of them, or five."""
    counts: dict[str, int] = {}
    for side in sets:
        for found in side:
            for shingle in found:
                counts[shingle] = counts.get(shingle, 0) + 1
    most = max(COMMON_LEAST, COMMON_SHARE * sum(len(side) for side in sets))
    return {name: k for k, name in enumerate(sorted(name for name, n in counts.items() if n <= most))}


def _matrix(sets: list[set[str]], column: Mapping[str, int]) -> sparse.csr_matrix:
    places = [sorted(column[s] for s in found if s in column) for found in sets]
    rows = np.repeat(np.arange(len(sets)), [len(p) for p in places])
    columns = np.array([c for p in places for c in p], dtype=np.int64)
    shape = (len(sets), max(len(column), 1))
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
