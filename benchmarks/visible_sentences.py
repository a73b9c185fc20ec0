"""Do sentences that no image can show hurt alignment? Reports with such sentences added: kept, and dropped by the filter.

Starts from finished text and attribute stages of benchmarks/recipes.py (condition RenalCLIP), adds two sentences of comparison,
recommendation or history to every region's report, for training and test alike, and aligns twice. Retrieval and zero-shot
answers on test patients; texts of the gallery are treated as those of training.

    python benchmarks/visible_sentences.py --out runs/recipes --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

RECIPES = Path(__file__).parents[1] / "configs" / "recipes"
FINDINGS = Path(__file__).parents[1] / "configs" / "findings" / "phantom.yaml"
ADDED = (
    "Compared with the previous examination there is no relevant change.",
    "Unchanged since the CT of last year.",
    "Follow-up in six months is recommended.",
    "Correlation with laboratory findings is advised.",
    "Urological consultation is recommended.",
    "The patient has a history of lymphoma.",
    "Clinical information: flank pain since yesterday.",
    "Further evaluation with MRI is suggested.",
    "In comparison to the prior study, stable.",
    "Please correlate clinically.",
)


def main() -> None:
    """Align twice per seed and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--cohorts", type=Path, default=Path("runs/cohorts"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    rows = {}
    for seed in options.seeds:
        for name in ("none added", "added and kept", "added and dropped"):
            rows[f"{name}, seed {seed}"] = one(name, seed, options)
            print(f"{name}, seed {seed}: {rows[f'{name}, seed {seed}']}", flush=True)
    (options.out / "visible_sentences.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def one(name: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """One alignment, measured."""
    from medvl.recipe import load_recipe
    from medvl.text.prompts import load_findings
    from medvl.training.measure import Reader, finding_table, likenesses, retrieval_table
    from medvl.training.run import open_workspace, phantom_cohorts, run_stages, stage_folder
    from medvl.training.samples import kind_data

    def quiet(*_: Any) -> None:
        return None

    visible = "true" if name == "added and dropped" else "false"
    recipe = load_recipe(RECIPES / "renalclip-small.yaml", [f"seed={seed}", f"stages.align.visible_only={visible}"])
    findings = load_findings(FINDINGS)
    with tempfile.TemporaryDirectory() as scratch:
        work = open_workspace(recipe, Path(scratch), options.cohorts, quiet, findings, stages=options.out / "stages")
        data = kind_data(recipe, phantom_cohorts(recipe, options.cohorts, quiet, ("test",))["test"])
        if name != "none added":
            texts = ((work.train, 0), (data, 1))
            train, data = ({k: with_added(part, seed, salt) for k, part in parts.items()} for parts, salt in texts)
            work = replace(work, train=train)
        shared, work = work, replace(work, stages=Path(scratch) / "stages")
        work.stages.mkdir()
        for index in range(2):
            stage_folder(work, index).symlink_to(stage_folder(shared, index).resolve())
        trained = run_stages(work)
        reader = Reader(trained.system, recipe.kinds, findings, work.concepts)
        if visible == "true":
            kept = {k: part.sentences(visible_only=True, strip_numbers=False) for k, part in data.items()}
            data = {k: replace(part, texts=replace(part.texts, sentences=kept[k])) for k, part in data.items()}
        features = {k: reader.features(part) for k, part in data.items()}
        retrieval = retrieval_table(likenesses(reader, data, features), 0)
        scores = finding_table(reader, data, features, 0)
    recalls = [retrieval[f"{way}_recall_at_5"]["value"] for way in ("image_to_report", "report_to_image")]
    aurocs = [row["auroc"] for row in scores.values()]
    return {"zero_shot_auroc": round(float(np.mean(aurocs)), 4), "recall_at_5": round(float(np.mean(recalls)), 4)}


def with_added(part: Any, seed: int, salt: int) -> Any:
    """The same samples, each report with two of the sentences at random places."""
    rng = np.random.default_rng([seed, salt, part.index])
    sentences = []
    for said in part.texts.sentences:
        mixed = list(said)
        for sentence in rng.choice(ADDED, size=2, replace=False):
            mixed.insert(int(rng.integers(len(mixed) + 1)), str(sentence))
        sentences.append(mixed)
    return replace(part, texts=replace(part.texts, sentences=sentences))


if __name__ == "__main__":
    main()
