"""`medvl evaluate`: the held-out table of a bundle on phantoms, through the whole path from scan to answer."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.errors import ConfigError

from .built_in import bundle_folder
from .console import err, say, table

if TYPE_CHECKING:
    from medvl.imaging.phantom.truth import Patient
    from medvl.inference.holdout import Held
    from medvl.inference.predictor import Predictor
    from medvl.models.bundle import Bundle
    from medvl.records import Volume


def run(
    *,
    bundle: str,
    data: Path | None = None,
    split: str = "test",
    out: Path | None = None,
    baseline: Path | None = None,
    limit: int | None = None,
) -> int:
    """Exit code 0 after printing the tables; `evaluation.json` and `evaluation.md` also go to `out` if given.

    Raises:
        ConfigError: the split, the cohort folder or the baseline run is not usable.
    """
    folder = bundle_folder(bundle)
    with err().status("loading the model"):
        from medvl.inference.holdout import table as measure
        from medvl.inference.predictor import Predictor
        from medvl.models.bundle import open_bundle

        opened = open_bundle(folder)
        predictor = Predictor(opened)
    held = list(_held(predictor, opened, data, split, limit))
    with err().status("bootstrap intervals"):
        result = measure(held, predictor, predictor.embed_texts)
    if baseline is not None:
        _add_baseline(result["findings"], held, predictor, baseline)
    result = {"bundle": opened.name, "bundle_sha256": opened.sha256, "split": split, **result}
    tables = list(_tables(result))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (out / "evaluation.md").write_text(_markdown(tables), encoding="utf-8")
    for title, columns, rows in tables:
        table(columns, rows, title=title)
    if out is not None:
        say(f"Written: {out / 'evaluation.json'}, {out / 'evaluation.md'}")
    return 0


def _add_baseline(findings: dict[str, Any], held: Sequence[Held], predictor: Predictor, run: Path) -> None:
    """AUROC of the run's supervised first stage on the same regions, under `supervised` of each finding."""
    import numpy as np

    from medvl.evaluation.metrics import auroc
    from medvl.evaluation.phantom_truth import truth_of
    from medvl.training.baseline import SupervisedBaseline

    stage = SupervisedBaseline(run)
    known: dict[str, tuple[list[int], list[float]]] = {key: ([], []) for key in findings}
    for region in predictor.contract.names:
        usable = [h for h in held if h.result.regions[region].embedding is not None]
        crops = [h.result.regions[region].hu for h in usable]
        scores = stage.scores(region, [c for c in crops if c is not None]) if crops else {}
        for key, (labels, values) in known.items():
            finding = predictor.findings[key]
            if region in predictor.kinds[finding.region]:
                for h, value in zip(usable, scores.get(finding.truth, ()), strict=False):
                    truth = truth_of(finding, region, h.patient)
                    if truth is not None:
                        labels.append(truth)
                        values.append(float(value))
    for key, (labels, values) in known.items():
        findings[key]["supervised"] = round(auroc(np.array(labels), np.array(values)), 4) if len(set(labels)) == 2 else None


def _held(predictor: Predictor, bundle: Bundle, data: Path | None, split: str, limit: int | None) -> Iterator[Held]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from medvl.imaging.phantom.write import report_of
    from medvl.inference.holdout import run_patient
    from medvl.text.report import parse_report

    scans, total = _from_folder(data, split) if data else _from_bundle(bundle, split)
    total = min(total, limit or total)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err()
    ) as bars:
        for _, (patient, volume) in zip(
            range(total), bars.track(scans, total=total, description=f"{split} patients"), strict=False
        ):
            yield run_patient(predictor, patient, volume, parse_report(report_of(patient)).regions)


def _from_bundle(bundle: Bundle, split: str) -> tuple[Iterator[tuple[Patient, Volume]], int]:
    """Phantoms of the bundle's own cohort, painted on demand."""
    from medvl.imaging.phantom.render import render
    from medvl.imaging.phantom.sample import sample_patient

    cohort: dict[str, Any] = bundle.values("metrics.json")["cohort"]
    if split not in ("test", "validation"):
        raise ConfigError(f"split must be test or validation, got {split}")
    start, n = cohort[f"start_{split}"], cohort[f"n_{split}"]
    patients = (sample_patient(cohort["seed"], number) for number in range(start, start + n))
    return ((p, render(p)) for p in patients), n


def _from_folder(data: Path, split: str) -> tuple[Iterator[tuple[Patient, Volume]], int]:
    """Studies of a folder that `medvl phantom` wrote, read from their DICOM or NIfTI."""
    from medvl.imaging.load import load
    from medvl.imaging.phantom.sample import sample_patient

    manifest = data / "manifest.csv"
    if not manifest.is_file():
        raise ConfigError(f"no manifest.csv in {data}; give a folder that medvl phantom wrote")
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    if not rows:
        raise ConfigError(f"the manifest in {data} has no {split} patients; write more with medvl phantom --n")
    seed = json.loads((data / "cohort.json").read_text(encoding="utf-8"))["seed"]

    def scans() -> Iterator[tuple[Patient, Volume]]:
        for row in rows:
            volume = next(iter(load(data / (row["dicom"] or row["nifti"])))).read()
            yield sample_patient(seed, int(row["patient_id"][2:])), volume

    return scans(), len(rows)


def _tables(result: dict[str, Any]) -> Iterator[tuple[str, list[str], list[list[Any]]]]:
    """(title, columns, rows) of each table."""
    found = result["findings"]
    rows = [
        [
            key,
            f["n"],
            f["present"],
            _span(f, "auroc"),
            _number(f.get("supervised")),
            _percent(f["sensitivity"]),
            _percent(f["specificity"]),
            _percent(f["undecided"]),
            f"{f['ece']:.3f}",
        ]
        for key, f in found.items()
    ]
    means = [_mean([f["auroc"] for f in found.values()]), _mean([f.get("supervised") for f in found.values()])]
    rows.append(["mean", "", "", *means, "", "", "", ""])
    heads = [
        "finding",
        "regions",
        "present",
        "zero-shot AUROC [95 % CI]",
        "supervised",
        "sensitivity",
        "specificity",
        "undecided",
        "ECE",
    ]
    yield f"{result['bundle']}, {result['patients']} {result['split']} patients", heads, rows
    r = result["retrieval"]
    rows = [
        [
            way.replace("_", " "),
            *(_span(r[f"{way}_recall_at_{k}"], "value") for k in (1, 5, 10)),
            f"{r[f'{way}_median_rank']:.1f}",
        ]
        for way in ("image_to_report", "report_to_image")
    ]
    title = f"Retrieval, {r['galleries']} galleries of {r['gallery']} patients; chance at 1: {r['chance_at_1']}"
    yield title, ["way", "R@1", "R@5", "R@10", "median rank"], rows
    s = result["survival"]
    rows = [[name.replace("_", " "), _span(s[name], "c_index")] for name in ("model", "oracle", "age_only")]
    yield f"Survival, {s['n']} patients, {s['events']} deaths; oracle: the true hazard", ["risk", "C-index [95 % CI]"], rows
    rows = [
        [key, p["n"], _span(p, "rate"), f"{p['within_5_mm']:.3f}", f"{p['chance']:.3f}"] for key, p in result["pointing"].items()
    ]
    yield "Pointing game", ["finding", "n", "peak in the lesion [95 % CI]", "within 5 mm", "chance"], rows
    rows = [[key, v["n"], f"{v['median_mm']:.1f}", _percent(v["within_15_mm"])] for key, v in result["localiser"].items()]
    yield "Localiser", ["region", "n", "median error, mm", "within 15 mm"], rows


def _markdown(tables: Sequence[tuple[str, list[str], list[list[Any]]]]) -> str:
    parts = []
    for title, columns, rows in tables:
        lines = [f"| {' | '.join(map(str, row))} |" for row in (columns, ["---"] * len(columns), *rows)]
        parts.append(f"**{title}**\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _span(values: dict[str, Any], key: str) -> str:
    return f"{values[key]:.3f} [{values['ci'][0]:.3f}, {values['ci'][1]:.3f}]"


def _mean(values: list[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{sum(known) / len(known):.3f}" if known else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"
