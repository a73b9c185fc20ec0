"""The tables of benchmarks/painted_kits23.py, as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECALLS = [(way, k) for way in ("image_to_report", "report_to_image") for k in (1, 5, 10)]


def tables(out: Path) -> str:
    """Zero-shot, retrieval, pathology and survival of all finished conditions."""
    runs = {r["condition"]: r for r in (json.loads(p.read_text(encoding="utf-8")) for p in sorted(out.glob("*-[0-9]*.json")))}
    if not runs:
        return "nothing is finished yet"
    first = next(iter(runs.values()))
    n = first["patients"]
    lead = f"{n['train']} training, {n['validation']} validation, {n['test']} test patients; 95 % intervals by patient."
    costs = "CPU seconds of training: " + ", ".join(f"{name} {r['cpu_s']:.0f}" for name, r in runs.items()) + "."
    parts = [f"{lead} {costs}", _zero_shot(runs), _retrieval(runs), _pathology(runs), _survival(runs)]
    return "\n\n".join([*parts, *_radiomics(out / "radiomics")])


def _radiomics(folder: Path) -> list[str]:
    """Radiomics beside the image tower, a column for each; nothing where none was measured."""
    runs = {r["condition"]: r for r in (json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*-[0-9]*.json")))}
    if not runs:
        return []
    first = next(iter(runs.values()))
    n, of = first["patients"], first["features"]
    lead = (
        f"Radiomics of the tumour's true mask: {of['radiomics']} features, {of['shape']} of them shape. {n['train']} training, "
        f"{n['validation']} validation, {n['test']} test patients; {first['refused']} left out as their tumour is below 1 mL."
    )
    return [lead, _beside(runs, "pathology"), _beside(runs, "survival")]


def _beside(runs: dict[str, Any], what: str) -> str:
    """Rows of targets or of risks; a column of each condition, and of shape alone where conditions do not matter."""
    first = next(iter(runs.values()))[what]
    if what == "survival":
        rows = [
            [k, *(_cell(r[what][k], "+" if " - " in k else "") for r in runs.values())] for k in first if k not in ("n", "events")
        ]
        return _grid([f"overall survival, C ({first['n']} patients, {first['events']} deaths)", *runs], rows)
    columns = ["image", "radiomics", "radiomics - image", "radiomics - shape"]
    head = [f"{column}, {name}" for column in columns for name in runs]
    rows = [
        [
            target,
            f"{told['present']} of {told['n']}",
            _cell(told["shape"]),
            *(_cell(r[what][target][c], "+" if " - " in c else "") for c in columns for r in runs.values()),
        ]
        for target, told in first.items()
    ]
    return _grid(["linear probe AUROC", "present", "shape alone", *head], rows)


def _grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(found: dict[str, Any], sign: str = "") -> str:
    low, high = found["ci"]
    return f"{found['value']:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _zero_shot(runs: dict[str, Any]) -> str:
    first = next(iter(runs.values()))["zero_shot"]
    rows = [[k, f"{v['present']} of {v['n']}", *(_cell(r["zero_shot"][k]) for r in runs.values())] for k, v in first.items()]
    means = [f"{sum(v['value'] for v in r['zero_shot'].values()) / len(first):.3f}" for r in runs.values()]
    return _grid(["zero-shot AUROC", "present", *runs], [*rows, ["mean", "", *means]])


def _retrieval(runs: dict[str, Any]) -> str:
    size = next(iter(runs.values()))["retrieval"]["gallery"]
    rows = [
        [
            f"{way.replace('_', ' ')}, R@{k}",
            f"{k / size:.3f}",
            *(_cell(r["retrieval"][f"{way}_recall_at_{k}"]) for r in runs.values()),
        ]
        for way, k in RECALLS
    ]
    return _grid([f"gallery of {size} patients", "chance", *runs], rows)


def _pathology(runs: dict[str, Any]) -> str:
    first = next(iter(runs.values()))["probes"]
    rows = []
    for k, v in first.items():
        images = [_cell(r["probes"][k]["image"]) for r in runs.values()]
        rows.append([k, f"{v['image']['present']} of {v['image']['n']}", *images, _cell(v["size"]), _cell(v["clinical"])])
    return _grid(["linear probe AUROC", "present", *(f"image, {name}" for name in runs), "size alone", "clinical alone"], rows)


def _survival(runs: dict[str, Any]) -> str:
    first = next(iter(runs.values()))["survival"]
    names = [k for k in first if k not in ("n", "events")]
    rows = [[k, *(_cell(r["survival"][k], "+" if k.startswith("gain") else "") for r in runs.values())] for k in names]
    return _grid([f"overall survival, C ({first['n']} patients, {first['events']} deaths)", *runs], rows)
