"""Presence, place and size that the rules read, against findings extracted by hand from 25 chest CT reports."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvl.text.describe import Described, describe
from medvl.text.labels import extract_text, measures
from medvl.text.ontology import Ontology, phrases, table
from medvl.text.report import side_of
from medvl.text.scope import ABSENT, PRESENT, UNCERTAIN

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
    """Counts of agreement: presence by report and finding, side, lobe and size by hand-written item."""
    n: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        report = json.loads(line)
        labels = extract_text(report["report_text"], ontology)
        ours = [d for d in describe(report["report_text"], ontology) if d.status != ABSENT]
        items = [(key, item) for item in report["findings"] if (key := key_of(item))]
        states: dict[str, int] = {}
        for key, item in items:
            absent = any(str(v).startswith("absent") for v in item["attributes"].values())
            states[key] = max(states.get(key, ABSENT), ABSENT if absent else PRESENT)
            if not absent:
                _score_item(item, [d for d in ours if d.finding == key], n)
        for key, state in states.items():
            said = PRESENT if labels[key] == UNCERTAIN else labels[key]
            n["presence"] += 1
            n["presence agrees"] += said == state
            if said != state:
                wrong[f"{key}: {state} by hand, {labels[key]} by rules"] += 1
        n["present by rules, not listed"] += sum(v == PRESENT and k not in states for k, v in labels.items())
        n["reports"] += 1
    return {"counts": dict(n), "presence_differs": dict(wrong)}


def _score_item(item: Mapping[str, Any], ours: list[Described], n: Counter[str]) -> None:
    side, lobe = place_of(item)
    if side:
        n["side"] += 1
        n["side agrees"] += any(d.side == side for d in ours)
    if lobe:
        n["side and lobe" if side else "lobe"] += 1
        n["side and lobe agrees" if side else "lobe agrees"] += any(d.lobe == lobe and d.side == (side or d.side) for d in ours)
    for _, _, mm in measures(str(item["attributes"].get("size", item["attributes"].get("sieze", "")))):
        n["size"] += 1
        n["size agrees"] += any(abs(mm - own) < 0.1 for d in ours for own in d.sizes_mm)
