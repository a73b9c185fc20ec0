"""Figures of a drift report, each from plain values of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medvl.doctor.drift import DECILES
from medvl.evaluation.report.document import readable
from medvl.evaluation.report.style import BLUE, GREEN, GREY, LIGHT, ORANGE, WIDTH, grid_of, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
INPUTS = {
    "slice_spacing_mm": "slice spacing, mm",
    "pixel_spacing_mm": "pixel spacing, mm",
    "slices": "slices",
    "length_mm": "length, mm",
}
MOST_GROUPS = 24


def named(record: Record, row: Record) -> str:
    """What a comparison is about, in words."""
    name = record["labels"].get(row["name"], INPUTS.get(row["name"], readable(row["name"])))
    told = {"unfamiliar": "unfamiliar regions", "distance": "unlike the training data"}.get(row["what"], name)
    return f"{told}, {readable(row['region'])}" if row["region"] else told


def shift_map(record: Record) -> Figure | None:
    """Groups down, questions across: the chance that a value from there is higher than one from elsewhere; a ring is an alarm."""
    from matplotlib.figure import Figure

    rows = [row for row in record["tests"] if row["higher"] is not None]
    lines = list(dict.fromkeys((r["by"], r["group"], r["against"]) for r in rows))[:MOST_GROUPS]
    columns = sorted(
        {(r["what"], named(record, r)) for r in rows}, key=lambda c: (("input", "distance", "score").index(c[0]), c[1])
    )
    if not lines or not columns:
        return None
    values = np.full((len(lines), len(columns)), np.nan)
    rings = []
    for row in rows:
        line = (row["by"], row["group"], row["against"])
        if line in lines:
            at = lines.index(line), columns.index((row["what"], named(record, row)))
            values[at] = row["higher"]
            rings += [at] if row["alarm"] else []
    with styled():
        figure = Figure(figsize=(WIDTH, 0.24 * len(lines) + 2.5), layout="constrained")
        axes = figure.subplots()
        axes.set_facecolor(LIGHT)
        image = axes.imshow(values, cmap="PuOr_r", vmin=0, vmax=1, aspect="auto")
        axes.plot([x for _, x in rings], [y for y, _ in rings], "o", mfc="none", mec="black", markersize=9, mew=1.3)
        axes.set_xticks(range(len(columns)), [name for _, name in columns], rotation=90)
        axes.set_yticks(range(len(lines)), [_line(*line) for line in lines])
        bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.01, ticks=[0, 0.5, 1])
        bar.ax.set_yticklabels(["lower", "alike", "higher"])
        return figure


def _line(by: str, group: str, against: str) -> str:
    return f"{by} {group}".strip() + ("" if against == "the other groups" else " (reference)")


def percentiles(record: Record) -> Figure | None:
    """How many answers lie in each tenth of the bundle's reference; even bars are no drift."""
    scores = record["scores"]
    if not scores:
        return None
    alarmed = {(r["name"], r["region"]) for r in record["alarms"] if r["what"] == "score" and not r["by"]}
    with styled():
        figure, panels = grid_of(len(scores), 4, 1.5)
        figure.supxlabel("percentile among the bundle's reference regions", fontsize=9)
        figure.supylabel("studies", fontsize=9)
        for score, axes in zip(scores, panels, strict=True):
            even, colour = score["n"] / DECILES, ORANGE if (score["finding"], score["region"]) in alarmed else BLUE
            axes.bar(np.arange(DECILES) * 10 + 5, score["counts"], width=9, color=colour)
            axes.axhline(even, color=GREY, linewidth=0.9, linestyle="--")
            axes.set_title(f"{record['labels'].get(score['finding'], score['finding'])}\n{readable(score['region'])}")
            axes.set_xticks([0, 50, 100])
        return figure


def familiarity(record: Record) -> Figure | None:
    """Distance from the training data over its limit, one panel a region, one box a group."""
    rows = [row for row in record["familiarity"] if row["quantiles"]]
    return _boxes(rows, "region", {}, "distance over its limit", 1.0) if rows else None


def inputs(record: Record) -> Figure | None:
    """Spacing and size of the series, one panel each, one box a group."""
    rows = [row for row in record["inputs"] if row["quantiles"]]
    return _boxes(rows, "name", INPUTS, "", None) if rows else None


def _boxes(rows: Sequence[Record], key: str, names: Mapping[str, str], label: str, limit: float | None) -> Figure:
    """5 to 95 % as a line, quartiles as a bar, the median as a mark; the first group, all studies, stands out."""
    kinds = list(dict.fromkeys(row[key] for row in rows))
    lines = list(dict.fromkeys((row["by"], row["group"]) for row in rows))[:MOST_GROUPS]
    with styled():
        figure, panels = grid_of(len(kinds), 4, 0.2 * len(lines) + 0.8)
        figure.set_size_inches(WIDTH, figure.get_figheight())
        for kind, axes in zip(kinds, panels, strict=True):
            axes.set_title(names.get(kind, readable(kind)))
            for row in rows:
                if row[key] == kind and (row["by"], row["group"]) in lines:
                    y = len(lines) - 1 - lines.index((row["by"], row["group"]))
                    _box(axes, row["quantiles"], y, not row["by"])
                    if row.get("unfamiliar", {}).get("k"):
                        said = f"{100 * row['unfamiliar']['value']:.0f} %"
                        axes.text(1.02, y, said, transform=axes.get_yaxis_transform(), va="center", fontsize=7, color=ORANGE)
            first = axes is panels[0]
            axes.set_yticks(range(len(lines)), [f"{by} {group}".strip() if first else "" for by, group in reversed(lines)])
            axes.set_ylim(-0.6, len(lines) - 0.4)
            axes.grid(axis="x", color=LIGHT, linewidth=0.5)
            axes.set_axisbelow(True)
            if limit is not None:
                axes.axvline(limit, color=ORANGE, linewidth=1, linestyle="--")
                axes.set_xlim(left=0)
        figure.supxlabel(label, fontsize=9)
        return figure


def _box(axes: Axes, quantiles: Sequence[float], y: int, whole: bool) -> None:
    low, first, middle, third, high = quantiles
    colour = GREEN if whole else BLUE
    axes.plot([low, high], [y, y], color=colour, linewidth=1)
    axes.plot([first, third], [y, y], color=colour, linewidth=5, alpha=0.5, solid_capstyle="butt")
    axes.plot([middle], [y], "|", color=colour, markersize=9, mew=2)
