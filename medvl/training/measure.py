"""Held-out scores of a trained system on crops: findings, retrieval, survival and pointing, whatever the recipe.

A system with towers answers by prompts and cosines; one with concept streams answers by its queries, ranks reports by how much
likelier it makes their findings than they are on average, and points by attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medvl.evaluation.intervals import bootstrap, paired_bootstrap
from medvl.evaluation.metrics import auroc, auroc_of, harrell_of
from medvl.evaluation.ranking import DEPTHS, retrieval_scores
from medvl.survival.model import fit_survival
from medvl.text.relations import existence
from medvl.training.answers import answers, region_names
from medvl.training.features import embed_texts, pooled_features
from medvl.training.pointing import pointing_table
from medvl.training.reader import Reader
from medvl.training.recipe_stage import Trained
from medvl.training.samples import KindData, ages_and_outcomes, half_known

__all__ = [
    "Reader",
    "Risks",
    "attribute_auroc",
    "by_patient",
    "finding_table",
    "held_out_risks",
    "likenesses",
    "pointing_table",
    "report_auroc",
    "retrieval_table",
    "survival_table",
]
GALLERY = 200


def finding_table(
    reader: Reader, data: Mapping[str, KindData], features: Mapping[str, Tensor], draws: int
) -> dict[str, dict[str, Any]]:
    """Finding to AUROC, its 95 % interval by patient, counts, and against what: phantoms' `truth`, or the `report` of others."""
    out = {}
    for finding in reader.findings.findings:
        if finding.region not in data:
            continue
        part = data[finding.region]
        known = answers(finding, part, reader.findings)
        if not known.both:
            continue
        labels, scores = known.labels, reader.margins(finding, region_names(part), features[finding.region])[known.rows]
        interval = bootstrap(auroc_of(labels, scores), known.patients, n=draws) if draws else None
        out[finding.key] = {
            "n": len(labels),
            "present": int(labels.sum()),
            "auroc": round(auroc(labels, scores), 4),
            "ci": [round(v, 4) for v in interval] if interval else None,
            "against": known.against,
        }
    return out


def likenesses(reader: Reader, data: Mapping[str, KindData], features: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """(N, N) likeness of every patient's images (rows) to every patient's report (columns), over the regions both have.

    Each region's likenesses are brought to mean 0 and deviation 1 over the gallery, and a pair's sum over its shared regions is
    divided by the root of their number. A plain mean would spread more for pairs that share less, and they would fill the top.
    """
    patients = sorted({int(r) for part in data.values() for r in part.texts.rows})
    place = {row: i for i, row in enumerate(patients)}
    total, count = np.zeros((len(patients), len(patients))), np.zeros((len(patients), len(patients)))
    for name, part in data.items():
        texts = _told(reader, part)
        for column in sorted(set(part.texts.columns.tolist())):
            rows = np.flatnonzero(part.texts.columns == column)
            where = np.array([place[int(part.texts.rows[r])] for r in rows])
            matched = _matched(reader, features[name][rows], texts[rows])
            total[np.ix_(where, where)] += (matched - matched.mean()) / max(float(matched.std()), 1e-9)
            count[np.ix_(where, where)] += 1
    return np.where(count > 0, total / np.sqrt(np.maximum(count, 1)), -1e3)


def _told(reader: Reader, part: KindData) -> Tensor:
    """What each row's report says: its embedding (N, E), or its findings (N, F) in {-1, 0, 1}."""
    if not reader.streams:
        return embed_texts(reader.system.clip, [" ".join(parts) for parts in part.texts.sentences])
    matrices = part.relations(reader.concepts)
    return torch.from_numpy(np.stack([existence(matrix)[0] for matrix in matrices]))


def _matched(reader: Reader, images: Tensor, texts: Tensor) -> NDArray[np.float64]:
    if not reader.streams:
        return (images @ texts.T).double().numpy()
    odds = images[:, : len(reader.concepts.findings)]
    gains = []
    for value, logp in ((1, functional.logsigmoid(odds)), (0, functional.logsigmoid(-odds))):
        said = (texts == value).float()
        usual = torch.log(logp.exp().mean(0, keepdim=True).clamp_min(1e-4))
        gains.append((logp - usual) @ said.T)
    known = (texts >= 0).sum(1).clamp_min(1)
    return ((gains[0] + gains[1]) / known[None]).double().numpy()


def retrieval_table(similarity: NDArray[np.float64], draws: int) -> dict[str, Any]:
    """Recall at 1, 5 and 10 and median rank both ways, in galleries of `GALLERY` drawn without overlap."""
    out: dict[str, Any] = {}
    for way, matrix in (("image_to_report", similarity), ("report_to_image", similarity.T)):
        found = retrieval_scores(matrix, np.arange(len(matrix)), gallery=min(GALLERY, len(matrix)), draws=draws)
        out |= {"gallery": found["gallery"], "galleries": found["galleries"]}
        for k in DEPTHS:
            told = found[f"recall_at_{k}"]
            out[f"{way}_recall_at_{k}"] = {"value": round(told["value"], 4), "ci": [round(v, 4) for v in told["ci"]]}
        out[f"{way}_median_rank"] = found["median_rank"]["value"]
    return out


@dataclass(frozen=True, eq=False)
class Risks:
    """Test patients with a known outcome and an image.

    Args:
        time: (N,) days; event: (N,) bool; risk: (N,) log hazard ratio from features and age; age: (N,) years, NaN if not known.
    """

    time: NDArray[np.float64]
    event: NDArray[np.bool_]
    risk: NDArray[np.float64]
    age: NDArray[np.float64]


def held_out_risks(
    train: Mapping[str, KindData],
    train_features: Mapping[str, Tensor],
    test: Mapping[str, KindData],
    features: Mapping[str, Tensor],
    penalty: float,
) -> Risks:
    """Risks of test patients by a ridge Cox model on frozen features and age, fitted on training patients."""
    cohort = next(iter(train.values())).cohort
    ages, time, event = ages_and_outcomes(cohort.cases)
    known = np.flatnonzero(np.isfinite(time))
    rows = by_patient(train, train_features)
    fitted = fit_survival(
        "overall survival",
        [rows[i] for i in known],
        [ages[i] for i in known],
        time[known],
        event[known],
        tuple(cohort.regions),
        penalty,
    )
    ages, time, event = ages_and_outcomes(next(iter(test.values())).cohort.cases)
    found = by_patient(test, features)
    usable = np.array([i for i, f in enumerate(found) if f and np.isfinite(time[i])])
    risk = np.array([fitted.risk(found[i], ages[i]) for i in usable])
    return Risks(time[usable], event[usable], risk, np.array([ages[i] for i in usable], dtype=np.float64))


def survival_table(
    train: Mapping[str, KindData],
    train_features: Mapping[str, Tensor],
    test: Mapping[str, KindData],
    features: Mapping[str, Tensor],
    penalty: float,
    draws: int,
) -> dict[str, Any]:
    """Harrell's C of `held_out_risks`, and of age alone beside it where every age is known, with the paired difference."""
    risks = held_out_risks(train, train_features, test, features, penalty)
    t, e, everyone = risks.time, risks.event, np.arange(len(risks.time))
    c, n = harrell_of(t, e, risks.risk), min(draws, 400)
    told: dict[str, Any] = {"n": len(t), "events": int(e.sum())}
    told["half_known"] = half_known(next(iter(test.values())).cohort.cases)
    told |= {"c_index": round(float(c(everyone)), 4), "ci": [round(v, 4) for v in bootstrap(c, everyone, n=n)] if draws else []}
    if np.isfinite(risks.age).all():
        alone = harrell_of(t, e, risks.age)
        told["age_alone"] = {"c_index": round(float(alone(everyone)), 4)}
        if draws:
            gain = paired_bootstrap(c, alone, everyone, n=n)
            told["age_alone"]["ci"] = [round(v, 4) for v in bootstrap(alone, everyone, n=n)]
            told["minus_age_alone"] = {"value": round(gain.value, 4), "ci": [round(gain.low, 4), round(gain.high, 4)]}
    return told


def by_patient(data: Mapping[str, KindData], features: Mapping[str, Tensor]) -> list[dict[str, NDArray[np.float32]]]:
    """Of every patient of the cohort, features by region."""
    cohort = next(iter(data.values())).cohort
    out: list[dict[str, NDArray[np.float32]]] = [{} for _ in cohort.cases]
    for name, part in data.items():
        for i, (r, c) in enumerate(zip(part.texts.rows, part.texts.columns, strict=True)):
            out[int(r)][cohort.regions[int(c)]] = features[name][i].numpy()
    return out


def report_auroc(reader: Reader, data: Mapping[str, KindData]) -> float:
    """Mean AUROC of all findings against what the reports state, for cohorts of any origin; NaN where none can be measured."""
    features = {name: reader.features(part) for name, part in data.items()}
    scores = []
    for finding in reader.findings.findings:
        part = data[finding.region]
        known = answers(finding, part, reader.findings, reports=True)
        if known.both:
            margins = reader.margins(finding, region_names(part), features[finding.region])
            scores.append(auroc(known.labels, margins[known.rows]))
    return float(np.mean(scores)) if scores else float("nan")


def attribute_auroc(trained: Trained, data: Mapping[str, KindData]) -> float:
    """Mean AUROC of the attribute heads against what the reports state."""
    heads, scores = trained.objectives["attributes"].heads, []
    for name, part in data.items():
        logits = heads[name](pooled_features(trained.system.clip, part))[0].detach().numpy()  # type: ignore[index,operator]
        for k in range(logits.shape[1]):
            labels = part.texts.targets.binary[:, k]
            known = labels >= 0
            if len(set(labels[known].tolist())) == 2:
                scores.append(auroc(labels[known], logits[known, k]))
    return float(np.mean(scores)) if scores else float("nan")
