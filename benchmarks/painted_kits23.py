"""Real kidneys with painted HU: train a RenalCLIP-like recipe on KiTS23 label maps and measure it on held-out patients.

What is real: anatomy, pathology, outcome. What is painted: every HU. So tumours are painted after their histology (`linked`) and
all alike (`cut`). Whatever only `linked` can do is our own paint, read back.
What is done is kept, so the command goes on where it was stopped. Data and cache stay outside of the repository.

    python benchmarks/painted_kits23.py --data ../shared/data/kits23            paints, trains and measures
    python benchmarks/painted_kits23.py --table                                 prints the tables from what is there
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from painted_tables import tables

from medvl.data.cohort import Cohort
from medvl.data.painted_cohort import PaintedCohort, build_painted
from medvl.evaluation.intervals import bootstrap, paired_bootstrap
from medvl.evaluation.metrics import auroc, auroc_of, harrell_of
from medvl.heads.probe import fit_linear_probe
from medvl.recipe import Recipe, load_recipe
from medvl.survival.cox import fit_cox
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
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)
FOLDS = 5
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
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(tables(options.out))
        return
    torch.set_num_threads(1)
    for name in options.only:
        path = options.out / f"{name.replace(', ', '_').replace(' ', '-')}-{options.seed}.json"
        if CONDITIONS[name][1] and options.phantom_weights is None:
            print(f"{name}: left out, as --phantom-weights names none", file=sys.stderr)
        elif not path.exists():
            result = run(name, options)
            path.write_text(json.dumps({"condition": name, "seed": options.seed, **result}, indent=1), encoding="utf-8")
    print(tables(options.out))


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One condition, trained and measured."""
    started, (link, from_phantoms) = time.time(), CONDITIONS[name]
    recipe = load_recipe(CONFIGS / "recipes" / "painted-kidney.yaml", [f"seed={options.seed}"])
    findings = load_findings(CONFIGS / "findings" / "painted.yaml")

    def progress(what: str, done: int, total: int, told: Any) -> None:
        if done % max(1, total // 4) == 0:
            print(f"  {time.time() - started:6.0f} s  {name}: {what} {done}/{total} {told.get('loss', 0):.3f}", file=sys.stderr)

    cohorts = {split: painted(options, recipe, split, link, progress) for split in SPLITS}
    out = options.out / name.replace(", ", "_").replace(" ", "-") / str(options.seed)
    given = {split: cohorts[split] for split in SPLITS[:2]}
    work = open_workspace(recipe, out, options.out, progress, findings, given=given)
    trained = run_stages(work, partial(take_tower, path=options.phantom_weights) if from_phantoms else None)
    data = {split: kind_data(recipe, cohort) for split, cohort in cohorts.items()}
    reader = Reader(trained.system, recipe.kinds, findings, work.concepts)
    seen = {split: reader.features(parts["kidney"], fuse_phases=False) for split, parts in data.items()}
    pooled = {split: pooled_features(trained.system.clip, parts["kidney"]).double().numpy() for split, parts in data.items()}
    test = {"kidney": seen["test"]}
    return {
        "patients": {split: len(cohort) for split, cohort in cohorts.items()},
        "cpu_s": sum(json.loads(p.read_text())["cpu_s"] for p in (out / "stages").glob("*/receipt.json")),
        "zero_shot": zero_shot(reader, data["test"]["kidney"], seen["test"], options.draws),
        "retrieval": retrieval_table(likenesses(reader, data["test"], test), options.draws),
        "probes": probes({s: p["kidney"] for s, p in data.items()}, pooled, options.draws),
        "survival": survival(data, pooled, options.draws, options.seed),
    }


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


def kidneys_of(part: KindData) -> list[dict[str, Any] | None]:
    """(N,) what the mask says of each row's kidney."""
    regions = [part.cohort.regions[int(c)] for c in part.texts.columns]
    cases = [part.cohort.cases[int(r)] for r in part.texts.rows]
    return [case["truth"]["kidneys"].get(name.rpartition("_")[2]) for case, name in zip(cases, regions, strict=True)]


QUESTIONS = {
    "renal_mass": lambda k: bool(k["tumours"]),
    "renal_cyst": lambda k: bool(k["cysts"]),
    "renal_mass_large": lambda k: k["tumours"][0]["size_mm"] >= 40 if k["tumours"] else None,
    "mass_exophytic": lambda k: k["tumours"][0]["outside"] >= 0.5 if k["tumours"] else None,
    "mass_upper_pole": lambda k: k["tumours"][0]["pole"] == "upper" if k["tumours"] else None,
}


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


PATHOLOGY = {
    "clear cell carcinoma": lambda c: (
        None if not c["tumor_histologic_subtype"] else c["tumor_histologic_subtype"] == "clear_cell_rcc"
    ),
    "high grade (ISUP 3, 4)": lambda c: c["tumor_isup_grade"] in "34" if c["tumor_isup_grade"] in ("1", "2", "3", "4") else None,
    "necrosis": lambda c: c["tumor_necrosis"],
    "malignant": lambda c: c["malignant"],
}


def main_rows(part: KindData) -> dict[int, int]:
    """Patient row to the sample of the kidney with the largest tumour."""
    best: dict[int, tuple[float, int]] = {}
    for i, (row, kidney) in enumerate(zip(part.texts.rows, kidneys_of(part), strict=True)):
        size = kidney["tumours"][0]["size_mm"] if kidney and kidney["tumours"] else -1
        best[int(row)] = max(best.get(int(row), (-2, -1)), (size, i))
    return {row: i for row, (size, i) in best.items() if size > 0}


def size_features(case: dict[str, Any]) -> list[float]:
    """Log of the largest axial diameter and of all tumour volume, number of tumours, and volume of kidney tissue."""
    kidneys = case["truth"]["kidneys"].values()
    tumours = [t for k in kidneys for t in k["tumours"]]
    volume = sum(t["volume_ml"] for t in tumours)
    largest = max(t["size_mm"] for t in tumours)
    return [np.log(largest), np.log(volume), len(tumours), sum(k["volume_ml"] for k in kidneys) / 100]


def clinical_features(case: dict[str, Any]) -> list[float]:
    """What is known before surgery, without size: age, sex, body-mass index, comorbidities, smoking."""
    row = case["truth"]["clinical"]
    smoking = [float(row["smoking_history"] == s) for s in ("previous_smoker", "current_smoker")]
    ill = sum(bool(v) for v in (row["comorbidities"] or {}).values())
    return [row["age_at_nephrectomy"], float(row["gender"] == "male"), row["bmi"] or 29.0, np.log1p(ill), *smoking]


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


def survival(data: dict[str, dict[str, KindData]], pooled: dict[str, Array], draws: int, seed: int) -> dict[str, Any]:
    """Harrell's C of ridge Cox models on all patients, pooled out of five folds; the penalty is chosen inside each fold.

    The image tower has seen training patients' reports of size and place, never an outcome.
    """
    image, cases = [], []
    for split, parts in data.items():
        for row, i in main_rows(parts["kidney"]).items():
            image.append(pooled[split][i])
            cases.append(parts["kidney"].cohort.cases[row])
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


def out_of_fold(blocks: list[Array], t: Array, e: NDArray[np.bool_], seed: int) -> Array:
    """(N,) risks of patients by models that have not seen them; each block counts the same whatever its width."""
    fold = folds(e, FOLDS, seed)
    risk = np.empty(len(t))
    for k in range(FOLDS):
        train, held = fold != k, fold == k
        inner = folds(e[train], 3, seed + 1)
        scores = []
        for penalty in PENALTIES:
            guess = np.empty(int(train.sum()))
            for m in range(3):
                guess[inner == m] = fit_predict([b[train] for b in blocks], t[train], e[train], inner != m, inner == m, penalty)
            scores.append(harrell(t[train], e[train], guess))
        risk[held] = fit_predict(blocks, t, e, train, held, PENALTIES[int(np.argmax(scores))])
    return risk


def fit_predict(
    blocks: list[Array], t: Array, e: NDArray[np.bool_], train: NDArray[np.bool_], held: NDArray[np.bool_], penalty: float
) -> Array:
    """Risks of held-out rows, standardised to training rows' mean and deviation, so that folds can be pooled."""
    scaled = [(b - b[train].mean(0)) / np.maximum(b[train].std(0), 1e-6) / np.sqrt(b.shape[1] / 4) for b in blocks]
    x = np.concatenate(scaled, 1)
    weights = fit_cox(x[train], t[train], e[train], penalty=penalty, ties="breslow").coefficients
    risk = x @ weights
    return np.asarray((risk[held] - risk[train].mean()) / max(float(risk[train].std()), 1e-9))


def folds(event: NDArray[np.bool_], n: int, seed: int) -> NDArray[np.int64]:
    """(N,) fold numbers with the events spread evenly."""
    rng, out = np.random.default_rng(seed), np.empty(len(event), np.int64)
    for value in (False, True):
        rows = rng.permutation(np.flatnonzero(event == value))
        out[rows] = np.arange(len(rows)) % n
    return out


if __name__ == "__main__":
    main()
