"""Cases to put into an index, drawn by a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medvl.retrieval.entry import Entry, Space
from medvl.retrieval.store import Index

SPACE = Space("tiny", "a" * 64, "b" * 64, 24)
REGIONS = ("kidney_left", "kidney_right")


def entries(n: int, start: int = 0, seed: int = 0) -> list[Entry]:
    """Two kidneys a patient; age, sex, phase, findings and reports vary, and some are not known."""
    out = []
    for i in range(start, start + n):
        rng = np.random.default_rng([seed, i // 2])
        region = REGIONS[i % 2]
        out.append(
            Entry(
                f"P{i // 2}/{region}",
                f"P{i // 2}",
                study=f"S{i // 2}",
                region=region,
                side=region.split("_")[1],
                kind="kidney",
                phase=str(rng.choice(["arterial", "venous", ""])),
                sex=str(rng.choice(["F", "M"])),
                age_years=None if rng.random() < 0.1 else float(rng.integers(20, 90)),
                source_sha256=f"scan {i // 2}",
                report=f"Report of case {i}.",
                findings={"renal_mass": int(rng.random() < 0.3), "cyst": int(rng.integers(-1, 2))},
                extra={"site": str(rng.choice(["north", "south"])), "slice_mm": float(rng.integers(1, 6))},
            )
        )
    return out


def vectors(n: int, seed: int = 0, width: int = SPACE.width) -> dict[str, np.ndarray]:
    """Image and report vectors in clusters, so that scores crowd."""
    rng = np.random.default_rng([seed, 1])
    centres = rng.normal(size=(7, width))
    return {name: centres[rng.integers(7, size=n)] + 0.2 * rng.normal(size=(n, width)) for name in ("image", "report")}


def built(folder: Path, n: int = 300, *, segment_rows: int = 128) -> Index:
    """An index of n cases in segments that batches do not fit."""
    index = Index.create(folder, SPACE, segment_rows=segment_rows)
    made, given = entries(n), vectors(n)
    for start in range(0, n, 77):
        index.add(made[start : start + 77], {k: v[start : start + 77] for k, v in given.items()}, SPACE)
    return index
