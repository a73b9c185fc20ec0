"""Radiomics as a baseline: against the IBSI's reference values, and beside the deep model on held-out phantoms.

    python benchmarks/radiomics.py --ibsi ../shared/data/dicom/lung_tumour_ibsi1
    python benchmarks/radiomics.py --phantoms

Phantoms: features come from TRUE masks, an oracle that no patient offers: the kidney with its lesions for what may be in it, the
mass for what a mass is like. A ridge logistic learns from some validation phantoms, its ridge comes from others, and the measure
is taken on test phantoms. The deep model reads the same crops without a mask: zero-shot, and by the same kind of probe on its
pooled features, fitted on the same patients. Features are kept under --out, so the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from radiomics_tables import compare, grid

from medvl.data.cohort import Cohort, PhantomCohort, build_phantom, crop_geometry, open_cohort
from medvl.errors import InputError
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.phantom_truth import patient_of
from medvl.geometry import Geometry
from medvl.imaging.nifti import read_nifti
from medvl.imaging.phantom.anatomy import build
from medvl.imaging.phantom.render import lesion_masks
from medvl.imaging.phantom.shapes import Canvas
from medvl.imaging.phantom.truth import Patient
from medvl.imaging.preprocess import MIN_COVERED
from medvl.imaging.radiomics import FAMILIES, LEFT_OUT, RadiomicsSettings, radiomics
from medvl.records import Volume

SEED = 11
STARTS = {"validation": (100000, 500), "test": (200000, 300)}
EVERY = tuple(FAMILIES)
IBSI: dict[str, tuple[RadiomicsSettings, ...]] = {
    "a": tuple(
        RadiomicsSettings(EVERY, None, False, 25.0, (-500.0, 400.0), way, None, None)  # type: ignore[arg-type]
        for way in ("2D_avg", "2D_comb", "2_5D_avg", "2_5D_comb")
    ),
    "c": tuple(
        RadiomicsSettings(EVERY, 2.0, False, 25.0, (-1000.0, 400.0), way, 2.5, None)  # type: ignore[arg-type]
        for way in ("3D_avg", "3D_comb")
    ),
}


def main() -> None:
    """Check, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ibsi", type=Path, help="folder of the IBSI's lung tumour and its reference values")
    parser.add_argument("--phantoms", action="store_true")
    parser.add_argument("--bundle", type=Path, default=Path("configs/bundles/phantom-demo"))
    parser.add_argument("--cohorts", type=Path, nargs="+", default=[Path("runs/cohorts"), Path("runs/drafts")])
    parser.add_argument("--out", type=Path, default=Path("runs/radiomics"))
    parser.add_argument(
        "--patients", type=int, nargs=2, default=[300, 300], help="validation phantoms to learn from, test phantoms"
    )
    parser.add_argument("--only", choices=STARTS, help="compute the features of this split and stop")
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    if options.ibsi:
        print(ibsi_table(options.ibsi))
    if options.phantoms:
        phantoms(options)


def compare_ibsi(folder: Path, name: str) -> list[tuple[str, float, float, float]]:
    """(feature, ours, reference, tolerance) of configuration `name`, NaN where it is not computed."""
    volume = read_nifti(folder / "repo_image.nii.gz")
    mask = np.asarray(nib.load(folder / "repo_mask.nii.gz").dataobj).T
    ours: dict[str, float] = {}
    for settings in IBSI[name]:
        ours |= radiomics(volume, mask, settings=settings)
    with (folder / f"ibsi_reference_config_{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter=";") if row["tolerance"] and is_feature(row["tag"])]
    return [(r["tag"], ours.get(r["tag"], np.nan), float(r["reference value"]), float(r["tolerance"])) for r in rows]


def is_feature(tag: str) -> bool:
    """Not one of the IBSI's checks of image and mask on the way."""
    return tag.split("_", maxsplit=1)[0] in FAMILIES and not tag.endswith("_roi")


def agrees(ours: float, reference: float, tolerance: float) -> bool:
    """Within the tolerance, or the same in the three digits that the reference is printed in."""
    return abs(ours - reference) <= tolerance or float(f"{ours:.3g}") == reference


def ibsi_table(folder: Path) -> str:
    """How many features of each family agree, and what does not."""
    head = ["family", *(f"configuration {name.upper()}" for name in IBSI)]
    found = {name: compare_ibsi(folder, name) for name in IBSI}
    lines = []
    for family, words in FAMILIES.items():
        cells = []
        for rows in found.values():
            known = [row for row in rows if row[0].split("_")[0] == family]
            cells.append(f"{sum(agrees(*row[1:]) for row in known)} of {len(known)}")
        lines.append([words, *cells])
    lines.append(["all", *(f"{sum(agrees(*row[1:]) for row in rows)} of {len(rows)}" for rows in found.values())])
    out = [row for rows in found.values() for row in rows if not agrees(*row[1:])]
    told = ", ".join(f"{tag} ({'not computed' if np.isnan(v) else f'{v:.4g}'}, reference {ref:g})" for tag, v, ref, _ in out)
    return f"{grid(head, lines)}\n\nNot in agreement: {told}; left out on purpose are {', '.join(LEFT_OUT)}."


def phantoms(options: argparse.Namespace) -> None:
    """Compute what is missing, fit, measure, print."""
    from medvl.inference.predictor import Predictor
    from medvl.models.bundle import open_bundle

    predictor = Predictor(open_bundle(options.bundle))
    options.out.mkdir(parents=True, exist_ok=True)
    rows, deep = {}, {}
    for (split, (start, n)), wanted in zip(STARTS.items(), options.patients, strict=True):
        if options.only not in (None, split):
            continue
        which = PhantomCohort(SEED, start, n)
        places = [folder / which.key(predictor.contract) for folder in options.cohorts]
        place = next((p for p in places if (p / "cohort.json").exists()), None)
        cohort = open_cohort(place) if place else build_phantom(options.out, which, predictor.contract)
        rows[split] = features_of(options.out / f"{split}.jsonl", cohort, predictor.contract, wanted, split)
        deep[split] = embedded(options.out, predictor, cohort, wanted, split)
    if not options.only:
        print(compare(rows, deep, options.draws))


def embedded(out: Path, predictor: Any, cohort: Cohort, wanted: int, split: str) -> Embedded:
    """What the deep model makes of the same crops."""
    from medvl.inference.embed import embed_cohort

    place = out / f"embedded-{split}-{wanted}"
    if not (place / "arrays.safetensors").exists():
        embed_cohort(predictor, cohort, {"cohort": f"phantom seed {SEED}", "split": split, "way": "crops"}, first=wanted).save(
            place
        )
    return Embedded.load(place)


def kidney_mask(patient: Patient, side: str, geometry: Geometry, lesions: dict[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """(D, H, W) one kidney with its lesions, from the phantom's own anatomy."""
    anatomy = build(patient)
    mask = np.zeros(geometry.shape_dhw, bool)
    found = anatomy.kidneys[side].outline.coverage(Canvas.over(geometry, geometry.spacing_mm[0], anatomy.turn_deg))
    if found is not None:
        mask[found[0]] = found[1] >= 0.5
    for name, lesion in lesions.items():
        if name.endswith(f"@kidney_{side}"):
            mask |= lesion
    return mask


def features_of(
    path: Path, cohort: Cohort, contract: Any, wanted: int, split: str
) -> dict[tuple[str, str, str], dict[str, float]]:
    """Features by (patient, region, `kidney` or `mass`) of the first patients; an empty mapping where the mask was refused."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {tuple(row["of"]): row["values"] for row in map(json.loads, lines)}
    started, before = time.process_time(), len(done)
    with path.open("a", encoding="utf-8") as file:
        for i in range(wanted):
            patient = patient_of(cohort.cases[i]["truth"])
            for spec in contract.regions:
                column = cohort.regions.index(spec.name)
                if not spec.name.startswith("kidney") or cohort.covered[i, column] < MIN_COVERED:
                    continue
                for part, mask, volume in parts_of(patient, spec, np.asarray(cohort.hu[i, column]), done):
                    key = (patient.patient_id, spec.name, part)
                    try:
                        done[key] = dict(radiomics(volume, mask))
                    except InputError as error:
                        done[key] = {}
                        print(f"{key}: {error}", file=sys.stderr)
                    print(json.dumps({"of": key, "values": done[key]}), file=file, flush=True)
    spent = time.process_time() - started
    print(f"{split}: {len(done) - before} regions in {spent:.0f} CPU seconds", file=sys.stderr)
    taken = {str(case["patient_id"]) for case in cohort.cases[:wanted]}
    return {key: values for key, values in done.items() if key[0] in taken}  # type: ignore[misc]


def parts_of(
    patient: Patient, spec: Any, hu: NDArray[np.int16], done: dict[Any, Any]
) -> list[tuple[str, NDArray[np.bool_], Volume]]:
    """The masks of one crop that have not been looked at."""
    mass = (patient.kidney_left if spec.name == "kidney_left" else patient.kidney_right).mass is not None
    missing = [p for p in ("kidney", "mass")[: 1 + mass] if (patient.patient_id, spec.name, p) not in done]
    if not missing:
        return []
    geometry = crop_geometry(patient, spec, PhantomCohort(SEED, 0, 1).jitter_mm)
    lesions = lesion_masks(patient, geometry)
    volume, side = Volume(hu, geometry), spec.name.rpartition("_")[2]
    masks = {"mass": lesions.get(f"renal_mass@{spec.name}"), "kidney": kidney_mask(patient, side, geometry, lesions)}
    return [(part, masks[part], volume) for part in missing]  # type: ignore[misc]


if __name__ == "__main__":
    main()
