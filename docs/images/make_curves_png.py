"""Draws the curves of a training run: python docs/images/make_curves_png.py RUN (a `medvl train` folder with curves.jsonl)."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PANELS = (
    ("attributes", ("kidney", "chest"), "attribute loss"),
    ("attributes", ("renal_mass", "renal_cyst", "renal_stone", "coronary_calcification"), "validation AUROC of the heads"),
    ("text", ("kidney", "chest"), "text stage, attribute loss"),
    ("localiser", ("loss",), "localiser"),
    ("align joint", ("pairs", "assertions", "attributes"), "alignment, both towers"),
    ("align statements", ("assertions",), "alignment, statements"),
)


def main() -> None:
    """One panel a stage."""
    rows = [json.loads(line) for line in (Path(sys.argv[1]) / "curves.jsonl").read_text(encoding="utf-8").splitlines()]
    figure, axes = plt.subplots(2, 3, figsize=(12, 6), constrained_layout=True)
    for axis, (stage, keys, title) in zip(axes.flat, PANELS, strict=True):
        for key in keys:
            points = [(row["step"], row[key]) for row in rows if row["stage"] == stage and key in row]
            if points:
                axis.plot(*zip(*points, strict=True), label=key, linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.legend(fontsize=8)
    figure.savefig(Path(__file__).with_name("demo-curves.png"), dpi=90)


if __name__ == "__main__":
    main()
