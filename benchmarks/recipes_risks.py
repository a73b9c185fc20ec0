"""Risks of every test patient for finished conditions of benchmarks/recipes.py, from kept stages; nothing is trained.

They stand beside the results, so that the table can say what features add to age on the same resampled patients.

    python benchmarks/recipes_risks.py --out runs/recipes
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from recipes import CONDITIONS, FINDINGS, RECIPES, R

from medvl.recipe import load_recipe
from medvl.text.prompts import load_findings
from medvl.training.measure import Reader, Risks, held_out_risks
from medvl.training.run import Workspace, open_workspace, phantom_cohorts, run_stages, stage_folder
from medvl.training.samples import kind_data


def main() -> None:
    """Write `CONDITION-SEED.risks.npz` beside every result that has none."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--cohorts", type=Path, default=Path("runs/cohorts"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for path in sorted((options.out / "results").glob("*.json")):
        kept = path.with_suffix(".risks.npz")
        if kept.exists():
            continue
        told = json.loads(path.read_text(encoding="utf-8"))
        work = opened(told["condition"], told["seed"], options)
        if all(stage_folder(work, i).exists() for i, stage in enumerate(work.recipe.stages) if stage.steps):
            risks = risks_of(work, options.cohorts)
            np.savez_compressed(kept, **vars(risks))
            print(f"{path.stem}: {len(risks.time)} patients, {int(risks.event.sum())} events", flush=True)
        else:
            print(f"{path.stem}: left out, its stages are not kept or are of another version", flush=True)


def opened(name: str, seed: int, options: argparse.Namespace) -> Workspace:
    """The workspace of one condition and seed."""
    recipe_name, changes = CONDITIONS[name]
    regions = json.dumps(yaml.safe_load((RECIPES / f"{R}.yaml").read_text(encoding="utf-8"))["contract"]["regions"])
    changes = [change.replace("REGIONS", regions) for change in changes]
    recipe = load_recipe(RECIPES / f"{recipe_name}.yaml", [*changes, f"seed={seed}"])
    stages, findings = options.out / "stages", load_findings(FINDINGS)
    return open_workspace(recipe, options.out / "runs", options.cohorts, _quiet, findings, stages=stages)


def risks_of(work: Workspace, cohorts: Path) -> Risks:
    """What the condition's Cox model says of the test patients."""
    reader = Reader(run_stages(work).system, work.recipe.kinds, work.findings, work.concepts)
    test = kind_data(work.recipe, phantom_cohorts(work.recipe, cohorts, _quiet, ("test",))["test"])
    features, train_features = ({name: reader.features(part) for name, part in data.items()} for data in (test, work.train))
    return held_out_risks(work.train, train_features, test, features, work.recipe.survival_penalty)


def _quiet(name: str, done: int, total: int, told: Any) -> None:
    pass


if __name__ == "__main__":
    main()
