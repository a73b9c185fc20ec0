"""Figures of the KiTS23 evidence: derived numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

INK, SOFT, WARM = "#1f3b57", "#7f93a8", "#c05a2b"


def draw_agreement(table: pd.DataFrame, path: Path) -> None:
    """Diameter from the mask against radiographic size, and their difference against their mean."""
    size, found = table.radiographic_size * 10, table.diameter_mm
    thick = table.slice_mm >= 3
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), constrained_layout=True)
    for rows, colour, label in ((~thick, WARM, "slices below 3 mm"), (thick, INK, "slices of 3 mm and more")):
        left.scatter(
            size[rows], found[rows], s=9, alpha=0.6, color=colour, label=f"{label} (n = {int(rows.sum())})", linewidths=0
        )
        right.scatter((size + found)[rows] / 2, (found - size)[rows], s=9, alpha=0.6, color=colour, linewidths=0)
    top = float(max(size.max(), found.max())) * 1.05
    left.plot([0, top], [0, top], color=SOFT, linewidth=1)
    for cut in (40, 70):
        left.axvline(cut, color=SOFT, linewidth=0.6, linestyle=":")
        left.axhline(cut, color=SOFT, linewidth=0.6, linestyle=":")
    left.set(xlabel="radiographic size (mm)", ylabel="largest diameter of the mask (mm)", xlim=(0, top), ylim=(0, top))
    left.legend(fontsize=8, frameon=False, loc="upper left")
    gap = found - size
    mean, spread = float(gap.mean()), 1.96 * float(gap.std())
    for level, style in ((mean, "-"), (mean - spread, "--"), (mean + spread, "--")):
        right.axhline(level, color=SOFT, linewidth=1, linestyle=style)
        right.annotate(
            f"{level:+.1f}", (1.01, level), xycoords=("axes fraction", "data"), fontsize=8, va="center", annotation_clip=False
        )
    right.set(xlabel="mean of the two (mm)", ylabel="mask minus radiographic size (mm)")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_forest(draws: Mapping[str, np.ndarray], base: str, path: Path) -> None:
    """C with its interval for each set of predictors; the value comes first in each array."""
    figure, axis = plt.subplots(figsize=(7.5, 4.4), constrained_layout=True)
    for row, values in enumerate(draws.values()):
        low, high = np.nanquantile(values[1:], [0.025, 0.975])
        axis.plot([low, high], [row, row], color=INK, linewidth=1.5)
        axis.plot(values[0], row, "o", color=INK, markersize=5)
        axis.annotate(f"{values[0]:.2f}", (1.01, row), xycoords=("axes fraction", "data"), fontsize=8, va="center")
    axis.axvline(float(draws[base][0]), color=SOFT, linewidth=0.8, linestyle=":")
    axis.axvline(0.5, color=SOFT, linewidth=0.8)
    axis.set_yticks(range(len(draws)), list(draws), fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("Harrell's C, overall survival, out of fold (95 % interval over patients)", fontsize=9)
    figure.savefig(path, dpi=90)
    plt.close(figure)
