"""Painted KiTS23 kidneys as embedded cohorts with labels, for `ten_tasks.py`: anatomy, pathology, outcome real; every HU painted.

Takes a finished run of `painted_kits23.py` and the mask features that `evidence_kits23.py` keeps. The main lesion of a patient is
that of the kidney with the largest tumour. R.E.N.A.L. parts are computed from masks. Aggressive means malignant with ISUP grade 3
or 4, or pT3 or more; indolent means malignant with grade 1 or 2 and below pT3. KiTS23 tells no cause of death and no recurrence.

    python benchmarks/ten_tasks_painted.py --data FOLDER --condition cut --to runs/ten-tasks/painted-cut
    python benchmarks/ten_tasks.py --train runs/ten-tasks/painted-cut/train --validation runs/ten-tasks/painted-cut/validation \
        --test runs/ten-tasks/painted-cut/test --labels runs/ten-tasks/painted-cut/labels.csv --out runs/ten-tasks/painted-cut
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from painted_kits23 import CONDITIONS, CONFIGS, SPLITS, painted
from painted_targets import main_rows

from medvl.evaluation.embedded import Embedded
from medvl.recipe import load_recipe
from medvl.renal_score import COUNTING
from medvl.text.prompts import load_findings
from medvl.training.features import pooled_features
from medvl.training.measure import Reader
from medvl.training.run import open_workspace, run_stages
from medvl.training.samples import KindData, kind_data

PARTS = {"R": "renal_radius", "E": "mass_growth", "N": "mass_nearness", "L": "mass_polar_lines"}
FACES = {"a": "anterior", "p": "posterior", "x": "neither"}
LATE, EARLY = ("3", "3a", "3b", "3c", "4"), ("1", "1a", "1b", "2", "2a", "2b")


def main() -> None:
    """Read the run, write folders and labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/painted"), help="of painted_kits23.py")
    parser.add_argument("--masks", type=Path, default=Path("runs/kits23/features.parquet"), help="kept by evidence_kits23.py")
    parser.add_argument("--condition", choices=CONDITIONS, default="cut")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    recipe = load_recipe(CONFIGS / "recipes" / "painted-kidney.yaml", [f"seed={options.seed}"])
    findings = load_findings(CONFIGS / "findings" / "painted.yaml")
    place = options.out / options.condition.replace(", ", "_").replace(" ", "-") / str(options.seed)
    stages = list((place / "stages").glob("align-*/weights.safetensors"))
    if not stages:
        sys.exit(f"no finished run in {place}; train it first: python benchmarks/painted_kits23.py --only '{options.condition}'")
    quiet = lambda *_: None  # noqa: E731
    cohorts = {split: painted(options, recipe, split, CONDITIONS[options.condition][0], quiet) for split in SPLITS}
    given = {split: cohorts[split] for split in SPLITS[:2]}
    work = open_workspace(recipe, place, options.out, quiet, findings, given=given)
    trained = run_stages(work)
    reader = Reader(trained.system, recipe.kinds, findings, work.concepts)
    masks, labels = pd.read_parquet(options.masks).set_index("case_id"), []
    for split, cohort in cohorts.items():
        part = kind_data(recipe, cohort)["kidney"]
        seen = reader.features(part, fuse_phases=False).float().numpy()
        pooled = pooled_features(trained.system.clip, part).numpy()
        table = embedded(part, seen, pooled, split, f"painted {options.condition}", stages[0].parent.name)
        table.save(options.to / split)
        labels += [labels_of(part, row, i, masks) for row, i in main_rows(part).items()]
        print(f"{split}: {len(table)} kidneys", file=sys.stderr)
    pd.DataFrame(labels).to_csv(options.to / "labels.csv", index=False)


def embedded(part: KindData, seen: Any, pooled: Any, split: str, name: str, sha256: str) -> Embedded:
    """Kidneys of one split; no findings are asked."""
    cases = [part.cohort.cases[int(r)] for r in part.texts.rows]
    who = [case["patient_id"] for case in cases]
    regions = [part.cohort.regions[int(c)] for c in part.texts.columns]
    rows = pd.DataFrame({"patient_id": who, "region": regions, "kind": "kidney", "report": "", "reason": ""})
    clinical = [case["truth"]["clinical"] for case in cases]
    people = pd.DataFrame(
        [{"age_years": c["age_at_nephrectomy"], "sex": c["gender"], "bmi": c["bmi"]} for c in clinical], index=who
    )
    none = np.zeros((len(who), 0), np.int8)
    about = {"model": name, "model_sha256": sha256, "split": split, "way": "crops"}
    unit = (seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float32)
    reports = np.full_like(unit, np.nan)
    return Embedded(
        rows, people[~people.index.duplicated()], unit, pooled, reports, (), none.astype(np.float32), none, none, about
    )


def labels_of(part: KindData, row: int, sample: int, masks: pd.DataFrame) -> dict[str, Any]:
    """One lesion: mask classes where the mask's lesion is on the same side, pathology, and death of any cause."""
    case = part.cohort.cases[row]
    truth = case["truth"]
    region, clinical = part.cohort.regions[int(part.texts.columns[sample])], truth["clinical"]
    found: dict[str, Any] = {"patient_id": case["patient_id"], "region": region}
    found["size_mm"] = truth["kidneys"][region.rpartition("_")[2]]["tumours"][0]["size_mm"]
    found |= {"os_days": truth["time_days"], "os_event": int(truth["event"])}
    mask = masks.loc[case["patient_id"]] if case["patient_id"] in masks.index else None
    if mask is not None and f"kidney_{mask['side']}" == region:
        for letter, column in PARTS.items():
            if np.isfinite(mask[letter]):
                found[column] = COUNTING[column][int(mask[letter]) - 1]
        found["mass_face"] = FACES.get(mask["A"])
    if clinical["malignant"] is not None:
        found["malignancy"] = "malignant" if clinical["malignant"] else "benign"
    grade, stage = str(clinical["tumor_isup_grade"]), str(clinical["pathology_t_stage"])
    if clinical["malignant"] and (grade in "34" or stage in LATE):
        found["aggressiveness"] = "aggressive"
    elif clinical["malignant"] and grade in ("1", "2") and stage in EARLY:
        found["aggressiveness"] = "indolent"
    return found


if __name__ == "__main__":
    main()
