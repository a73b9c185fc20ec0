"""Free text to images: does a short text find the regions that show it, alone and less its negation?

Of an embedded cohort with known truth: AUROC over the regions of one side, with intervals by patient, and the share of right ones
among the first ten. The words are a person's, not the prompts of the findings list.

    medvl embed phantom-demo --out runs/embedded/test
    python benchmarks/free_text.py --embedded runs/embedded/test --bundle configs/bundles/phantom-demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from medvl.evaluation.embedded import Embedded
from medvl.evaluation.intervals import bootstrap
from medvl.evaluation.metrics import auroc, auroc_of
from medvl.heads.free_text import query_of
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle

ASKED = {
    "renal_mass": ("kidney_left", "a mass in the left kidney"),
    "renal_mass_large": ("kidney_left", "a large mass in the left kidney"),
    "renal_cyst": ("kidney_left", "a simple cyst in the left kidney"),
    "renal_stone": ("kidney_left", "a stone in the left kidney"),
    "hydronephrosis": ("kidney_left", "hydronephrosis of the left kidney"),
    "cardiomegaly": ("chest", "an enlarged heart"),
    "pericardial_effusion": ("chest", "fluid around the heart"),
    "coronary_calcification": ("chest", "coronary calcification"),
    "aortic_aneurysm": ("chest", "an aneurysm of the ascending aorta"),
    "pleural_effusion_left": ("chest", "a left pleural effusion"),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedded", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("configs/bundles/phantom-demo"))
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    table, predictor = Embedded.load(options.embedded), Predictor(open_bundle(options.bundle))
    print("| text | shown in | alone | first ten | less its negation | first ten |\n|---|---|---|---|---|---|")
    for key, (region, text) in ASKED.items():
        chosen = table.usable & (table.rows["region"] == region).to_numpy()
        shown = (table.truth[chosen, table.column(key)] == 1).astype(int)
        who, cells = table.rows["patient_id"].to_numpy()[chosen], [text, f"{shown.sum()} of {len(shown)}"]
        for literal in (True, False):
            query, _ = query_of(text, predictor.embed_texts, literal=literal)
            scores = table.embedding[chosen] @ query.numpy()
            low, high = bootstrap(auroc_of(shown, scores), who, n=options.draws)
            cells += [f"{auroc(shown, scores):.3f} [{low:.3f}, {high:.3f}]", str(int(shown[np.argsort(-scores)[:10]].sum()))]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
