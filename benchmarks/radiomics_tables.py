"""The tables of benchmarks/radiomics.py: what radiomics of true masks can tell beside the deep model, on the same regions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from medvl.evaluation.embedded import Embedded
from medvl.evaluation.intervals import bootstrap, paired_bootstrap
from medvl.evaluation.metrics import auroc_of
from medvl.heads.probe import fit_linear_probe
from medvl.survival.cox import fit_cox
from medvl.survival.measures import harrell

Array = NDArray[np.float64]
Rows = dict[tuple[str, str, str], dict[str, float]]
SPLITS = ("validation", "test")
OF_MASS = ("renal_mass_large", "mass_cystic", "mass_exophytic", "mass_necrosis", "mass_calcification", "mass_avid_enhancement")
OF_BOTH = ("mass_exophytic",)  # where a mass lies in its kidney
OF_KIDNEY = ("renal_mass", "renal_cyst", "renal_stone", "hydronephrosis")
TUNED = 0.3
COX_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)


def grid(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def compare(rows: Mapping[str, Rows], deep: Mapping[str, Embedded], draws: int) -> str:
    """Tables of findings and survival; every column is measured on the same regions."""
    lines = []
    for finding in (*OF_KIDNEY, *OF_MASS):
        parts = ("kidney",) if finding in OF_KIDNEY else ("mass", "kidney") if finding in OF_BOTH else ("mass",)
        sets = {split: known(rows[split], deep[split], parts, finding) for split in SPLITS}
        n = {split: len(s["labels"]) for split, s in sets.items()}
        labels, who = sets["test"]["labels"], sets["test"]["who"]
        scores = {"radiomics": probed(sets, "radiomics"), "probe": probed(sets, "pooled"), "zero-shot": sets["test"]["margin"]}
        areas = {name: auroc_of(labels, score) for name, score in scores.items()}
        cells = []
        for area in areas.values():
            low, high = bootstrap(area, who, n=draws)
            cells.append(f"{area(np.arange(len(labels))):.3f} ({low:.3f} to {high:.3f})")
        for name in ("probe", "zero-shot"):
            d = paired_bootstrap(areas["radiomics"], areas[name], who, n=draws)
            cells.append(f"{d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f})")
        present = f"{labels.sum()} of {n['test']}, learned from {n['validation']}"
        lines.append([f"{finding.replace('_', ' ')} ({' and '.join(parts)})", present, *cells])
    head = ["finding (mask)", "present in test", "radiomics", "deep, probe", "deep, zero-shot"]
    table = grid([*head, "radiomics - probe", "radiomics - zero-shot"], lines)
    refused = {s: sum(not v for v in found.values()) for s, found in rows.items()}
    n = {s: len({k[0] for k in found}) for s, found in rows.items()}
    told = (
        f"Patients with a kidney in the scan: {n}; masks refused: {refused}; regions: { {s: len(f) for s, f in rows.items()} }."
    )
    return "\n\n".join([told, table, survival_table(rows, deep, draws)])


def known(rows: Rows, deep: Embedded, parts: tuple[str, ...], finding: str) -> dict[str, Any]:
    """Features, labels, patients and the deep model's own of regions that have them all."""
    places = {(p, r): i for i, (p, r) in enumerate(zip(deep.rows["patient_id"], deep.rows["region"], strict=True))}
    column = deep.column(finding)
    found = {(p, r): [rows.get((p, r, part)) for part in parts] for p, r, part in rows if part == parts[0] and (p, r) in places}
    pairs = [([x for part in told for x in part.values()], places[of]) for of, told in found.items() if all(told)]  # type: ignore[union-attr]
    pairs = [(v, i) for v, i in pairs if deep.truth[i, column] >= 0 and deep.usable[i]]
    at = np.array([i for _, i in pairs])
    return {
        "radiomics": np.array([v for v, _ in pairs], dtype=np.float64),
        "pooled": deep.pooled[at].astype(np.float64),
        "labels": deep.truth[at, column].astype(int),
        "margin": deep.margins[at, column].astype(np.float64),
        "who": np.asarray(deep.rows["patient_id"])[at],
    }


def probed(sets: dict[str, dict[str, Any]], source: str) -> Array:
    """(N,) logits of test rows by a ridge logistic; the last part of the training patients choose the ridge."""
    train, test = sets["validation"], sets["test"]
    names = sorted(set(train["who"]))
    tuning = np.isin(train["who"], names[int(len(names) * (1 - TUNED)) :])
    x, x_test = train[source], test[source]
    if source == "radiomics":
        x, x_test = ranked(x[~tuning], x), ranked(x[~tuning], x_test)
    y = train["labels"][:, None]
    fitted = fit_linear_probe((x[~tuning], y[~tuning]), (x[tuning], y[tuning]), "multilabel", 1)
    return np.asarray(fitted.logits(x_test)[:, 0])


def ranked(reference: Array, x: Array) -> Array:
    """Columns by their rank among the reference rows, as normal scores: radiomics are skewed and far from each other in size."""
    out = np.zeros_like(x)
    for j in range(x.shape[1]):
        column = reference[np.isfinite(reference[:, j]), j]
        if np.unique(column).size > 1:
            values, first = np.unique(column, return_index=True)
            score = norm.ppf(rankdata(column) / (len(column) + 1))
            out[:, j] = np.interp(np.nan_to_num(x[:, j], nan=float(np.median(column))), values, score[first])
    return out


def survival_table(rows: Mapping[str, Rows], deep: Mapping[str, Embedded], draws: int) -> str:
    """Harrell's C on test patients with both kidneys measured, by ridge Cox models with age in each."""
    data = {split: of_patients(rows[split], deep[split]) for split in SPLITS}
    test = data["test"]
    t, e, everyone = test["time"], test["event"], np.arange(len(test["time"]))
    age = [data[s]["age"][:, None] for s in SPLITS]
    fitted = {"age": cox_risk(age, data)}
    for name in ("radiomics", "pooled"):
        blocks = [data[s][name] for s in SPLITS]
        blocks = [ranked(blocks[0], b) if name == "radiomics" else (b - blocks[0].mean(0)) / blocks[0].std(0) for b in blocks]
        fitted[f"age + {'radiomics' if name == 'radiomics' else 'deep, pooled'}"] = cox_risk(
            [np.concatenate([a, b / np.sqrt(b.shape[1] / 4)], 1) for a, b in zip(age, blocks, strict=True)], data
        )
    lines = []
    for name, risk in fitted.items():
        low, high = bootstrap(lambda r, risk=risk: harrell(t[r], e[r], risk[r]), everyone, n=draws)
        lines.append([name, f"{harrell(t, e, risk):.3f} ({low:.3f} to {high:.3f})"])
    a, b = fitted["age + radiomics"], fitted["age + deep, pooled"]
    d = paired_bootstrap(lambda r: harrell(t[r], e[r], a[r]), lambda r: harrell(t[r], e[r], b[r]), everyone, n=draws)
    lines.append(["radiomics - deep", f"{d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f})"])
    n = len(data["validation"]["time"])
    return grid([f"C: {len(t)} test patients, {int(e.sum())} deaths; learned from {n}", "both kidneys"], lines)


def of_patients(rows: Rows, deep: Embedded) -> dict[str, Any]:
    """The smaller and the larger of both kidneys' features, age and outcome of patients whose two kidneys are known."""
    places = {(p, r): i for i, (p, r) in enumerate(zip(deep.rows["patient_id"], deep.rows["region"], strict=True))}
    sides = ("kidney_left", "kidney_right")
    keep = [p for p in deep.patients.index if all(rows.get((p, s, "kidney")) and deep.usable[places[p, s]] for s in sides)]
    both = np.array([[list(rows[p, s, "kidney"].values()) for s in sides] for p in keep])
    pooled = np.array([[deep.pooled[places[p, s]] for s in sides] for p in keep]).astype(np.float64)
    facts = deep.patients.loc[keep]
    return {
        "radiomics": np.concatenate([both.min(1), both.max(1)], 1),
        "pooled": np.concatenate([pooled.min(1), pooled.max(1)], 1),
        "age": (np.asarray(facts["age_years"], float) - 60) / 10,
        "time": np.asarray(facts["time_days"], float),
        "event": np.asarray(facts["event"], bool),
    }


def cox_risk(x: list[Array], data: dict[str, dict[str, Any]]) -> Array:
    """(N,) test risks; the ridge is the one whose C is best on the last part of the training patients. Age, column 0, is free."""
    t, e = data["validation"]["time"], data["validation"]["event"]
    cut = int(len(t) * (1 - TUNED))

    def fit(rows: slice, penalty: float) -> Array:
        ridge = np.r_[1e-3, np.full(x[0].shape[1] - 1, penalty)]
        return fit_cox(x[0][rows], t[rows], e[rows], penalty=ridge, ties="breslow").coefficients

    scores = [harrell(t[cut:], e[cut:], x[0][cut:] @ fit(slice(cut), p)) for p in COX_PENALTIES]
    return np.asarray(x[1] @ fit(slice(None), COX_PENALTIES[int(np.argmax(scores))]))
