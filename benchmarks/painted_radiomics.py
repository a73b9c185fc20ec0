"""Radiomics of the true tumour beside the image tower, on the same painted patients, splits and folds.

The mask is KiTS23's own, so its shape is real; the HU in it are painted. Radiomics reads a scan of the scanner and paint that the
image tower learns from: the kidney with the largest tumour, arterial, 48^3 voxels of 2.5 mm (the tower: 24^3 of 5 mm, both
120 mm), and is told where the tumour is. What a mask says by definition (size, place, growth, that it is there) is not asked.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from painted_survival import Block, Ranked, out_of_fold
from painted_targets import PATHOLOGY, clinical_features, main_rows
from radiomics_tables import ranked

from medvl.data.painted_cohort import SPLITS, Case, PaintedCohort, painted_crop, read_case
from medvl.errors import InputError
from medvl.evaluation.intervals import Weighted, bootstrap, paired_bootstrap
from medvl.evaluation.metrics import auroc_of, harrell_of
from medvl.heads.probe import fit_linear_probe
from medvl.imaging.painted.scene import TUMOUR, label_shares
from medvl.imaging.phantom.truth import Side
from medvl.imaging.preprocess import RegionSpec
from medvl.imaging.radiomics import radiomics
from medvl.records import Volume
from medvl.training.samples import KindData

GRID, STEP_MM = (48, 48, 48), (2.5, 2.5, 2.5)
SPEC = RegionSpec("kidney", GRID, STEP_MM, ((-150.0, 250.0),))
OF_HU = ("morph_com", "morph_integ_int")  # the IBSI counts them as shape, yet they weigh by HU
Array = NDArray[np.float64]
Found = dict[str, dict[str, float]]


def features_of(path: Path, data: Path, seed: int, link: bool) -> Found:
    """Features of every patient's main tumour, by case; an empty mapping where the mask was refused. Kept in `path`."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done: Found = {row["case"]: row["values"] for row in map(json.loads, lines)}
    path.parent.mkdir(parents=True, exist_ok=True)
    started, before = time.process_time(), len(done)
    with path.open("a", encoding="utf-8") as file:
        for split in SPLITS:
            cohort = PaintedCohort(data, split, seed, ("arterial",), link)
            for row in cohort.rows():
                name = str(row["case_id"])
                if name not in done:
                    done[name] = of_case(cohort, read_case(data, row))
                    print(json.dumps({"case": name, "values": done[name]}), file=file, flush=True)
    if len(done) > before:
        spent = time.process_time() - started
        print(f"radiomics of {len(done) - before} painted tumours: {spent:.0f} CPU seconds", file=sys.stderr)
    return done


def of_case(cohort: PaintedCohort, case: Case) -> dict[str, float]:
    """Features of all tumour in the crop of the kidney with the largest one; none where it holds fewer than 64 voxels (1 mL)."""
    side = main_side(case)
    if side is None:
        return {}
    grid = SPEC.geometry(np.array(case.kidneys[side].center_lps))
    mask = label_shares(case.labels, case.geometry, grid)[TUMOUR] >= 0.5
    try:
        return dict(radiomics(Volume(painted_crop(cohort, case, side, SPEC, "arterial"), grid), mask))
    except InputError:
        return {}


def main_side(case: Case) -> Side | None:
    """The kidney whose largest tumour is the largest; None where no tumour is known."""
    sizes = {side: facts.tumours[0].size_mm for side, facts in case.kidneys.items() if facts.tumours}
    return max(sizes, key=lambda side: (sizes[side], side == "right")) if sizes else None


def is_shape(name: str) -> bool:
    """A feature of the mask alone, which no paint can change."""
    return name.startswith("morph_") and name not in OF_HU


def compare(parts: Mapping[str, KindData], pooled: Mapping[str, Array], found: Found, draws: int, seed: int) -> dict[str, Any]:
    """Radiomics, its real part (shape) and the image tower on the patients that all of them have.

    Args:
        parts: the kidneys of each split.
        pooled: (N, P) image features of their rows.
        found: of `features_of`.
        draws: of the bootstrap over patients.
        seed: of the folds.
    """
    names = next(list(values) for values in found.values() if values)
    shape = np.array([is_shape(name) for name in names])
    rows: dict[str, dict[str, Any]] = {}
    for split, part in parts.items():
        main = {r: i for r, i in main_rows(part).items() if found.get(str(part.cohort.cases[r]["patient_id"]))}
        cases = [part.cohort.cases[r] for r in main]
        values = np.array([list(found[str(case["patient_id"])].values()) for case in cases])
        rows[split] = {"cases": cases, "image": pooled[split][list(main.values())], "radiomics": values}
        rows[split]["shape"] = values[:, shape]
    everyone = sum(len(main_rows(part)) for part in parts.values())
    told = {split: len(of["cases"]) for split, of in rows.items()}
    return {
        "patients": told,
        "refused": everyone - sum(told.values()),
        "features": {"radiomics": len(names), "shape": int(shape.sum())},
        "pathology": {target: pathology(rows, target, draws) for target in PATHOLOGY},
        "survival": survival(rows, draws, seed),
    }


def pathology(rows: Mapping[str, Mapping[str, Any]], target: str, draws: int) -> dict[str, Any]:
    """Test AUROC of ridge logistics on each kind of features, ridges from validation patients, and paired differences."""
    known = {s: [PATHOLOGY[target](c["truth"]["clinical"]) for c in of["cases"]] for s, of in rows.items()}
    use = {s: np.flatnonzero([v is not None for v in values]) for s, values in known.items()}
    y = {s: np.array([[int(known[s][i])] for i in use[s]]) for s in rows}
    labels, areas = y["test"][:, 0], {}
    for source in ("image", "shape", "radiomics"):
        x = {s: of[source][use[s]] for s, of in rows.items()}
        if source != "image":
            x = {s: ranked(x["train"], values) for s, values in x.items()}
        fitted = fit_linear_probe((x["train"], y["train"]), (x["validation"], y["validation"]), "multilabel", 1)
        areas[source] = auroc_of(labels, fitted.logits(x["test"])[:, 0])
    out = {name: told(area, len(labels), draws) for name, area in areas.items()}
    for name, other in (("radiomics", "image"), ("radiomics", "shape")):
        out[f"{name} - {other}"] = difference(areas[name], areas[other], len(labels), draws)
    return {"n": len(labels), "present": int(labels.sum()), **out}


def survival(rows: Mapping[str, Mapping[str, Any]], draws: int, seed: int) -> dict[str, Any]:
    """Harrell's C over all patients, pooled out of the folds of the deep table, and paired differences."""
    cases = [case for of in rows.values() for case in of["cases"]]
    t = np.array([c["truth"]["time_days"] for c in cases], float)
    e = np.array([c["truth"]["event"] for c in cases], bool)
    blocks: dict[str, Block] = {
        name: Ranked(np.concatenate([of[name] for of in rows.values()])) for name in ("shape", "radiomics")
    }
    blocks["image"] = np.concatenate([of["image"] for of in rows.values()])
    blocks["clinical"] = np.array([clinical_features(c) for c in cases])
    wanted = ("image", "shape", "radiomics", "clinical", "clinical + image", "clinical + shape", "clinical + radiomics")
    risks = {name: out_of_fold([blocks[part] for part in name.split(" + ")], t, e, seed) for name in wanted}
    scores = {name: harrell_of(t, e, risk) for name, risk in risks.items()}
    out = {name: told(score, len(t), draws) for name, score in scores.items()}
    for name, other in (
        ("radiomics", "image"),
        ("clinical + radiomics", "clinical + image"),
        ("clinical + radiomics", "clinical"),
    ):
        out[f"({name}) - ({other})"] = difference(scores[name], scores[other], len(t), draws)
    return {"n": len(t), "events": int(e.sum()), **out}


def told(statistic: Weighted, n: int, draws: int) -> dict[str, Any]:
    """A value of n patients with its interval."""
    return {"value": float(statistic(np.arange(n))), "ci": list(bootstrap(statistic, np.arange(n), n=draws))}


def difference(one: Weighted, other: Weighted, n: int, draws: int) -> dict[str, Any]:
    """The first minus the second, on the same draws."""
    found = paired_bootstrap(one, other, np.arange(n), n=draws)
    return {"value": found.value, "ci": [found.low, found.high]}
