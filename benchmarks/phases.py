"""One scan or several: zero-shot findings from each patient's main scan against the mean over the scans there are.

Takes a finished run of `benchmarks/recipes.py` and asks it of held-out phantoms that have been scanned in several phases. Nothing
is trained, so the numbers of a stage that is not finished cannot be had.

    python benchmarks/phases.py --stages runs/recipes/stages --out runs/phases
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

RECIPES = Path(__file__).parents[1] / "configs" / "recipes"
FINDINGS = Path(__file__).parents[1] / "configs" / "findings" / "phantom.yaml"


def main() -> None:
    """Build the scans, read them both ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="renalclip-small")
    parser.add_argument("--set", dest="changes", nargs="*", default=["seed=0"], help="changes to the recipe, as the run had them")
    parser.add_argument("--stages", type=Path, default=Path("runs/recipes/stages"))
    parser.add_argument("--cohorts", type=Path, default=Path("runs/cohorts"))
    parser.add_argument("--out", type=Path, default=Path("runs/phases"))
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--phases", type=int, default=3)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--build-only", action="store_true", help="make the scans, which needs no trained run")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    part = scans(options)
    if not options.build_only:
        result = measure(options, part)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{options.recipe}.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        print(table(result))


def scans(options: argparse.Namespace) -> Any:
    """Kidneys of the recipe's test patients in several phases, as the samples of one kind."""
    from medvl.data.cohort import PhantomCohort, build_phantom
    from medvl.imaging.preprocess import Contract
    from medvl.recipe import load_recipe
    from medvl.training.samples import kind_data

    recipe = load_recipe(RECIPES / f"{options.recipe}.yaml", options.changes)
    kidneys = Contract(tuple(recipe.input_contract[name] for name in recipe.kinds["kidney"].regions))
    which = PhantomCohort(
        recipe.cohort.seed, recipe.cohort.start_test, options.patients, recipe.cohort.jitter_mm, phases=options.phases
    )

    def told(done: int, total: int) -> None:
        if done % 50 == 0:
            print(f"  {done} of {total} patients scanned", file=sys.stderr, flush=True)

    cohort = build_phantom(options.out / "cohorts", which, kidneys, progress=told)
    only = recipe.model_copy(update={"kinds": {"kidney": recipe.kinds["kidney"]}})
    part = kind_data(only, cohort)["kidney"]
    return replace(part, index=list(recipe.kinds).index("kidney"))


def measure(options: argparse.Namespace, part: Any) -> dict[str, Any]:
    """Every finding both ways, and the difference with its interval by patient."""
    from medvl.evaluation.intervals import bootstrap, paired_bootstrap
    from medvl.evaluation.metrics import auroc, auroc_of
    from medvl.recipe import load_recipe
    from medvl.text.prompts import load_findings
    from medvl.training.answers import answers, region_names
    from medvl.training.finished import open_finished
    from medvl.training.measure import Reader

    recipe = load_recipe(RECIPES / f"{options.recipe}.yaml", options.changes)
    run = open_finished(recipe, options.stages, options.cohorts, options.out, load_findings(FINDINGS))
    reader = Reader(run.trained.system, recipe.kinds, run.work.findings, run.work.concepts)
    one, mean = (reader.features(part, fuse_phases=fuse) for fuse in (False, True))
    names, out = region_names(part), {}
    for finding in reader.findings.findings:
        if finding.region != "kidney":
            continue
        known = answers(finding, part, reader.findings)
        if not known.both:
            continue
        y = known.labels
        a, b = (reader.margins(finding, names, features)[known.rows] for features in (one, mean))
        single, fused = auroc_of(y, a), auroc_of(y, b)
        gain = paired_bootstrap(fused, single, known.patients, n=options.draws)
        out[finding.key] = {
            "n": len(y),
            "present": int(y.sum()),
            "single": auroc(y, a),
            "fused": auroc(y, b),
            "single_ci": bootstrap(single, known.patients, n=options.draws),
            "fused_ci": bootstrap(fused, known.patients, n=options.draws),
            "gain_ci": (gain.low, gain.high),
        }
    told = {"run": run.folder.name, "patients": len(np.unique(part.texts.rows)), "kidneys": len(part), "phases": options.phases}
    return {**told, "findings": out, "unseen": unseen(part, reader, mean)}


def unseen(part: Any, reader: Any, features: Any) -> dict[str, Any]:
    """Findings that the phase of the main scan cannot show but another scan's can: scores of the mean alone."""
    from medvl.evaluation.intervals import bootstrap
    from medvl.evaluation.metrics import auroc, auroc_of
    from medvl.evaluation.phantom_truth import patient_of, truth_of
    from medvl.training.answers import region_names

    names, out = region_names(part), {}
    for finding in reader.findings.findings:
        if finding.region != "kidney" or not finding.phases:
            continue
        cases = [part.cohort.cases[int(r)] for r in part.texts.rows]
        shown = finding.model_copy(update={"phases": ()})
        truth = [
            truth_of(shown, name, patient_of(case["truth"]))
            if case["phases"][0] not in finding.phases and set(case["phases"]) & set(finding.phases)
            else None
            for name, case in zip(names, cases, strict=True)
        ]
        rows = np.flatnonzero([t is not None for t in truth])
        y, scores = np.array([truth[i] for i in rows]), reader.margins(finding, names, features)[rows]
        if len(set(y.tolist())) == 2:
            interval = bootstrap(auroc_of(y, scores), part.texts.rows[rows], n=200)
            out[finding.key] = {"n": len(y), "present": int(y.sum()), "fused": auroc(y, scores), "fused_ci": interval}
    return out


def table(result: dict[str, Any]) -> str:
    """Markdown: a row a finding."""
    lines = ["| finding | kidneys | present | main scan | mean over scans | gain |", "|---|---|---|---|---|---|"]
    for key, row in result["findings"].items():
        gain = f"{row['fused'] - row['single']:+.3f} ({row['gain_ci'][0]:+.3f} to {row['gain_ci'][1]:+.3f})"
        cells = [_cell(row[name], row[f"{name}_ci"]) for name in ("single", "fused")]
        lines.append(f"| {key} | {row['n']} | {row['present']} | {cells[0]} | {cells[1]} | {gain} |")
    for key, row in result["unseen"].items():
        fused = _cell(row["fused"], row["fused_ci"])
        lines.append(f"| {key}, main scan cannot show it | {row['n']} | {row['present']} | not asked | {fused} | |")
    return "\n".join(lines)


def _cell(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


if __name__ == "__main__":
    main()
