"""`medvl evaluate`: the held-out table of a bundle on phantoms, through the whole path from scan to answer."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
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


def run(*, bundle: str, data: Path | None = None, split: str = "test", out: Path | None = None, limit: int | None = None) -> int:
    """Exit code 0 after printing the tables; `evaluation.json` also goes to `out` if given.

    Raises:
        ConfigError: the split or the cohort folder is not usable.
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
    result = {"bundle": opened.name, "bundle_sha256": opened.sha256, "split": split, **result}
    _print(result)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        say(f"Written: {out / 'evaluation.json'}")
    return 0


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


def _print(result: dict[str, Any]) -> None:
    def span(values: dict[str, Any], key: str) -> str:
        return f"{values[key]:.3f} [{values['ci'][0]:.3f}, {values['ci'][1]:.3f}]"

    rows = [
        [
            k,
            f["n"],
            f["present"],
            span(f, "auroc"),
            _percent(f["sensitivity"]),
            _percent(f["specificity"]),
            _percent(f["undecided"]),
            f"{f['ece']:.3f}",
        ]
        for k, f in result["findings"].items()
    ]
    mean = sum(f["auroc"] for f in result["findings"].values()) / max(1, len(rows))
    rows.append(["mean", "", "", f"{mean:.3f}", "", "", "", ""])
    heads = ["finding", "regions", "present", "zero-shot AUROC [95 % CI]", "sensitivity", "specificity", "undecided", "ECE"]
    table(heads, rows, title=f"{result['bundle']}, {result['patients']} {result['split']} patients")
    r = result["retrieval"]
    rows = [
        [way.replace("_", " "), *(span(r[f"{way}_recall_at_{k}"], "value") for k in (1, 5, 10)), r[f"{way}_median_rank"]]
        for way in ("image_to_report", "report_to_image")
    ]
    table(
        ["retrieval", "R@1", "R@5", "R@10", "median rank"],
        rows,
        title=f"{r['galleries']} galleries of {r['gallery']}; chance at 1: {r['chance_at_1']}",
    )
    s = result["survival"]
    rows = [[name, span(s[name], "c_index")] for name in ("model", "oracle", "age_only")]
    table(["survival", "C-index [95 % CI]"], rows, title=f"{s['n']} patients, {s['events']} deaths; oracle: the true hazard")
    rows = [[k, p["n"], span(p, "rate"), f"{p['within_5_mm']:.3f}", f"{p['chance']:.3f}"] for k, p in result["pointing"].items()]
    table(["pointing game", "n", "hit rate [95 % CI]", "within 5 mm", "chance"], rows)
    rows = [[k, v["n"], v["median_mm"], _percent(v["within_15_mm"])] for k, v in result["localiser"].items()]
    table(["localiser", "n", "median error, mm", "within 15 mm"], rows)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"
