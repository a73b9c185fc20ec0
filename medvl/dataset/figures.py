"""Figures of a data card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medvl.dataset.schema import CLINICAL, LABEL
from medvl.evaluation.report.document import readable
from medvl.evaluation.report.style import BLUE, GREEN, GREY, LIGHT, ORANGE, WIDTH, grid_of, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"train": BLUE, "validation": GREEN, "test": ORANGE}
MOST_BARS, MOST_FINDINGS, MOST_MISSING = 8, 24, 30
_MEASURES = {
    "spacing_d_mm": "slice spacing, mm",
    "spacing_h_mm": "pixel spacing, mm",
    "length_mm": "length of the scan, mm",
    "age_years": "age, years",
}
_GROUPS = {"phase": "contrast phase", "manufacturer": "scanner", "kernel": "kernel", "site": "site"}


def measures(frame: pd.DataFrame) -> Figure | None:
    """How spacing, length and age are spread, by split."""
    values = frame.assign(length_mm=frame["spacing_d_mm"] * frame["n_d"])
    names = [name for name in _MEASURES if values[name].notna().any()]
    with styled():
        figure, panels = grid_of(len(names), 4, 2.1)
        for name, axes in zip(names, panels, strict=True):
            told = values[name].dropna()
            low, high = float(told.min()), float(told.max())
            edges = np.linspace(low - 0.5, low + 0.5, 3) if high - low < 1e-6 else np.linspace(low, high, 16)
            parts = [values.loc[values["split"] == split, name].dropna() for split in COLOURS]
            axes.hist(parts, edges.tolist(), stacked=True, color=list(COLOURS.values()), label=list(COLOURS))
            axes.set_title(_MEASURES[name])
            _whole(axes, "y")
        panels[0].set_ylabel("scans")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return figure


def groups(frame: pd.DataFrame) -> Figure | None:
    """Scans by phase, scanner, kernel and site, by split."""
    names = [name for name in _GROUPS if (frame[name] != "").any()]
    if not names:
        return None
    with styled():
        figure, panels = grid_of(len(names), 2, 2.2)
        figure.set_size_inches(WIDTH, figure.get_size_inches()[1])
        for name, axes in zip(names, panels, strict=True):
            values = frame[name].replace("", "not known").map(lambda text: text if len(text) <= 26 else text[:25] + "…")
            top = [str(k) for k in values.value_counts().index[:MOST_BARS]]
            values = values.where(values.isin(top), "others")
            rows = [*top, *(["others"] if (values == "others").any() and "others" not in top else [])]
            _stacked(axes, rows, [[int(((values == r) & (frame["split"] == s)).sum()) for r in rows] for s in COLOURS])
            axes.set_yticks(range(len(rows)), [readable(row) for row in rows])
            axes.set_title(_GROUPS[name])
        return figure


def prevalence(found: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Share of scans with a known answer in which each finding is present, and how many answers there are."""
    rows = [row for row in found if row["present"] + row["absent"] and row["present"]]
    rows = sorted(rows, key=lambda r: -r["present"])[:MOST_FINDINGS]
    if not rows:
        return None
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(WIDTH, 0.24 * len(rows) + 0.9), layout="constrained")
        axes = figure.subplots()
        parts = [[row[state] for row in rows] for state in ("present", "absent", "uncertain", "unknown")]
        _stacked(axes, rows, parts, (ORANGE, BLUE, GREY, LIGHT), ("present", "absent", "uncertain", "not known"))
        axes.set_yticks(range(len(rows)), [f"{readable(r['finding'])}, {readable(r['region'])}" for r in rows])
        axes.set_xlabel("scans")
        figure.legend(loc="outside lower center", ncols=4)
        return figure


def missing(shares: Mapping[str, float]) -> Figure | None:
    """Share of scans without a value."""
    rows = sorted(((name, share) for name, share in shares.items()), key=lambda r: (-r[1], r[0]))[:MOST_MISSING]
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(WIDTH, 0.21 * len(rows) + 0.7), layout="constrained")
        axes = figure.subplots()
        axes.barh(range(len(rows)), [100 * share for _, share in rows], color=GREY)
        axes.set_yticks(range(len(rows)), [_named(name) for name, _ in rows])
        axes.set_xlim(0, 100)
        axes.set_xlabel("scans without it, %")
        axes.invert_yaxis()
        return figure


def follow_up(frame: pd.DataFrame) -> Figure | None:
    """Kaplan-Meier curve of each split over patients, and the numbers at risk."""
    from medvl.survival.curves import curve

    told = frame[frame["time_days"].notna()].groupby("patient_id").first()
    parts = {split: told[told["split"] == split] for split in COLOURS}
    parts = {split: part for split, part in parts.items() if len(part)}
    if not parts:
        return None
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        axes = figure.subplots()
        for split, part in parts.items():
            found = curve(part["time_days"].to_numpy(np.float64), part["event"].to_numpy(bool))
            axes.step(found.times, found.survival, where="post", color=COLOURS[split], label=_at(split, part))
            axes.fill_between(found.times, found.low, found.high, step="post", color=COLOURS[split], alpha=0.15, linewidth=0)
        axes.set_ylim(0, 1.02)
        axes.set_xlim(left=0)
        axes.set_xlabel("days since the scan or diagnosis")
        axes.set_ylabel("without the event")
        figure.legend(loc="outside lower center", ncols=len(parts))
        return figure


def _at(split: str, part: pd.DataFrame) -> str:
    return f"{split}: {len(part)} patients, {int(part['event'].sum())} events"


def _stacked(
    axes: Axes,
    rows: Sequence[Any],
    parts: Sequence[Sequence[int]],
    colours: Sequence[str] = tuple(COLOURS.values()),
    labels: Sequence[str] = (),
) -> None:
    """Horizontal bars, first row on top."""
    left = np.zeros(len(rows))
    for k, part in enumerate(parts):
        axes.barh(range(len(rows)), part, left=left, color=colours[k], label=labels[k] if labels else None)
        left += np.asarray(part)
    axes.invert_yaxis()
    _whole(axes, "x")


def _whole(axes: Axes, which: str) -> None:
    """Whole numbers on an axis of counts."""
    from matplotlib.ticker import MaxNLocator

    (axes.xaxis if which == "x" else axes.yaxis).set_major_locator(MaxNLocator(5, integer=True))


def _named(column: str) -> str:
    if column.startswith(LABEL):
        name, _, region = column.removeprefix(LABEL).partition("@")
        return f"given label: {readable(name)}, {readable(region)}"
    return readable(column.removeprefix(CLINICAL))
