"""Cohorts with known hazards, and the numbers that R's survival package printed for one of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

REFERENCES = Path(__file__).parent / "references"


def reference() -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The cohort of references/ and R's numbers for it."""
    numbers = json.loads((REFERENCES / "survival.json").read_text(encoding="utf-8"))
    return pd.read_csv(REFERENCES / "cohort.csv"), {k: np.array(v) for k, v in numbers.items()}


def draw(n: int = 200, *, decimals: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, 3) of which two matter, follow-up, and events; with few decimals, times tie."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    death, censor = rng.exponential(10, n) / np.exp(x @ [0.9, -0.5, 0.0]), rng.uniform(3, 25, n)
    return x, np.round(np.minimum(death, censor), decimals), death <= censor
