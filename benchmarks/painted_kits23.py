"""Real kidneys with painted HU: train a RenalCLIP-like recipe on KiTS23 label maps and measure it on held-out patients.

What is real: anatomy, pathology, outcome. What is painted: every HU. So tumours are painted after their histology (`linked`) and
all alike (`cut`). Whatever only `linked` can do is our own paint, read back.
What is done is kept, so the command goes on where it was stopped. Data and cache stay outside of the repository.

    python benchmarks/painted_kits23.py --data ../shared/data/kits23            paints, trains and measures
    python benchmarks/painted_kits23.py --radiomics                             also measures radiomics of the true masks
    python benchmarks/painted_kits23.py --table                                 prints the tables from what is there
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import painted_radiomics
import torch
from numpy.typing import NDArray
from painted_survival import out_of_fold
from painted_tables import tables
from painted_targets import PATHOLOGY, QUESTIONS, clinical_features, kidneys_of, main_rows, size_features

from medvl.data.cohort import Cohort
from medvl.data.painted_cohort import PaintedCohort, build_painted
from medvl.evaluation.intervals import bootstrap, paired_bootstrap
from medvl.evaluation.metrics import auroc, auroc_of, harrell_of
from medvl.heads.probe import fit_linear_probe
from medvl.recipe import Recipe, load_recipe
from medvl.survival.measures import harrell
from medvl.text.prompts import load_findings
from medvl.training.features import pooled_features
from medvl.training.measure import Reader, likenesses, retrieval_table
from medvl.training.run import open_workspace, run_stages
from medvl.training.samples import KindData, kind_data

CONFIGS = Path(__file__).parents[1] / "configs"
CONDITIONS = {"linked": (True, False), "cut": (False, False), "linked, phantom start": (True, True)}
TRAIN_PHASES, TEST_PHASES = ("arterial", "portal_venous"), ("arterial",)
SPLITS = ("train", "validation", "test")
Array = NDArray[np.float64]


def main() -> None:
    """Paint, train, measure, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/kits23"), help="folder of KiTS23, which is never changed"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/painted"))
    parser.add_argument("--only", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--phantom-weights", type=Path, help="weights.safetensors of a stage trained on phantoms")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--radiomics", action="store_true", help="also measure radiomics of the tumours' true masks")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(tables(options.out))
        return
    torch.set_num_threads(1)
    for name in options.only:
        path = options.out / f"{short(name)}-{options.seed}.json"
        beside = options.out / "radiomics" / path.name
        measures = {path: run} | ({beside: run_radiomics} if options.radiomics else {})
        if CONDITIONS[name][1] and options.phantom_weights is None:
            print(f"{name}: left out, as --phantom-weights names none", file=sys.stderr)
            continue
        for place, measure in measures.items():
            if not place.exists():
                result = measure(name, options)
                place.write_text(json.dumps({"condition": name, "seed": options.seed, **result}, indent=1), encoding="utf-8")
    print(tables(options.out))


def short(name: str) -> str:
    """The name of a condition in files and folders."""
    return name.replace(", ", "_").replace(" ", "-")


@dataclass(frozen=True, eq=False)
class Condition:
    """A trained condition: where, what it reads, kidneys and (N, P) pooled image features by split."""

    out: Path
    reader: Reader
    kidneys: dict[str, KindData]
    pooled: dict[str, Array]


def trained_on(name: str, options: argparse.Namespace) -> Condition:
    """Paint and train one condition, or read what is there."""
    started, (link, from_phantoms) = time.time(), CONDITIONS[name]
    recipe = load_recipe(CONFIGS / "recipes" / "painted-kidney.yaml", [f"seed={options.seed}"])
    findings = load_findings(CONFIGS / "findings" / "painted.yaml")

    def progress(what: str, done: int, total: int, told: Any) -> None:
        if done % max(1, total // 4) == 0:
            print(f"  {time.time() - started:6.0f} s  {name}: {what} {done}/{total} {told.get('loss', 0):.3f}", file=sys.stderr)

    cohorts = {split: painted(options, recipe, split, link, progress) for split in SPLITS}
    out = options.out / short(name) / str(options.seed)
    given = {split: cohorts[split] for split in SPLITS[:2]}
    work = open_workspace(recipe, out, options.out, progress, findings, given=given)
    trained = run_stages(work, partial(take_tower, path=options.phantom_weights) if from_phantoms else None)
    kidneys = {split: kind_data(recipe, cohort)["kidney"] for split, cohort in cohorts.items()}
    pooled = {split: pooled_features(trained.system.clip, part).double().numpy() for split, part in kidneys.items()}
    return Condition(out, Reader(trained.system, recipe.kinds, findings, work.concepts), kidneys, pooled)


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One condition, trained and measured."""
    made = trained_on(name, options)
    test = made.kidneys["test"]
    seen = made.reader.features(test, fuse_phases=False)
    return {
        "patients": {split: len(part.cohort) for split, part in made.kidneys.items()},
        "cpu_s": sum(json.loads(p.read_text())["cpu_s"] for p in (made.out / "stages").glob("*/receipt.json")),
        "zero_shot": zero_shot(made.reader, test, seen, options.draws),
        "retrieval": retrieval_table(likenesses(made.reader, {"kidney": test}, {"kidney": seen}), options.draws),
        "probes": probes(made.kidneys, made.pooled, options.draws),
        "survival": survival(made.kidneys, made.pooled, options.draws, options.seed),
    }


def run_radiomics(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Radiomics of the true tumour masks beside the image tower of one condition."""
    link = CONDITIONS[name][0]
    kept = options.out / "radiomics" / f"features-{'linked' if link else 'cut'}-{options.seed}.jsonl"
    found = painted_radiomics.features_of(kept, options.data, options.seed, link)
    made = trained_on(name, options)
    return painted_radiomics.compare(made.kidneys, made.pooled, found, options.draws, options.seed)


def painted(options: argparse.Namespace, recipe: Recipe, split: str, link: bool, progress: Any) -> Cohort:
    """One split; training patients are painted in two phases and cropped off centre, others once and in the middle."""
    train = split == "train"
    phases, jitter = (TRAIN_PHASES if train else TEST_PHASES), (9.0 if train else 0.0)
    which = PaintedCohort(options.data, split, options.seed, phases, link, jitter)
    told = lambda done, total: progress(f"painting {split}", done, total, {})  # noqa: E731
    return build_painted(options.out / "cohorts", which, recipe.input_contract, workers=recipe.workers, progress=told)


def take_tower(system: torch.nn.Module, path: Path) -> None:
    """The image encoder of a run on phantoms; pooling and projections begin anew."""
    from safetensors.torch import load_file

    own = "system.clip.image."
    weights = {"clip.image." + k[len(own) :]: v for k, v in load_file(path).items() if k.startswith(own)}
    left = system.load_state_dict(weights, strict=False)
    missing = [key for key in left.missing_keys if key.startswith("clip.image.")]
    if missing or left.unexpected_keys or not weights:
        raise SystemExit(f"{path} holds another image encoder: {missing[:2]} missing, {left.unexpected_keys[:2]} unknown")


def zero_shot(reader: Reader, part: KindData, features: torch.Tensor, draws: int) -> dict[str, Any]:
    """AUROC of every finding against the mask, with an interval by patient."""
    regions, kidneys, out = [part.cohort.regions[int(c)] for c in part.texts.columns], kidneys_of(part), {}
    for finding in reader.findings.findings:
        truth = [QUESTIONS[finding.key](k) if k else None for k in kidneys]
        rows = np.flatnonzero([t is not None for t in truth])
        labels = np.array([int(truth[r]) for r in rows])  # type: ignore[arg-type]
        scores = reader.margins(finding, regions, features)[rows]
        out[finding.key] = area(labels, scores, part.texts.rows[rows], draws)
    return out


def area(labels: NDArray[Any], scores: NDArray[Any], patients: NDArray[Any], draws: int) -> dict[str, Any]:
    """AUROC, interval by patient, counts."""
    low, high = bootstrap(auroc_of(labels, scores), patients, n=draws)
    return {"n": len(labels), "present": int(labels.sum()), "value": auroc(labels, scores), "ci": [low, high]}


def probes(parts: dict[str, KindData], pooled: dict[str, Array], draws: int) -> dict[str, Any]:
    """Test AUROC of pathology from pooled image features, from size, and from clinical facts, each by a ridge logistic."""
    out: dict[str, Any] = {}
    for target, ask in PATHOLOGY.items():
        out[target] = {}
        for source in ("image", "size", "clinical"):
            xy = {}
            for split, part in parts.items():
                rows = {r: i for r, i in main_rows(part).items() if ask(part.cohort.cases[r]["truth"]["clinical"]) is not None}
                make = {"size": size_features, "clinical": clinical_features}.get(source)
                x = [pooled[split][i] if make is None else make(part.cohort.cases[r]) for r, i in rows.items()]
                y = [[int(ask(part.cohort.cases[r]["truth"]["clinical"]))] for r in rows]
                xy[split] = (np.array(x), np.array(y))
            fitted = fit_linear_probe(xy["train"], xy["validation"], "multilabel", 1)
            labels = xy["test"][1][:, 0]
            out[target][source] = area(labels, fitted.logits(xy["test"][0])[:, 0], np.arange(len(labels)), draws)
    return out


def survival(kidneys: dict[str, KindData], pooled: dict[str, Array], draws: int, seed: int) -> dict[str, Any]:
    """Harrell's C of ridge Cox models on all patients, pooled out of five folds; the penalty is chosen inside each fold.

    The image tower has seen training patients' reports of size and place, never an outcome.
    """
    image, cases = [], []
    for split, part in kidneys.items():
        for row, i in main_rows(part).items():
            image.append(pooled[split][i])
            cases.append(part.cohort.cases[row])
    blocks = {
        "image": np.array(image),
        "size": np.array([size_features(c) for c in cases]),
        "clinical": np.array([clinical_features(c) for c in cases]),
    }
    t = np.array([c["truth"]["time_days"] for c in cases], float)
    e = np.array([c["truth"]["event"] for c in cases], bool)
    out: dict[str, Any] = {"n": len(t), "events": int(e.sum())}
    chosen = {}
    for names in (("image",), ("size",), ("clinical",), ("clinical", "size"), ("clinical", "image")):
        chosen[" + ".join(names)] = out_of_fold([blocks[n] for n in names], t, e, seed)
    for name, risk in chosen.items():
        low, high = bootstrap(harrell_of(t, e, risk), np.arange(len(t)), n=draws)
        out[name] = {"value": harrell(t, e, risk), "ci": [low, high]}
    both, without = (harrell_of(t, e, chosen[name]) for name in ("clinical + image", "clinical"))
    gain = paired_bootstrap(both, without, np.arange(len(t)), n=draws)
    out["gain of image over clinical"] = {"value": gain.value, "ci": [gain.low, gain.high]}
    return out


if __name__ == "__main__":
    main()
