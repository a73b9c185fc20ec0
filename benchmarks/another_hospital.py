"""What the demo bundle loses at another hospital: zero-shot AUROC on crops of both, and what of it each difference takes.

Crops lie around the true centres, without jitter, so that the localiser has no say. Intervals are by patient.
A variant is the demo site with one part of the other hospital's profile, which tells what that part costs by itself.

    python benchmarks/another_hospital.py --n 240 --variants
    python benchmarks/another_hospital.py --figure docs/images/another-hospital.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
import yaml
from matplotlib import pyplot as plt

from medvl.data.cohort import PhantomCohort, build_phantom
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.intervals import bootstrap
from medvl.evaluation.metrics import auroc
from medvl.geometry import Geometry
from medvl.imaging.phantom.render import region_centers, render
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.site import load_site, sites
from medvl.inference.embed import embed_cohort
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle

BUNDLE = Path(__file__).parents[1] / "configs" / "bundles" / "phantom-demo"
PARTS = {
    "people and findings": ("people", "findings"),
    "timing and kV": ("machines.phases", "machines.late", "machines.iodine", "machines.kvp"),
    "kernels and noise": ("machines.kernels",),
    "voxels": (
        "machines.spacing_mm",
        "machines.spacing_shares",
        "machines.in_plane_mm",
        "machines.overlap",
        "machines.overlap_shares",
    ),
    "calibration": ("machines.hu_offset",),
}


def main() -> None:
    """Measure or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", default="lakeside", help="name or YAML file")
    parser.add_argument("--n", type=int, default=240, help="patients of each")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--start", type=int, default=300_000, help="first patient; the bundle's own end before 201,000")
    parser.add_argument("--out", type=Path, default=Path("runs/another-hospital"))
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--figure", type=Path, help="draw both hospitals instead")
    given = parser.parse_args()
    if given.figure:
        draw(given.site, given.seed, given.start, given.figure)
        return
    torch.set_num_threads(1)
    predictor = Predictor(open_bundle(BUNDLE))
    wanted = {"demo": "demo", given.site: given.site}
    if given.variants:
        wanted |= dict(variants(given.site, given.out))
    found = {
        name: measure(predictor, PhantomCohort(given.seed, given.start, given.n, 0.0, site=site), given.out)
        for name, site in wanted.items()
    }
    print(table(found))
    (given.out / "another-hospital.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def variants(site: str, out: Path) -> Iterator[tuple[str, str]]:
    """(what changes, file) of the demo site with one part of the other."""
    profile = yaml.safe_load(sites().get(site, Path(site)).read_text(encoding="utf-8"))
    for name, keys in PARTS.items():
        values: dict[str, Any] = {"name": f"demo-{name.replace(' ', '-').lower()}"}
        for key in keys:
            first, _, second = key.partition(".")
            if second:
                values.setdefault(first, {})[second] = profile[first][second]
            else:
                values[first] = profile[first]
        path = out / f"{values['name']}.yaml"
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        yield f"demo, {name} of {site}", str(path)


def measure(predictor: Predictor, which: PhantomCohort, out: Path) -> dict[str, list[float]]:
    """AUROC with its interval of each finding and of their mean; findings with fewer than five of a class are left out."""
    cohort = build_phantom(out / "crops", which, predictor.contract)
    embedded = embed_cohort(predictor, cohort, {"cohort": which.site, "split": "other", "way": "crops"})
    keys = [key for key in embedded.findings if _enough(embedded, key)]
    values = {key: _auroc(embedded, np.arange(len(embedded)), key) for key in keys}
    who = embedded.rows["patient_id"].to_numpy()
    mean = bootstrap(lambda rows: float(np.nanmean([_auroc(embedded, rows, key) for key in keys])), who, n=300)
    return {"mean": [float(np.mean(list(values.values()))), *mean]} | {key: [value] for key, value in values.items()}


def _asked(embedded: Embedded, key: str) -> tuple[Any, Any]:
    column = embedded.column(key)
    return embedded.truth[:, column].astype(float), embedded.margins[:, column]


def _enough(embedded: Embedded, key: str) -> bool:
    truth, margins = _asked(embedded, key)
    used = (truth >= 0) & np.isfinite(margins)
    return bool(min((truth[used] == 1).sum(), (truth[used] == 0).sum()) >= 5)


def _auroc(embedded: Embedded, rows: Any, key: str) -> float:
    truth, margins = (values[rows] for values in _asked(embedded, key))
    used = (truth >= 0) & np.isfinite(margins)
    return auroc(truth[used], margins[used]) if len(set(truth[used])) == 2 else float("nan")


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: a row a hospital, and the findings of the first two."""
    lines = ["| crops of | mean AUROC [95 % CI] | lost |", "|---|---|---|"]
    first = next(iter(found.values()))["mean"][0]
    for name, values in found.items():
        mean, low, high = values["mean"]
        lines.append(f"| {name} | {mean:.3f} [{low:.3f}, {high:.3f}] | {first - mean:.3f} |")
    demo, other = list(found)[:2]
    lines += ["", f"| finding | {demo} | {other} |", "|---|---|---|"]
    for key in found[demo]:
        if key != "mean" and key in found[other]:
            lines.append(f"| {key} | {found[demo][key][0]:.3f} | {found[other][key][0]:.3f} |")
    return "\n".join(lines)


def draw(site: str, seed: int, start: int, path: Path) -> None:
    """The same regions of patients of both hospitals, as their scanners see them."""
    mpl.use("Agg")
    names = ("demo", site)
    figure, axes = plt.subplots(2 * len(names) // 2, 6, figsize=(12, 4.4), facecolor="black")
    for row, name in enumerate(names):
        for column, (region, patient) in enumerate(_examples(name, seed, start)):
            center = region_centers(patient)[region]
            spacing = patient.scanner.spacing_dhw_mm
            width = 130.0 if region != "chest" else 220.0
            shape = (3, int(width / spacing[1]), int(width / spacing[2]))
            hu = render(patient, Geometry.centered(center, shape, spacing)).hu[1]
            level, window = (40, 400) if region != "chest" else (40, 700)
            axis = axes[row, column]
            axis.imshow(hu, cmap="gray", vmin=level - window / 2, vmax=level + window / 2, interpolation="nearest")
            axis.set_title(f"{patient.scanner.phase.replace('_', ' ')}", color="white", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
        axes[row, 0].set_ylabel(name, color="white", fontsize=11)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=110, facecolor="black")


def _examples(name: str, seed: int, start: int) -> Iterator[tuple[str, Any]]:
    """(region, patient): a mass, a stone, hydronephrosis, a cyst, and two chests, the first of each in the cohort."""
    patients = [sample_patient(seed, start + n, load_site(name)) for n in range(120)]
    abdomen = [p for p in patients if p.scanner.coverage != "chest"]
    for wanted in ("mass", "stones", "hydronephrosis", "cysts"):
        yield next(
            (f"kidney_{k.side}", p)
            for p in abdomen
            for k in (p.kidney_left, p.kidney_right)
            if getattr(k, wanted) not in (None, (), "none")
        )
    chests = [p for p in patients if p.scanner.coverage != "abdomen"]
    yield "chest", next(p for p in chests if p.chest.cardiomegaly)
    yield "chest", next(p for p in chests if p.chest.effusion_left_mm > 0)


if __name__ == "__main__":
    main()
