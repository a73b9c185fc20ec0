"""How few labels are enough: findings learned from 1 to 100 % of the training patients, on a pre-trained and an untrained tower.

Takes a finished run of `benchmarks/recipes.py`. Which patients a share holds is drawn by seed, patients whole; ridge, epoch and
threshold come from validation patients; AUROC with its interval by patient from test patients. What is done is kept, so the
command goes on where it was stopped.

    python benchmarks/few_labels.py --recipe renalclip-small             linear probes on features that are read once
    python benchmarks/few_labels.py --recipe renalclip-small --finetune  and the whole tower learning with the head
    python benchmarks/few_labels.py --recipe renalclip-small --table     prints the table from what is there
    python benchmarks/few_labels.py --recipe renalclip-small --embedded DIR   writes the run's cohorts for few_labels_heads.py
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medvl.evaluation.calibration import calibrate
from medvl.evaluation.embedded import Embedded
from medvl.evaluation.fractions import FRACTIONS, fraction_subset
from medvl.evaluation.intervals import bootstrap
from medvl.evaluation.metrics import auroc, auroc_of
from medvl.evaluation.phantom_truth import patient_of, truth_of
from medvl.heads.probe import fit_linear_probe
from medvl.heads.ways import Towers
from medvl.recipe import Recipe, load_recipe
from medvl.text.prompts import Finding, FindingList, load_findings
from medvl.training.answers import Answers, answers, region_names
from medvl.training.batches import to_pixels, vary
from medvl.training.features import pooled_features
from medvl.training.finetune import finetune
from medvl.training.finetune_options import FineTuneConfig
from medvl.training.finished import open_finished
from medvl.training.run import new_system, phantom_cohorts
from medvl.training.samples import KindData, kind_data

RECIPES = Path(__file__).parents[1] / "configs" / "recipes"
FINDINGS = Path(__file__).parents[1] / "configs" / "findings" / "phantom.yaml"
SPLITS = ("train", "validation", "test")
TOWERS = ("pre-trained", "untrained")


@dataclass(frozen=True, eq=False)
class Task:
    """One finding: its rows and labels in every split, and the samples they are rows of."""

    finding: Finding
    parts: Mapping[str, KindData]
    known: Mapping[str, Answers]


def main(arguments: list[str] | None = None) -> None:
    """Learn, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="renalclip-small", help="name or file")
    parser.add_argument("--set", dest="changes", nargs="*", default=["seed=0"], help="changes to the recipe, as the run had them")
    parser.add_argument("--stages", type=Path, default=Path("runs/recipes/stages"))
    parser.add_argument("--cohorts", type=Path, default=Path("runs/cohorts"))
    parser.add_argument("--out", type=Path, default=Path("runs/few-labels"))
    parser.add_argument("--findings", nargs="+", default=["renal_mass", "hydronephrosis", "aortic_aneurysm"])
    parser.add_argument("--fractions", type=float, nargs="+", default=FRACTIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--first-rows", action="store_true", help="the first rows of the table, as Cardiac-CLIP's release takes")
    parser.add_argument("--finetune", action="store_true")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--embedded", type=Path, help="write train, validation and test as embedded cohorts, and stop")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    path = RECIPES / f"{options.recipe}.yaml" if not options.recipe.endswith(".yaml") else Path(options.recipe)
    place = options.out / path.stem
    if options.embedded:
        embed(options, load_recipe(path, options.changes), load_findings(FINDINGS), place)
        return
    if not options.table:
        measure(options, load_recipe(path, options.changes), load_findings(FINDINGS), place)
    for name, results in read(place).items():
        print(f"{name}:\n\n{table(results)}\n")


def measure(options: argparse.Namespace, recipe: Recipe, findings: FindingList, place: Path) -> None:
    """Everything that is not there yet."""
    run = open_finished(recipe, options.stages, options.cohorts, place, findings)
    test = phantom_cohorts(recipe, options.cohorts, lambda *_: None, ("test",))["test"]
    data = {"train": run.work.train, "validation": run.work.validation, "test": kind_data(recipe, test)}
    tasks = [_task(findings[key], findings, data) for key in options.findings]
    kinds = {task.finding.region for task in tasks}
    fresh = new_system(recipe, run.work.tokenizer, run.work.concepts).clip
    for tower, clip in zip(TOWERS, (run.trained.system.clip, fresh), strict=True):
        features = _features(clip, data, kinds, place / f"{tower}-{run.folder.name}.safetensors")
        for method, fraction, seed in _settings(options):
            drawn = "first" if options.first_rows else f"seed{seed}"
            path = place / run.folder.name / f"{method}-{tower}-{fraction:g}-{drawn}.json"
            done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"findings": {}}
            for task in tasks:
                if task.finding.key not in done["findings"]:
                    scores = _learn(options, method, clip, task, features, fraction, seed)
                    done["findings"][task.finding.key] = scores
            told = {"method": method, "tower": tower, "fraction": fraction, "seed": seed, "first_rows": options.first_rows}
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps({**told, "run": run.folder.name, **done}, indent=1), encoding="utf-8")
            part.replace(path)
            print(f"{tower}, {method}, {fraction:.0%}, {drawn}: {_told(done['findings'])}", file=sys.stderr, flush=True)


def embed(options: argparse.Namespace, recipe: Recipe, findings: FindingList, place: Path) -> None:
    """The pre-trained run's splits as `Embedded` folders: pooled features, embeddings, zero-shot margins, truth, outcomes."""
    run = open_finished(recipe, options.stages, options.cohorts, place, findings)
    test = phantom_cohorts(recipe, options.cohorts, lambda *_: None, ("test",))["test"]
    data = {"train": run.work.train, "validation": run.work.validation, "test": kind_data(recipe, test)}
    system = run.trained.system
    features = _features(system.clip, data, set(recipe.kinds), place / f"pre-trained-{run.folder.name}.safetensors")
    asker = Towers(system, {name: kind.regions for name, kind in recipe.kinds.items()}, findings)
    for split, parts in data.items():
        found = [_embedded(asker, kind, part, features[f"{split}/{kind}"]) for kind, part in parts.items()]
        arrays = {name: np.concatenate([f[name] for f in found]) for name in found[0] if name not in ("rows", "patients")}
        people = pd.concat([f["patients"] for f in found])
        about = {"model": recipe.name, "model_sha256": run.folder.name, "split": split, "way": "crops"}
        Embedded(
            pd.concat([f["rows"] for f in found], ignore_index=True),
            people[~people.index.duplicated()],
            **arrays,
            findings=tuple(f.key for f in findings.findings),
            source=about,
        ).save(options.embedded / split)
        print(f"{split}: {len(people)} regions in {options.embedded / split}", file=sys.stderr)


@torch.no_grad()
def _embedded(asker: Towers, kind: str, part: KindData, pooled: Tensor) -> dict[str, Any]:
    """Columns of the `Embedded` of one kind."""
    clip, names = asker.system.clip.eval(), region_names(part)
    embedding = clip.project(pooled, torch.full((len(pooled),), part.index)).float()
    people = [patient_of(part.cohort.cases[int(row)]["truth"]) for row in part.texts.rows]
    keys = [f.key for f in asker.findings.findings]
    margins, truth = np.full((len(names), len(keys)), np.nan, np.float32), np.full((len(names), len(keys)), -1, np.int8)
    for j, finding in enumerate(asker.findings.findings):
        for region in set(names) & set(asker.kinds[finding.region]):
            rows = np.flatnonzero(np.array(names) == region)
            margins[rows, j] = asker.margin(finding, region, embedding[rows]).numpy()
            told = [truth_of(finding, region, people[row]) for row in rows]
            truth[rows, j] = [-1 if value is None else value for value in told]
    who = [person.patient_id for person in people]
    known = [{k: getattr(p, k) for k in ("seed", "sex", "age_years", "bmi", "time_days", "event")} for p in people]
    reports = np.full(embedding.shape, np.nan, np.float32)
    return {
        "rows": pd.DataFrame({"patient_id": who, "region": names, "kind": kind, "report": "", "reason": ""}),
        "patients": pd.DataFrame([{**k, "phase": p.scanner.phase} for k, p in zip(known, people, strict=True)], index=who),
        "embedding": embedding.numpy(),
        "pooled": pooled.numpy(),
        "report_embedding": reports,
        "margins": margins,
        "said": np.full_like(truth, -1),
        "truth": truth,
    }


def _settings(options: argparse.Namespace) -> Iterator[tuple[str, float, int]]:
    """Method, fraction and seed; where no draw depends on the seed, only the first."""
    for method in ("probe", "fine-tuned") if options.finetune else ("probe",):
        for fraction in options.fractions:
            same = method == "probe" and (options.first_rows or fraction == 1)
            yield from ((method, fraction, seed) for seed in (options.seeds[:1] if same else options.seeds))


def _task(finding: Finding, findings: FindingList, data: Mapping[str, Mapping[str, KindData]]) -> Task:
    parts = {split: data[split][finding.region] for split in SPLITS}
    return Task(finding, parts, {split: answers(finding, part, findings) for split, part in parts.items()})


def _features(clip: Any, data: Mapping[str, Mapping[str, KindData]], kinds: set[str], path: Path) -> dict[str, Tensor]:
    """`split/kind` to pooled features (N, P), read once and kept."""
    known = load_file(path) if path.exists() else {}
    missing = {f"{split}/{kind}": data[split][kind] for split in SPLITS for kind in sorted(kinds)}
    for name, part in missing.items():
        if name not in known:
            known[name] = pooled_features(clip, part).contiguous()
            print(f"  read {name}: {tuple(known[name].shape)}", file=sys.stderr, flush=True)
            save_file(known, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
    return known


def _learn(
    options: argparse.Namespace, method: str, clip: Any, task: Task, features: Mapping[str, Tensor], fraction: float, seed: int
) -> dict[str, Any]:
    """What one share of the training patients taught about one finding."""
    known = task.known["train"]
    chosen = fraction_subset(known.patients, fraction, seed, first_rows=options.first_rows)
    labels = known.labels[chosen]
    counts = {"patients": len(np.unique(known.patients[chosen])), "n": len(labels), "present": int(labels.sum())}
    if len(set(labels.tolist())) < 2:
        return counts
    if method == "probe":
        logits = probe_logits(task, features, known.rows[chosen], labels)
    else:
        config = FineTuneConfig(
            task="multilabel",
            n_outputs=1,
            balancing="none",
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            seed=seed,
        )
        logits = tuned_logits(clip, task, known.rows[chosen], config)
    return counts | scored(task, *logits, options.draws)


def probe_logits(task: Task, features: Mapping[str, Tensor], rows: Any, labels: Any) -> tuple[Any, Any]:
    """Of validation and test rows, from a linear probe on training rows whose ridge validation patients chose."""
    x = {split: features[f"{split}/{task.finding.region}"].double().numpy() for split in SPLITS}
    held, test = (x[split][task.known[split].rows] for split in SPLITS[1:])
    probe = fit_linear_probe(
        (x["train"][rows], labels[:, None]), (held, task.known["validation"].labels[:, None]), "multilabel", 1
    )
    return probe.logits(held)[:, 0], probe.logits(test)[:, 0]


class Tower(nn.Module):
    """A copy of the image tower and its pool."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.image, self.pool = copy.deepcopy(clip.image), copy.deepcopy(clip.pool)

    def forward(self, pixels: Tensor, kind: Tensor) -> Tensor:
        return self.pool(self.image(pixels), kind)


def tuned_logits(clip: Any, task: Task, rows: Any, config: FineTuneConfig) -> tuple[Any, Any]:
    """Of validation and test rows, from a copy of the tower that learned with a linear head on training rows."""
    tower, rng = Tower(clip), np.random.default_rng([config.seed, 31])
    ends = np.cumsum([0, *(len(task.parts[split]) for split in SPLITS)])
    labels = np.full((ends[-1], 1), -1)
    for start, split in zip(ends, SPLITS, strict=False):
        labels[start + task.known[split].rows, 0] = task.known[split].labels

    def represent(wanted: Any) -> Tensor:
        crops = []
        for row in wanted:
            split = int(np.searchsorted(ends, row, side="right")) - 1
            crop = task.parts[SPLITS[split]].crop(int(row - ends[split]))
            crops.append(vary(crop, rng) if tower.training else crop)
        part = task.parts["train"]
        return tower(to_pixels(np.stack(crops), part.windows_hu), torch.full((len(wanted),), part.index))

    held, test = (start + task.known[split].rows for start, split in zip(ends[1:], SPLITS[1:], strict=False))
    tuned = finetune(tower, represent, labels, rows, held, config)
    return tuple(tuned.logits(tower, represent, part).double().numpy()[:, 0] for part in (held, test))  # type: ignore[return-value]


def scored(task: Task, held: Any, test: Any, draws: int) -> dict[str, Any]:
    """Test AUROC, and sensitivity and specificity at the threshold that validation patients chose."""
    y, who = task.known["test"].labels, task.known["test"].patients
    fitted = calibrate(task.known["validation"].labels, held)
    said = fitted.probability(test) >= fitted.threshold
    return {
        "auroc": auroc(y, test),
        "ci": bootstrap(auroc_of(y, test), who, n=draws),
        "sensitivity": float(said[y == 1].mean()),
        "specificity": float(1 - said[y == 0].mean()),
    }


def read(place: Path) -> dict[str, list[dict[str, Any]]]:
    """Every finished setting, by run."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(place.glob("*/*.json")):
        found.setdefault(path.parent.name, []).append(json.loads(path.read_text(encoding="utf-8")))
    return found


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a row a finding, way of learning and tower; mean AUROC over seeds, in brackets where their intervals reach."""
    fractions = sorted({r["fraction"] for r in results})
    lines = [
        "| finding | learns | tower | " + " | ".join(f"{f:.0%}" for f in fractions) + " |",
        "|---" * (3 + len(fractions)) + "|",
    ]
    by_row: dict[tuple[str, str, str], dict[float, list[dict[str, Any]]]] = {}
    for r in results:
        method = r["method"] + (", first rows" if r["first_rows"] else "")
        for key, row in r["findings"].items():
            by_row.setdefault((key, method, r["tower"]), {}).setdefault(r["fraction"], []).append(row)
    for names, cells in sorted(by_row.items()):
        lines.append(f"| {' | '.join(names)} | " + " | ".join(_cell(cells.get(f, [])) for f in fractions) + " |")
    return "\n".join(lines)


def _cell(rows: list[dict[str, Any]]) -> str:
    able = [row for row in rows if "auroc" in row]
    if not able:
        return "one class only" if rows else ""
    low, high = min(row["ci"][0] for row in able), max(row["ci"][1] for row in able)
    few = f", {len(able)} of {len(rows)} seeds" if len(able) < len(rows) else ""
    return f"{np.mean([row['auroc'] for row in able]):.3f} ({low:.3f} to {high:.3f}{few})"


def _told(findings: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{key} {row['auroc']:.3f}" if "auroc" in row else f"{key} one class only" for key, row in findings.items())


if __name__ == "__main__":
    main()
