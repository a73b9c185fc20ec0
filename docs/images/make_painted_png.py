"""Draws docs/images/painted.png: a made-up label map, and CT painted on it with the link to histology and with the link cut.

python docs/images/make_painted_png.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from medvl.geometry import Geometry
from medvl.imaging.painted.scene import Tumour, body_around, paint
from medvl.imaging.phantom.truth import Scanner
from medvl.imaging.resample import resample_label

LABELS = Geometry.centered((0, 0, 0), (110, 130, 220), (1.5, 1.5, 1.5))
SCAN = Geometry.centered((0, -35, 0), (60, 180, 240), (2.5, 1.7, 1.7))
LEFT, RIGHT, MASS, CYST = (66.0, 10.0, 0.0), (-66.0, 10.0, -8.0), (92.0, 4.0, 12.0), (-84.0, 0.0, 22.0)


def main() -> None:
    """One row: the labels, then avid with necrosis, mild, and the link cut; above axial, below coronal."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in LABELS.shape_dhw), indexing="ij"), -1)
    points = LABELS.to_lps(index)

    def solid(center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        return (((points - center) / radii) ** 2).sum(-1) <= 1

    labels = np.zeros(LABELS.shape_dhw, np.uint8)
    for middle, inward in ((LEFT, -1), (RIGHT, 1)):
        hilum = (middle[0] + 20 * inward, middle[1] - 6, middle[2])
        labels[solid(middle, (26, 23, 54)) & ~solid(hilum, (17, 11, 22))] = 1
    labels[solid(MASS, (26, 24, 25))] = 2
    labels[solid(CYST, (14, 14, 14))] = 3
    scanner = Scanner((2.5, 1.7, 1.7), 2.5, 0.7, 12.0, "abdomen", False, "arterial", "")
    body = body_around(LABELS, labels, 0.0, 26.0)
    paints = {
        "avid, with necrosis (linked)": Tumour("avid", necrosis=True, texture=4),
        "mild (linked)": Tumour("mild"),
        "alike (link cut)": Tumour("alike"),
    }
    fig, axes = plt.subplots(2, 4, figsize=(13, 5.6), gridspec_kw={"height_ratios": [1.25, 1]})
    d, h = (int(v) for v in np.rint(SCAN.to_index(MASS))[:2])
    seen = np.ma.masked_equal(resample_label(labels, LABELS, SCAN), 0)
    views = {"labels: kidney, tumour, cyst": seen}
    views |= {
        name: paint(labels, LABELS, SCAN, scanner, tumour, body, np.random.default_rng(0)).hu for name, tumour in paints.items()
    }
    for (name, array), column in zip(views.items(), axes.T, strict=True):
        look = {"cmap": "Set2", "vmin": 1, "vmax": 3} if array is seen else {"cmap": "gray", "vmin": -160, "vmax": 240}
        column[0].imshow(array[d], aspect=1, interpolation="nearest", **look)
        column[1].imshow(array[::-1, h], aspect=2.5 / 1.7, interpolation="nearest", **look)
        column[0].set_title(name, fontsize=11)
        for axis in column:
            axis.set_xticks([])
            axis.set_yticks([])
    axes[0, 0].set_ylabel("axial")
    axes[1, 0].set_ylabel("coronal")
    fig.tight_layout()
    fig.savefig(Path(__file__).with_name("painted.png"), dpi=80)


if __name__ == "__main__":
    main()
