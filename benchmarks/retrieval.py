"""Exact top-10 among 100 000 and 1 000 000 vectors under a filter: our index, faiss and usearch, beside reading the matrix once.

All compute the same answer; ours is compared with brute force in float64, ties included. Interleaved, medians, and as ratios to
the time it takes to read the float32 matrix once (its sum), on the same threads.

    python benchmarks/retrieval.py --out runs/retrieval-bench
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, K = 512, 10
SHARES = (1.0, 0.05)


def main() -> None:
    """Build, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/retrieval-bench"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["random", "clustered"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    results = []
    for n in options.sizes:
        for kind in options.kinds:
            for row in measure(n, kind, options):
                results.append(row)
                print(json.dumps(row), flush=True)
    (options.out / "retrieval.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


def vectors(n: int, kind: str) -> np.ndarray:
    """(n, 512) unit float32: of every direction, or around 1000 centres that lie in a narrow cone, as trained embeddings do."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(1000, WIDTH)).astype(np.float32) + 2 * rng.normal(size=WIDTH).astype(np.float32)
    out = np.empty((n, WIDTH), np.float32)
    for i in range(0, n, 50_000):
        part = rng.standard_normal(size=(min(50_000, n - i), WIDTH), dtype=np.float32)
        if kind == "clustered":
            part = centres[rng.integers(1000, size=len(part))] + 0.4 * part
        out[i : i + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return out


def index_of(folder: Path, rows: np.ndarray) -> Any:
    """Our index of the rows: the n-th case has the number n and an age, evenly from 0 to 99."""
    from medvl.retrieval.entry import Entry, Space
    from medvl.retrieval.store import Index

    space = Space("random", "0" * 64, "0" * 64, WIDTH)
    index = Index.create(folder, space, fields=("image",))
    for i in range(len(index), len(rows), 50_000):
        some = range(i, min(i + 50_000, len(rows)))
        index.add([Entry(f"{r:07d}", f"{r // 2:07d}", age_years=age_of(r)) for r in some], {"image": rows[some]}, space)
    return index


def age_of(row: int) -> float:
    """Ages 0 to 99 in no order."""
    return float(row * 2654435761 % 2**32 % 100)


def measure(n: int, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row of the table for each share of the cases that the filter passes."""
    import faiss
    import torch
    from usearch.index import MetricKind
    from usearch.index import search as usearch

    from medvl.retrieval.search import search

    faiss.omp_set_num_threads(options.threads)
    rows = vectors(n, kind)
    started = time.perf_counter()
    index = index_of(options.out / f"{kind}-{n}", rows)
    built_s = time.perf_counter() - started
    flat = faiss.IndexFlatIP(WIDTH)
    flat.add(rows)
    del rows
    held = faiss.rev_swig_ptr(flat.get_xb(), n * WIDTH).reshape(n, WIDTH)  # one copy serves faiss, usearch and the reading
    whole = torch.from_numpy(held)
    ages = np.array([age_of(r) for r in range(n)])
    rng, out = np.random.default_rng(1), []
    for share in SHARES:
        passing = np.flatnonzero(ages < 100 * share)
        mask = np.zeros((n + 7) // 8 * 8, bool)
        mask[passing] = True
        packed = np.packbits(mask, bitorder="little")
        chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(packed)) if share < 1 else None
        where = f"age<{100 * share:g}" if share < 1 else ""
        times: dict[str, list[float]] = {}
        n_exact, right = [], []
        for _ in range(options.rounds + 1):
            query = held[rng.integers(n)] + (0.02 * rng.normal(size=WIDTH)).astype(np.float32)
            query /= np.linalg.norm(query)
            ways: dict[str, Callable[[], Any]] = {
                "read": lambda: float(whole.sum()),
                "medvl": lambda q=query, w=where: search(index, q, K, where=w),
                "medvl float32": lambda q=query, w=where: search(index, q, K, where=w, precision="float32"),
                "faiss": lambda q=query, c=chosen: flat.search(q[None], K, params=c),
                "usearch": lambda q=query, p=passing, s=share: usearch(
                    held if s == 1 else held[p], q[None], K, MetricKind.IP, exact=True, threads=options.threads
                ),
            }
            given = {}
            for name, way in ways.items():
                started = time.perf_counter()
                given[name] = way()
                times.setdefault(name, []).append(time.perf_counter() - started)
            found = given["medvl"]
            n_exact.append(found.n_exact)
            truth = np.sort(passing[best(held, passing, query)])
            right.append(np.array_equal(np.sort([int(hit.entry.id) for hit in found.hits]), truth))
        milliseconds = {name: 1000 * float(np.median(t[1:])) for name, t in times.items()}
        out.append(
            {
                "n": n,
                "kind": kind,
                "share": share,
                "ms": {name: round(t, 1) for name, t in milliseconds.items()},
                "to_reading": {name: round(t / milliseconds["read"], 2) for name, t in milliseconds.items()},
                "exact": f"{sum(right)} of {len(right)}",
                "scored_in_full": int(np.median(n_exact)),
                "built_s": round(built_s, 1),
            }
        )
    return out


def best(rows: np.ndarray, passing: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Places of the K best in `passing`, in float64."""
    coarse = np.concatenate([rows[passing[i : i + 50_000]] @ query for i in range(0, len(passing), 50_000)])
    near = np.argpartition(-coarse, 500)[:500] if len(coarse) > 500 else np.arange(len(coarse))
    return near[np.argsort(-(rows[passing[near]].astype(np.float64) @ query), kind="stable")[:K]]


if __name__ == "__main__":
    main()
