"""How far a tumour disturbs the proxies of R.E.N.A.L.: balls put into kidneys without one, whose outline and sinus are known.

The kidney opposite to the tumour is measured whole, a ball is cut out of it as a tumour, and the parts are computed from that
mask alone. The truth is what the same ball gives against the outline, sinus and axes of the whole kidney. Claw signs, stretching
and shrunken parenchyma are not imitated, so these errors are a lower bound.

    python benchmarks/nephrometry_implants.py --data FOLDER
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from kits23_features import thinned

from medvl.imaging.kidney_anatomy import Anatomy, Rules, anatomy
from medvl.imaging.mask_shape import TUMOUR, KidneyMask, split_kidneys
from medvl.imaging.nephrometry import nephrometry
from medvl.imaging.nifti import read_labels
from medvl.renal_score import growth_class, nearness_class, polar_class

RADII_MM = (10.0, 15.0, 20.0, 30.0)
NUMBERS = ("share_outside", "sinus_mm", "share_anterior", "share_between")
CLASSES = ("mass_growth", "mass_nearness", "mass_face", "mass_polar_lines")


def main() -> None:
    """Put balls in, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with native_crop/")
    parser.add_argument("--every", type=int, default=8, help="each n-th case")
    parser.add_argument("--max-voxels", type=float, default=3e6)
    parser.add_argument("--endophytic", type=float, default=Rules().endophytic)
    parser.add_argument("--grid-mm", type=float, default=Rules().grid_mm)
    options = parser.parse_args()
    rules = Rules(endophytic=options.endophytic, grid_mm=options.grid_mm)
    rng = np.random.default_rng(0)
    rows = []
    for path in sorted((options.data / "native_crop").glob("*.nii.gz"))[:: options.every]:
        labels, geometry = read_labels(path)
        kidneys = split_kidneys(labels, geometry) if labels.size <= options.max_voxels else ()
        for kidney in map(thinned, kidneys):
            if len(kidneys) == 2 and not (kidney.labels >= TUMOUR).any():
                rows += [implant(kidney, radius, rules, rng) for radius in RADII_MM]
    table = pd.DataFrame(rows)
    print(f"{len(table)} balls in {len(table) // len(RADII_MM)} kidneys")
    for name in NUMBERS:
        gap = (table[f"got_{name}"] - table[f"true_{name}"]).dropna()
        print(f"{name}: n {len(gap)}, mean error {gap.mean():.3f}, mean absolute error {gap.abs().mean():.3f}")
    for name in CLASSES:
        known = table[[f"true_{name}", f"got_{name}"]].dropna()
        same = (known.iloc[:, 0] == known.iloc[:, 1]).mean()
        print(f"{name}: n {len(known)}, same class {same:.3f}")
        print(pd.crosstab(known.iloc[:, 0], known.iloc[:, 1]).to_string())
    inside = table[table.true_share_outside <= rules.negligible].got_share_outside
    print("balls wholly inside: share found outside, quantiles .5 .75 .9:", inside.quantile([0.5, 0.75, 0.9]).round(3).tolist())


def implant(kidney: KidneyMask, radius_mm: float, rules: Rules, rng: np.random.Generator) -> dict[str, object]:
    """True and computed parts of one ball, whose centre lies on a random ray at a random depth about the outline."""
    whole = anatomy(kidney, kidney.labels == TUMOUR, rules)
    edge = whole.geometry.to_lps(np.argwhere(whole.outline)) - whole.center_lps
    away = edge[rng.integers(len(edge))]
    away = away / max(float(np.linalg.norm(away)), 1e-6)
    along = edge @ away
    near = np.linalg.norm(edge - along[:, None] * away, axis=1) < 2.0
    middle = whole.center_lps + (along[near].max() + radius_mm * rng.uniform(-1.5, 0.7)) * away
    room = int(np.ceil(2 * radius_mm / min(kidney.geometry.spacing_mm)))
    labels = np.pad(kidney.labels, room)
    geometry = kidney.geometry.crop((-room, -room, -room), labels.shape)
    points = geometry.to_lps(np.moveaxis(np.indices(labels.shape), 0, -1))
    ball = np.square(points - middle).sum(-1) <= radius_mm**2
    labels[ball] = TUMOUR
    got = nephrometry(replace(kidney, labels=labels, geometry=geometry), rules)
    found = {name: getattr(got, name) for name in NUMBERS} | dict(got.classes)
    true = truth(whole, points[ball], middle, radius_mm, rules)
    return {f"true_{k}": true[k] for k in true} | {f"got_{k}": found.get(k) for k in true}


def truth(whole: Anatomy, ball: np.ndarray, middle: np.ndarray, radius_mm: float, rules: Rules) -> dict[str, object]:
    """Parts of a ball's voxels (N, 3) against the outline, sinus and axes of the kidney before it came."""
    index = np.rint(whole.geometry.to_index(ball)).astype(int)
    on = ((index >= 0) & (index < whole.geometry.shape_dhw)).all(1)
    outside = 1 - whole.outline[tuple(index[on].T)].sum() / len(ball)
    up, _, front = ((ball - whole.center_lps) @ axis for axis in whole.axes)
    face = (front > 0).mean()
    shape = (whole.geometry.to_lps(np.argwhere(whole.outline)) - whole.center_lps) @ whole.axes[0]
    above = (up > (shape.min() + shape.max()) / 2).mean()
    got: dict[str, object] = {
        "share_outside": outside,
        "share_anterior": face,
        "mass_growth": growth_class(outside, rules.negligible),
        "mass_face": "anterior" if face >= rules.face_share else "posterior" if face <= 1 - rules.face_share else "neither",
    }
    if whole.sinus is None:
        return got | dict.fromkeys(("sinus_mm", "share_between", "mass_nearness", "mass_polar_lines"))
    sinus = whole.geometry.to_lps(np.argwhere(whole.sinus))
    reach = max(0.0, float(np.linalg.norm(sinus - middle, axis=1).min()) - radius_mm - rules.grid_mm / 2)
    low, high = np.quantile((sinus - whole.center_lps) @ whole.axes[0], [rules.polar_tail, 1 - rules.polar_tail])
    between = ((up >= low) & (up <= high)).mean()
    crosses = min(above, 1 - above) > rules.negligible
    return got | {
        "sinus_mm": reach,
        "share_between": between,
        "mass_nearness": nearness_class(reach),
        "mass_polar_lines": polar_class(between, crosses, rules.negligible),
    }


if __name__ == "__main__":
    main()
