"""Presence, place and size that the rules read, against findings extracted by hand from 25 chest CT reports."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medvl.evaluation.intervals import bootstrap
from medvl.text.describe import Described, describe
from medvl.text.labels import extract_text, measures
from medvl.text.ontology import Ontology, phrases, table
from medvl.text.report import side_of
from medvl.text.scope import ABSENT, PRESENT, UNCERTAIN

KINDS = ("presence", "presence, others read count as wrong", "side", "side and lobe", "size")
# Which of our findings a hand-written name means; names of other things (bones, thyroid, pneumothorax...) are left out.
MEANS = {
    "pleural_effusion": r"pleural effusion|hemothorax",
    "pericardial_effusion": r"peri+cardial effusion",
    "lymphadenopathy": r"lymphadenopathy|(?:enlarged )?mediastinal lymph nodes",
    "cardiomegaly": r"cardiomegaly",
    "consolidation": r"(?:focal )?consolidation",
    "lung_nodule": r"(?:pulmonary |faint )?nodule|micronodules",
    "atelectasis": r"atelectasis",
    "coronary_calcification": r"coronary artery calcification",
    "arterial_calcification": r"aortic (?:atherosclerotic )?calcifications|atherosclerosis|abdominal vasculature calcifications",
    "peribronchial_thickening": r"bronchial wall thickening",
    "emphysema": r"emphysema(?:tous changes)?",
    "lung_opacity": r"(?:lung )?opacit(?:y|ies)",
    "bronchiectasis": r"bronchiectasis",
    "fibrotic_sequela": r"(?:parenchymal )?scarring",
    "medical_material": r"port-a-cath|chest port|port catheter|coronary stent|chest tube|surgical clips|breast implants|tavr",
    "hiatal_hernia": r"hiatal hernia",
}


def key_of(item: Mapping[str, Any]) -> str | None:
    """Our finding for one of theirs."""
    name = re.sub(r",?\s*\[.*?\]", "", item["finding"]).strip().lower()
    where = str(item["attributes"].get("location", "")).lower()
    if name in {"vessel calcification", "calcification"} and ("coronary" in where or "aort" in where):
        return "coronary_calcification" if "coronary" in where else "arterial_calcification"
    return next((key for key, pattern in MEANS.items() if re.fullmatch(pattern, name)), None)


def place_of(item: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """(side, lobe) of one of their findings; bracketed RadLex ids are no words of the report."""
    words = " ".join(str(v) for k, v in item["attributes"].items() if k in {"location", "side", "silde", "segment"})
    words = re.sub(r"\[.*?\]", "", words).lower().replace("righ side", "right side").replace("uppr", "upper")
    words = re.sub(r"\b(?:bibas\w+|biapical)\b", r"\g<0> bilateral", words)
    lobes = {name for name, terms in table("report")["lobes"].items() if phrases(tuple(terms)).search(words)}
    return side_of(words), lobes.pop() if len(lobes) == 1 else None


def score_structured(path: Path, ontology: Ontology) -> dict[str, Any]:
    """Counts of agreement (presence by report and finding, side, lobe and size by hand-written item), and F1 of each."""
    n: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    right: dict[str, list[tuple[int, int, int]]] = {name: [] for name in KINDS}
    for line in path.read_text(encoding="utf-8").splitlines():
        report = json.loads(line)
        labels = extract_text(report["report_text"], ontology)
        ours = [d for d in describe(report["report_text"], ontology) if d.status != ABSENT]
        items = [(key, item) for item in report["findings"] if (key := key_of(item))]
        states: dict[str, int] = {}
        present = [(key, item) for key, item in items if not _absent(item)]
        for key, item in items:
            absent = _absent(item)
            states[key] = max(states.get(key, ABSENT), ABSENT if absent else PRESENT)
            if not absent:
                _score_item(item, [d for d in ours if d.finding == key], n)
        for key, state in states.items():
            said = PRESENT if labels[key] == UNCERTAIN else labels[key]
            n["presence"] += 1
            n["presence agrees"] += said == state
            if said != state:
                wrong[f"{key}: {state} by hand, {labels[key]} by rules"] += 1
        unlisted = sum(v == PRESENT and k not in states for k, v in labels.items())
        n["present by rules, not listed"] += unlisted
        n["reports"] += 1
        said = {k for k, v in labels.items() if v in (PRESENT, UNCERTAIN)}
        held = {k for k, v in states.items() if v == PRESENT}
        found = _overlap(held, said & set(states))
        right["presence"].append(found)
        right["presence, others read count as wrong"].append((found[0], found[1] + unlisted, found[2]))
        for name, counts in _places(present, ours).items():
            right[name].append(counts)
    return {"counts": dict(n), "presence_differs": dict(wrong), "f1": {name: _f1(rows) for name, rows in right.items()}}


def _absent(item: Mapping[str, Any]) -> bool:
    return any(str(v).startswith("absent") for v in item["attributes"].values())


def _overlap(held: set[Any], said: set[Any]) -> tuple[int, int, int]:
    """How many are in both, only said, only held."""
    return len(held & said), len(said - held), len(held - said)


def _places(items: list[tuple[str, Mapping[str, Any]]], ours: list[Described]) -> dict[str, tuple[int, int, int]]:
    """Different sides, lobes and sizes of each finding in a report; ours count where the hand gives that finding one at all."""
    sides, lobes, sizes = set(), set(), set()
    for key, item in items:
        side, lobe = place_of(item)
        sides |= {(key, side)} if side else set()
        lobes |= {(key, side, lobe)} if side and lobe else set()
        sizes |= {(key, round(mm, 1)) for _, _, mm in measures(_size(item))}
    own = [d for d in ours if d.side]
    own_sides = {(d.finding, d.side) for d in own if d.finding in {k for k, _ in sides}}
    own_lobes = {(d.finding, d.side, d.lobe) for d in own if d.lobe and d.finding in {k for k, _, _ in lobes}}
    own_sizes = {(d.finding, round(mm, 1)) for d in ours for mm in d.sizes_mm if d.finding in {k for k, _ in sizes}}
    return {
        "side": _overlap(sides, own_sides),
        "side and lobe": _overlap(lobes, own_lobes),
        "size": _overlap(sizes, own_sizes),
    }


def _f1(rows: list[tuple[int, int, int]]) -> dict[str, float | list[float]]:
    """Precision, recall and F1 over all reports, and its 95 % interval by bootstrap over reports."""
    counts = np.array(rows)

    def f1(some: np.ndarray) -> float:
        hit, extra, missed = counts[some].sum(0)
        if not hit + extra + missed:
            raise ValueError("nothing to find")
        return float(2 * hit / (2 * hit + extra + missed))

    hit, extra, missed = counts.sum(0)
    told = {"precision": hit / (hit + extra), "recall": hit / (hit + missed), "f1": f1(np.arange(len(counts)))}
    return {k: float(v) for k, v in told.items()} | {"ci": list(bootstrap(f1, np.arange(len(counts))))}


def structured_table(told: Mapping[str, Any]) -> str:
    """The table of the documentation."""
    lines = ["| | items | agree | precision | recall | F1 (95 % CI) |", "|---|---|---|---|---|---|"]
    for name, f in told["f1"].items():
        n, agree = (told["counts"].get(key, "") for key in (name, f"{name} agrees"))
        score = "{:.3f} ({:.3f} to {:.3f})".format(f["f1"], *f["ci"])
        lines.append(f"| {name} | {n} | {agree} | {f['precision']:.3f} | {f['recall']:.3f} | {score} |")
    return "\n".join(lines)


def _score_item(item: Mapping[str, Any], ours: list[Described], n: Counter[str]) -> None:
    side, lobe = place_of(item)
    if side:
        n["side"] += 1
        n["side agrees"] += any(d.side == side for d in ours)
    if lobe:
        n["side and lobe" if side else "lobe"] += 1
        n["side and lobe agrees" if side else "lobe agrees"] += any(d.lobe == lobe and d.side == (side or d.side) for d in ours)
    for _, _, mm in measures(_size(item)):
        n["size"] += 1
        n["size agrees"] += any(abs(mm - own) < 0.1 for d in ours for own in d.sizes_mm)


def _size(item: Mapping[str, Any]) -> str:
    return str(item["attributes"].get("size", item["attributes"].get("sieze", "")))
