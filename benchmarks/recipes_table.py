"""The table of benchmarks/recipes.py: means over seeds, 95 % intervals by patient and paired differences to each recipe.

Where benchmarks/recipes_risks.py was run, it says of every C-index how far it is above that of the patients' age alone.

One resample of the test patients serves every seed and condition, so that a difference is between answers on the same patients.
The interval says how far other patients would move the number; the spread over seeds stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.evaluation.metrics import auroc_of
from medvl.evaluation.ranking import hits_at
from medvl.survival.weighted import weighted_harrell

GALLERY = 200
Raw = Mapping[str, NDArray[Any]]
Array = NDArray[np.float64]


def resamples(n_patients: int, draws: int) -> Array:
    """(1 + draws, n) how often each patient is taken: first everybody once, then with replacement."""
    rng = np.random.default_rng(0)
    taken = [np.bincount(rng.integers(n_patients, size=n_patients), minlength=n_patients) for _ in range(draws)]
    return np.stack([np.ones(n_patients), *taken]).astype(np.float64)


def mean_auroc(raw: Raw, taken: Array) -> Array:
    """(K,) mean over findings."""
    keys = sorted(name.removesuffix(".label") for name in raw if name.endswith(".label"))
    rows = [auroc_of(raw[f"{k}.label"], raw[f"{k}.score"]).of(taken[:, raw[f"{k}.row"]]) for k in keys]
    return np.asarray(np.nanmean(rows, axis=0))


def recall_at_5(raw: Raw, taken: Array) -> Array:
    """(K,) mean of both ways in galleries of 200; patients of the galleries are weighed, the galleries stay as they are."""
    similarity = raw["similarity"].astype(float)
    order = np.random.default_rng(0).permutation(len(similarity))
    size = min(GALLERY, len(order))
    rates = []
    for start in range(0, len(order) - size + 1, size):
        block = order[start : start + size]
        for matrix in (similarity, similarity.T):
            part = matrix[np.ix_(block, block)]
            rates.append((hits_at(part, 5) * taken[:, block]).sum(1) / np.maximum(taken[:, block].sum(1), 1))
    return np.asarray(np.mean(rates, axis=0))


def table(out: Path, names: Sequence[str], bases: Sequence[str], draws: int = 500) -> str:
    """Markdown; a condition's row says its mean, the interval by patient, and the difference to the last of `bases` above it."""
    found = _read(out)
    if not found:
        return "nothing is finished yet"
    n = len(next(iter(next(iter(found.values())).values()))[1]["similarity"])
    taken = resamples(n, draws)
    head = "| condition | seeds | zero-shot AUROC (16 findings) | difference | R@5 of 200 | C-index | C-index minus age alone "
    rows, base = [head + "| pointing (chance) | CPU s |", "|---" * 9 + "|"], None
    for name in names:
        if name not in found:
            continue
        runs = found[name]
        curves = {seed: mean_auroc(raw, taken) for seed, (_, raw) in runs.items()}
        auroc = np.mean(list(curves.values()), axis=0)
        own = name in bases
        base = curves if own else base
        shared = sorted(set(curves) & set(base or {}))
        difference = "" if own or not shared else _signed(np.mean([curves[s] - base[s] for s in shared], axis=0))  # type: ignore[index]
        recall = np.mean([recall_at_5(raw, taken) for _, raw in runs.values()], axis=0)
        rows.append(
            f"| {'**' + name + '**' if own else name} | {len(runs)} | {_cell(auroc)}{_spread([c[0] for c in curves.values()])} "
            f"| {difference} | {_cell(recall)} | {_survival(runs, taken)} | {_pointing(runs)} | {_cost(runs)} |"
        )
    alone = [_concordance(raw, "age", taken) for runs in found.values() for _, raw in runs.values() if "age" in raw]
    if alone:
        rows.append(f"| age alone | | | | | {_cell(alone[0])} | | | |")
    return "\n".join(rows)


def findings_table(out: Path, names: Sequence[str]) -> str:
    """Markdown: AUROC of every finding, mean over seeds, for chosen conditions."""
    found = {name: runs for name, runs in _read(out).items() if name in names}
    keys = list(next(iter(next(iter(found.values())).values()))[0]["findings"])
    rows = ["| finding | present of n | " + " | ".join(found) + " |", "|---|---|" + "---|" * len(found)]
    for key in keys:
        first = next(iter(next(iter(found.values())).values()))[0]["findings"][key]
        cells = [f"{np.mean([s['findings'][key]['auroc'] for s, _ in runs.values()]):.3f}" for runs in found.values()]
        rows.append(f"| {key} | {first['present']} of {first['n']} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _read(out: Path) -> dict[str, dict[int, tuple[dict[str, Any], Raw]]]:
    found: dict[str, dict[int, tuple[dict[str, Any], Raw]]] = {}
    for path in sorted((out / "results").glob("*.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        raw: dict[str, NDArray[Any]] = {}
        for part in (path.with_suffix(".npz"), path.with_suffix(".risks.npz")):
            if part.exists():
                with np.load(part) as arrays:
                    raw |= dict(arrays)
        found.setdefault(summary["condition"], {})[summary["seed"]] = (summary, raw)
    return found


def _interval(values: Array) -> tuple[float, float]:
    return float(np.nanpercentile(values[1:], 2.5)), float(np.nanpercentile(values[1:], 97.5))


def _cell(values: Array) -> str:
    low, high = _interval(values)
    return f"{values[0]:.3f} [{low:.3f}, {high:.3f}]"


def _signed(values: Array) -> str:
    low, high = _interval(values)
    return f"{values[0]:+.3f} [{low:+.3f}, {high:+.3f}]"


def _spread(values: Sequence[float]) -> str:
    return f"; seeds {min(values):.3f} to {max(values):.3f}" if len(values) > 1 else ""


def _survival(runs: Mapping[int, tuple[dict[str, Any], Raw]], taken: Array) -> str:
    """The C-index, and how far it is above age alone; without kept risks the mean of the seeds' own intervals, and no more."""
    if all("risk" in raw for _, raw in runs.values()):
        own = np.mean([_concordance(raw, "risk", taken) for _, raw in runs.values()], axis=0)
        age = np.mean([_concordance(raw, "age", taken) for _, raw in runs.values()], axis=0)
        return f"{_cell(own)} | {_signed(own - age)}"
    values = [s["survival"]["c_index"] for s, _ in runs.values()]
    return _averaged(values, [s["survival"]["ci"] for s, _ in runs.values()]) + " | "


def _concordance(raw: Raw, column: str, taken: Array) -> Array:
    """(K,) Harrell's C of a column of the risks.

    Raises:
        ValueError: a patient has no risk or no age.
    """
    if raw["time"].shape != taken.shape[1:] or np.isnan(raw[column]).any():
        raise ValueError(
            f"{column} is known of {int(np.isfinite(raw[column]).sum())} of {taken.shape[1]} patients; all are needed"
        )
    return weighted_harrell(raw["time"], raw["event"], raw[column], taken)


def _pointing(runs: Mapping[int, tuple[dict[str, Any], Raw]]) -> str:
    """The mean of the seeds' own intervals: which patient each map is of was not kept."""
    rows = [s["pointing"]["all"] for s, _ in runs.values()]
    cell = _averaged([r["rate"] for r in rows], [r["ci"] for r in rows])
    return f"{cell} ({np.mean([r['chance'] for r in rows]):.3f})"


def _averaged(values: Sequence[float], intervals: Sequence[Sequence[float]]) -> str:
    low, high = np.mean(intervals, axis=0)
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"


def _cost(runs: Mapping[int, tuple[dict[str, Any], Raw]]) -> str:
    return f"{np.mean([sum(stage['cpu_s'] for stage in s['cost'].values()) for s, _ in runs.values()]):.0f}"
