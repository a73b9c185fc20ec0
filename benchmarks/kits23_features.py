"""Mask features of KiTS23 cases, kept in one Parquet file: shape of the largest tumour at native resolution, R.E.N.A.L. parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from medvl.geometry import Geometry
from medvl.imaging.kidney_anatomy import Rules
from medvl.imaging.mask_shape import CYST, KIDNEY, TUMOUR, KidneyMask, mask_shape, parts, split_kidneys
from medvl.imaging.nephrometry import Nephrometry, nephrometry
from medvl.imaging.nifti import read_labels

VARIANTS = {
    "as defined": Rules(),
    "grid 2 mm": Rules(grid_mm=2.0),
    "rim 2 mm": Rules(rim_mm=2.0),
    "rim 5 mm": Rules(rim_mm=5.0),
    "closing 20 mm for the hull": Rules(outline="closing"),
    "sinus opened by 1 mm": Rules(opening_mm=1.0),
    "sinus opened by 4 mm": Rules(opening_mm=4.0),
}


def features(data: Path, keep: Path) -> pd.DataFrame:
    """One row a case; cases that are in `keep` already are not computed again, and each 20 new ones are kept."""
    stats = pd.read_csv(data / "mask_stats.csv", index_col=0)
    done = pd.read_parquet(keep) if keep.is_file() else pd.DataFrame()
    seen = set(done["case_id"]) if len(done) else set()
    rows = [{str(k): v for k, v in row.items()} for row in done.to_dict("records")]
    left = [case for case in stats.index if case not in seen]
    for n, case in enumerate(left, 1):
        rows.append({"case_id": case, **case_features(data, case, stats.loc[case])})
        if n % 20 == 0 or n == len(left):
            keep.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_parquet(keep.with_suffix(".part"))
            keep.with_suffix(".part").replace(keep)
            print(f"{len(rows)} of {len(stats)} cases", flush=True)
    return pd.DataFrame(rows)


def case_features(data: Path, case: str, stats: pd.Series) -> dict[str, object]:
    """Shape and R.E.N.A.L. of the kidney with the largest tumour of one case."""
    kidneys, labels, geometry = read_case(data, case, stats)
    if not kidneys:
        return {"problem": "no kidney of 10 mL"}
    voxels = [int((k.labels == TUMOUR).sum()) for k in kidneys]
    kidney = kidneys[int(np.argmax(voxels))]
    tumour = parts(kidney.labels == TUMOUR, kidney.geometry)[0]
    shape = mask_shape(tumour, kidney.geometry)
    found = nephrometry(thinned(kidney))
    ml = geometry.voxel_ml
    return {
        "problem": "joined kidneys" if kidney.joined else "",
        "side": kidney.side,
        "n_kidneys": len(kidneys),
        "slice_mm": geometry.spacing_mm[next(k for k, letter in enumerate(geometry.axes) if letter in "SI")],
        "tumour_ml": float((labels == TUMOUR).sum()) * ml,
        "kidney_ml": float((labels == KIDNEY).sum()) * ml,
        "cyst_ml": float((labels == CYST).sum()) * ml,
        "n_tumours": sum(len(parts(k.labels == TUMOUR, k.geometry, 0.5)) for k in kidneys),
        "largest_ml": shape.volume_ml,
        "surface_mm2": shape.surface_mm2,
        "sphericity": shape.sphericity,
        "feret_mm": shape.feret_mm,
        "axial_mm": shape.axial_mm,
        "major_mm": shape.axes_mm[0],
        "elongation": shape.axes_mm[1] / max(shape.axes_mm[0], 1e-6),
        "flatness": shape.axes_mm[2] / max(shape.axes_mm[0], 1e-6),
        "height_mm": shape.extent_mm[2],
        "diameter_mm": shape.diameter_mm,
        **nephrometry_row(found),
    }


def nephrometry_row(found: Nephrometry) -> dict[str, object]:
    """The parts as columns."""
    return {
        "share_outside": found.share_outside,
        "sinus_mm": found.sinus_mm,
        "share_anterior": found.share_anterior,
        "share_between": found.share_between,
        "sinus_ml": found.sinus_ml,
        "own_kidney_ml": found.kidney_ml,
        "R": found.score.radius,
        "E": found.score.exophytic,
        "N": found.score.nearness,
        "L": found.score.location,
        "A": found.score.face,
        "total": found.score.total,
        "complexity": found.score.complexity,
        "why": "; ".join(sorted(set(found.unknown.values()))),
    }


def read_case(data: Path, case: str, stats: pd.Series) -> tuple[tuple[KidneyMask, ...], np.ndarray, Geometry]:
    """Kidneys, labels and geometry; the middle of the scan's field of view is taken for the midline."""
    labels, geometry = read_labels(data / "native_crop" / f"{case}.nii.gz")
    # the table names the file's axes; an array that was read has them in reverse
    shape, offset = ([int(n) for n in str(stats[name]).split("x")][::-1] for name in ("shape", "crop_offset"))
    middle = geometry.to_lps((np.array(shape) - 1) / 2 - np.array(offset))
    return split_kidneys(labels, geometry, float(middle[0])), labels, geometry


def thinned(kidney: KidneyMask, edge_mm: float = 1.5) -> KidneyMask:
    """Every k-th voxel along each axis, so that steps stay within `edge_mm` where they were finer."""
    steps = [max(1, int(edge_mm / s)) for s in kidney.geometry.spacing_mm]
    labels = kidney.labels[tuple(slice(None, None, k) for k in steps)]
    affine = kidney.geometry.affine_lps @ np.diag([*steps, 1])
    return replace(kidney, labels=labels, geometry=Geometry(labels.shape, affine))


def stability(data: Path, every: int) -> pd.DataFrame:
    """Parts of each n-th case under each variant of the definitions."""
    stats = pd.read_csv(data / "mask_stats.csv", index_col=0)
    rows = []
    for case in stats.index[::every]:
        kidneys, _, _ = read_case(data, case, stats.loc[case])
        kidney = thinned(max(kidneys, key=lambda k: int((k.labels == TUMOUR).sum())))
        rows += [{"case_id": case, "variant": name, **nephrometry_row(nephrometry(kidney, r))} for name, r in VARIANTS.items()]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    import sys

    features(Path(sys.argv[1]), Path(sys.argv[2]))
