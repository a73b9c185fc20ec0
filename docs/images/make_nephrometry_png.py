"""Draws how R.E.N.A.L. parts come from a mask: python docs/images/make_nephrometry_png.py. The kidney is made of ellipsoids."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt

from medvl.geometry import Geometry
from medvl.imaging.mask_shape import KIDNEY, TUMOUR, KidneyMask
from medvl.imaging.nephrometry import Anatomy, Rules, anatomy, nephrometry

COLOURS = {"outline": "#d7dee6", "kidney": "#7f9db9", "sinus": "#f2c45a", "tumour": "#c05a2b"}
RULES = Rules(grid_mm=1.0)


def model() -> KidneyMask:
    """A left kidney, hilum towards the midline and the front, with a ball on its upper lateral border."""
    g = Geometry.centered((0, 0, 0), (140, 110, 120), (1.0, 1.0, 1.0))
    x, y, z = np.moveaxis(g.to_lps(np.moveaxis(np.indices(g.shape_dhw), 0, -1)), -1, 0)
    medial, front = -0.85 * x - 0.53 * y, 0.53 * x - 0.85 * y
    tilted = z + 0.25 * medial
    labels = np.where((medial / 24) ** 2 + (front / 22) ** 2 + (tilted / 54) ** 2 <= 1, KIDNEY, 0).astype(np.uint8)
    labels[((medial - 22) / 17) ** 2 + (front / 9) ** 2 + (tilted / 25) ** 2 <= 1] = 0
    labels[(medial + 17) ** 2 + (front - 8) ** 2 + (tilted - 24) ** 2 <= 15**2] = TUMOUR
    return KidneyMask("left", labels, g, False, False)


def main() -> None:
    """Two cuts through the kidney, along and across its own axis."""
    kidney = model()
    found = anatomy(kidney, kidney.labels == TUMOUR, RULES)
    got = nephrometry(kidney, RULES)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 6), constrained_layout=True)
    tumour = found.geometry.to_lps(np.argwhere(found.tumour)).mean(0) - found.center_lps
    up, to_sinus, front = found.axes
    cut(left, found, (to_sinus, up), tumour @ front * 0.6 * front)
    cut(right, found, (to_sinus, front), tumour @ up * up * 0.55)
    along = (found.geometry.to_lps(np.argwhere(found.sinus)) - found.center_lps) @ up
    for level in np.quantile(along, [RULES.polar_tail, 1 - RULES.polar_tail]):
        left.axhline(level, color="#1f3b57", linewidth=1, linestyle="--")
        left.text(-43, level + 1.5, "polar line", fontsize=8, color="#1f3b57")
    right.axhline(0, color="#1f3b57", linewidth=1, linestyle="--")
    right.text(13, 1.5, "mid-coronal plane", fontsize=8, color="#1f3b57")
    left.set_title("coronal cut of the kidney's own axes", fontsize=10)
    right.set_title("cut across its long axis (front is up)", fontsize=10)
    for k, (name, colour) in enumerate(COLOURS.items()):
        left.text(
            26,
            50 - 7 * k,
            "outline (line)" if name == "outline" else name,
            color="black",
            fontsize=8,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 2},
        )
    facts = (
        f"R {got.diameter_mm:.0f} mm ({got.score.radius})   E {got.share_outside:.0%} outside ({got.score.exophytic})   "
        f"N {got.sinus_mm:.0f} mm ({got.score.nearness})   A {got.share_anterior:.0%} in front ({got.score.face})   "
        f"L {got.share_between:.0%} between ({got.score.location})   sum {got.score}"
    )
    figure.suptitle(facts, fontsize=10)
    figure.savefig(Path(__file__).with_name("nephrometry.png"), dpi=90)


def cut(axis: plt.Axes, found: Anatomy, plane: tuple[np.ndarray, np.ndarray], offset: np.ndarray) -> None:
    """One plane through the masks, mm from the middle of the outline."""
    ticks = np.arange(-62, 62, 0.5)
    across, along = np.meshgrid(ticks, ticks)
    points = found.center_lps + offset + across[..., None] * plane[0] + along[..., None] * plane[1]
    index = np.rint(found.geometry.to_index(points)).astype(int)
    inside = ((index >= 0) & (index < found.geometry.shape_dhw)).all(-1)
    place = tuple(np.moveaxis(np.where(inside[..., None], index, 0), -1, 0))
    picture = np.ones((*across.shape, 3))
    for name, colour in COLOURS.items():
        mask = getattr(found, name)
        picture[mask[place] & inside] = matplotlib.colors.to_rgb(colour)
    axis.imshow(picture, origin="lower", extent=(-62, 62, -62, 62))
    axis.contour(across, along, (found.outline[place] & inside).astype(float), [0.5], colors="#1f3b57", linewidths=1.2)
    axis.set(xlabel="mm towards the sinus", ylabel="mm", xlim=(-45, 45), ylim=(-58, 58))


if __name__ == "__main__":
    main()
