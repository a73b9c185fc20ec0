"""The recipes and their ablations beside each other: one cohort, the same budget of samples, several seeds.

Stages that two conditions have in common are trained once and shared. Finished conditions are kept, so the command goes on where
it was stopped. Numbers are on held-out phantoms, on crops around the true centres (jittered), against the phantoms' truth.

    python benchmarks/recipes.py --out runs/recipes --seeds 0 1 2            trains and measures
    python benchmarks/recipes.py --out runs/recipes --table                  prints the table from what is there
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

RECIPES = Path(__file__).parents[1] / "configs" / "recipes"
FINDINGS = Path(__file__).parents[1] / "configs" / "findings" / "phantom.yaml"
R, C, M, D = "renalclip-small", "cardiac-clip-small", "medslip-small", "phantom-demo"
PAIRS = "stages.align.objectives.image_text_contrastive"
CONCEPTS = "stages.concepts.objectives"
SHOWN = (
    "RenalCLIP",
    "Cardiac-CLIP (masked autoencoding)",
    "MeDSLIP",
    "phantom-demo (RenalCLIP's order, evidence pool, marks, single statements)",
)
DEMO = [
    "cohort={seed: 11, n_train: 3000, n_validation: 400, n_test: 600, jitter_mm: 9.0}",
    "contract.regions=REGIONS",
    "model.text={vocab_size: 2500, hidden_size: 128, layers: 2, heads: 4, intermediate_size: 384, max_length: 144}",
    "stages.attributes.steps=1400",
    "stages.attributes.batch=12",
    "stages.text.steps=220",
    "stages.text.batch=32",
    "stages.text.statements=32",
    "stages.align_frozen.steps=60",
    "stages.align_joint.steps=0",
    "stages.align_statements.steps=100",
]
CONDITIONS: dict[str, tuple[str, list[str]]] = {
    "RenalCLIP": (R, []),
    "RenalCLIP, no attribute stage": (R, ["stages.attributes.steps=0", "stages.align.steps=650", "stages.align.train.image=1.0"]),
    "RenalCLIP, soft targets": (R, [f"{PAIRS}={{targets: label_similarity}}"]),
    "RenalCLIP, as released": (
        R,
        [
            "model.image.options.detach_shortcut=true",
            "stages.attributes.objectives.attributes={form: release}",
            f"{PAIRS}={{duplicates_as_positives: false}}",
        ],
    ),
    "Cardiac-CLIP (masked autoencoding)": (C, []),
    "Cardiac-CLIP, attributes instead": (
        C,
        [
            "stages.masked.train={image: 1.0, objectives: 2.0}",
            "stages.masked.objectives={attributes: {}}",
            "stages.masked.steps=900",
        ],
    ),
    "Cardiac-CLIP, no first stage": (C, ["stages.masked.steps=0", "stages.align.steps=550"]),
    "Cardiac-CLIP, hard targets": (C, [f"{PAIRS}={{targets: identity}}"]),
    "Cardiac-CLIP, templates": (C, ["stages.align.report_text=templates"]),
    "Cardiac-CLIP, as released": (
        C,
        [
            "model.reconstruct.decoder_positions=sincos_scrambled",
            "model.text.pooling=highest_id",
            f"{PAIRS}={{targets: label_similarity, similarity: cosine, target_temperature: 1.0, hard_weight: 0.0, "
            "transpose: release, scale_mode: raw, max_scale: null, duplicates_as_positives: false}",
        ],
    ),
    "MeDSLIP": (M, []),
    "MeDSLIP, no gate": (M, ["model.streams.gate=none"]),
    "MeDSLIP, no ProtoCL": (M, [f"{CONCEPTS}={{existence: {{}}, relation_prediction: {{}}}}"]),
    "MeDSLIP, no ICL": (M, [f"{CONCEPTS}={{existence: {{}}, prototype_contrastive: {{}}}}"]),
    "MeDSLIP, as released": (
        M,
        [
            "model.streams={hidden: 128, layers: 2, heads: 4, feedforward: 256, gate: linear, positions: false, "
            "memory_norm: false, initial: normal}",
            f"{CONCEPTS}={{existence: {{}}, prototype_contrastive: {{form: raw}}, relation_prediction: {{scale: raw}}}}",
        ],
    ),
    SHOWN[-1]: (D, DEMO),
    "phantom-demo without marks": (D, [*DEMO, "stages.attributes.objectives={attributes: {}}"]),
}


def main() -> None:
    """Train, measure, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--cohorts", type=Path, default=Path("runs/cohorts"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="conditions whose name holds one of these words")
    parser.add_argument("--set", dest="changes", nargs="*", default=[], help="changes to every recipe, key=value")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        from recipes_table import findings_table, table

        print(table(options.out, list(CONDITIONS), SHOWN), findings_table(options.out, SHOWN), sep="\n\n")
        return
    import torch

    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        for name, (recipe, changes) in CONDITIONS.items():
            chosen = not options.only or any(word.lower() in name.lower() for word in options.only)
            path = options.out / "results" / f"{name.lower().replace(', ', '_').replace(' ', '-')}-{seed}.json"
            if chosen and not path.exists():
                result, raw = run(recipe, [*changes, *options.changes, f"seed={seed}"], options)
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(path.with_suffix(".npz"), **raw)
                path.write_text(json.dumps({"condition": name, "seed": seed, **result}, indent=1), encoding="utf-8")
                print(f"{name}, seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in headline(result).items()), flush=True)


def run(recipe_name: str, changes: list[str], options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """One condition, trained and measured on the test patients: the summary, and what each patient got."""
    from medvl.data.marks import build_marks
    from medvl.recipe import load_recipe
    from medvl.text.prompts import load_findings
    from medvl.training.measure import Reader, finding_table, likenesses, pointing_table, retrieval_table, survival_table
    from medvl.training.run import open_workspace, phantom_cohorts, phantom_of, run_stages, stage_folder
    from medvl.training.samples import kind_data

    started = time.time()

    def progress(name: str, done: int, total: int, told: Any) -> None:
        if done % max(1, total // 4) == 0:
            print(
                f"  {time.time() - started:6.0f} s  {name} {done}/{total} {told.get('loss', 0):.3f}", file=sys.stderr, flush=True
            )

    regions = yaml.safe_load((RECIPES / f"{R}.yaml").read_text(encoding="utf-8"))["contract"]["regions"]
    changes = [change.replace("REGIONS", json.dumps(regions)) for change in changes]
    recipe = load_recipe(RECIPES / f"{recipe_name}.yaml", changes)
    findings = load_findings(FINDINGS)
    work = open_workspace(recipe, options.out / "runs", options.cohorts, progress, findings, stages=options.out / "stages")
    trained = run_stages(work)
    receipts = {
        stage.name: json.loads((stage_folder(work, i) / "receipt.json").read_text())
        for i, stage in enumerate(recipe.stages)
        if stage.steps
    }
    data = kind_data(recipe, phantom_cohorts(recipe, options.cohorts, progress, ("test",))["test"])
    reader = Reader(trained.system, recipe.kinds, findings, work.concepts)
    features = {name: reader.features(part) for name, part in data.items()}
    train_features = {name: reader.features(part) for name, part in work.train.items()}
    which = phantom_of(recipe, "test")
    names = {region: kind.marks for kind in recipe.kinds.values() for region in kind.regions}
    similarity = likenesses(reader, data, features)
    masks = build_marks(options.cohorts / which.key(recipe.input_contract), which, recipe.input_contract, names, 1, cell=1)
    summary = {
        "findings": finding_table(reader, data, features, options.draws),
        "retrieval": retrieval_table(similarity, options.draws),
        "survival": survival_table(work.train, train_features, data, features, recipe.survival_penalty, options.draws),
        "pointing": pointing_table(reader, data, masks, options.draws),
        "cost": {name: {"wall_s": r["wall_s"], "cpu_s": r["cpu_s"], "steps": r["steps"]} for name, r in receipts.items()},
    }
    return summary, {"similarity": similarity.astype(np.float32), **_raw_findings(reader, data, features)}


def _raw_findings(reader: Any, data: Any, features: Any) -> dict[str, Any]:
    """Rows, labels and scores of every finding, for intervals and paired differences."""
    from medvl.evaluation.phantom_truth import patient_of, truth_of

    out = {}
    for finding in reader.findings.findings:
        part = data[finding.region]
        regions = [part.cohort.regions[int(c)] for c in part.texts.columns]
        patients = [patient_of(part.cohort.cases[int(r)]["truth"]) for r in part.texts.rows]
        truth = [truth_of(finding, region, patient) for region, patient in zip(regions, patients, strict=True)]
        asked = np.array([t is not None for t in truth])
        out[f"{finding.key}.row"] = np.asarray(part.texts.rows)[asked]
        out[f"{finding.key}.label"] = np.array([t for t in truth if t is not None])
        out[f"{finding.key}.score"] = reader.margins(finding, regions, features[finding.region])[asked].astype(np.float32)
    return out


def headline(result: dict[str, Any]) -> dict[str, float]:
    """The few numbers a row shows."""
    ways = [result["retrieval"][f"{way}_recall_at_5"]["value"] for way in ("image_to_report", "report_to_image")]
    return {
        "auroc": float(np.mean([row["auroc"] for row in result["findings"].values()])),
        "mass": result["findings"]["renal_mass"]["auroc"],
        "stone": result["findings"]["renal_stone"]["auroc"],
        "r5": float(np.mean(ways)),
        "c": result["survival"]["c_index"],
        "pointing": result["pointing"]["all"]["rate"],
        "cpu_s": float(sum(stage["cpu_s"] for stage in result["cost"].values())),
    }


if __name__ == "__main__":
    main()
