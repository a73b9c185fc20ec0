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
from medvl.imaging.phantom.render import lesion_masks, region_centers, render
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.site import load_site, sites
from medvl.imaging.phantom.truth import Patient
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


SHOWN = {
    "mass": ("renal_mass@kidney", 130.0),
    "stone": ("renal_stone@kidney", 130.0),
    "hydronephrosis": ("hydronephrosis@kidney", 130.0),
    "cyst": ("renal_cyst@kidney", 130.0),
    "coronary calcium": ("coronary_calcification@chest", 230.0),
    "pleural effusion": ("pleural_effusion_left@chest", 230.0),
}


def draw(site: str, seed: int, start: int, path: Path) -> None:
    """A patient of each hospital for each finding, as their scanners see them, at the slice through its middle."""
    mpl.use("Agg")
    figure, axes = plt.subplots(2, len(SHOWN), figsize=(12, 4.5), facecolor="black")
    for row, name in enumerate(("demo", site)):
        for column, (title, patient, center, width) in enumerate(_examples(name, seed, start)):
            spacing, axis = patient.scanner.spacing_dhw_mm, axes[row, column]
            shape = (3, int(width / spacing[1]), int(width / spacing[2]))
            hu = render(patient, Geometry.centered(center, shape, spacing)).hu[1]
            axis.imshow(hu, cmap="gray", vmin=-160, vmax=240, interpolation="nearest", extent=(0, 1, 0, 1))
            told = f"{title}, {patient.scanner.phase.replace('_', ' ')}"
            axis.set_title(told, color="white", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
        axes[row, 0].set_ylabel(name, color="white", fontsize=11)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=110, facecolor="black")


def _examples(name: str, seed: int, start: int) -> Iterator[tuple[str, Any, Any, float]]:
    """(finding, patient, centre of its place in mm, width to show in mm); every patient once."""
    patients = [sample_patient(seed, start + n, load_site(name)) for n in range(120)]
    for title, (wanted, width) in SHOWN.items():
        for patient in patients:
            found = _place(patient, wanted)
            if found is not None:
                patients.remove(patient)
                yield title, patient, found, width
                break


def _place(patient: Patient, wanted: str) -> Any:
    """(3,) LPS mm of the middle of a finding, or of the region's slice through it; None where it is not there or not reached."""
    chest = wanted.endswith("chest")
    if patient.scanner.coverage == ("abdomen" if chest else "chest"):
        return None
    for region, center in region_centers(patient).items():
        if region.startswith("chest") == chest:
            grid = Geometry.centered(center, (40, 40, 40), (6.0, 6.0, 6.0) if chest else (3.0, 3.0, 3.0))
            mask = lesion_masks(patient, grid).get(wanted if chest else f"{wanted.partition('@')[0]}@{region}")
            if mask is not None and mask.sum() > 3:
                middle = grid.to_lps(np.argwhere(mask).mean(axis=0))
                return np.array([*center[:2], middle[2]]) if chest else middle
    return None


if __name__ == "__main__":
    main()
