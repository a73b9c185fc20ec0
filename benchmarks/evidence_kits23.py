"""What masks and clinical facts say of outcome and pathology in KiTS23, and the mask's diameter beside the reader's size.

Five folds by patient, drawn anew for each repeat; ridges are chosen inside the training folds; values that are missing are filled
from the training fold, with a flag, and counted. The numbers are of predictions for patients that the model had not seen, pooled
over the folds and averaged over the repeats; intervals are 95 % percentile intervals over patients (the fits are not drawn anew).

    python benchmarks/evidence_kits23.py --data FOLDER                 all tables and figures; mask features are kept in --keep
    python benchmarks/evidence_kits23.py --data FOLDER --stability 20  and the parts of each 20th case under other definitions
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from kits23_features import features, stability
from kits23_figures import draw_agreement, draw_forest

from medvl.evaluation.metrics import auroc
from medvl.heads.probe import fit_linear_probe
from medvl.survival.covariates import fit_covariates
from medvl.survival.cox import fit_cox
from medvl.survival.measures import harrell

FOLDS, INNER, REPEATS, DRAWS, SEED = 5, 4, 3, 1000, 20261122
PENALTIES = tuple(float(p) for p in np.logspace(1, -3, 9))
SHAPE = ("log_ml", "log_surface", "sphericity", "elongation", "flatness", "height_mm", "kidney_ml", "log_cyst", "n_tumours")
PARTS = ("diameter_mm", "share_outside", "sinus_mm", "share_anterior", "share_between")
BEFORE = ("age_at_nephrectomy", "radiographic_size", "bmi", "n_comorbidities", "pack_years")
WORDS = ("gender", "smoking_history")
Set = tuple[tuple[str, ...], tuple[str, ...]]
SETS: dict[str, Set] = {
    "age": (("age_at_nephrectomy",), ()),
    "radiographic size": (("radiographic_size",), ()),
    "diameter from the mask": (("diameter_mm",), ()),
    "mask shape": (SHAPE, ()),
    "R.E.N.A.L. parts from masks": (PARTS, ()),
    "R.E.N.A.L. points from masks": (("R", "E", "N", "L"), ()),
    "clinical before surgery": (BEFORE, WORDS),
    "clinical + eGFR": ((*BEFORE, "egfr"), WORDS),
    "clinical + cytoreductive intent": (BEFORE, (*WORDS, "cytoreductive")),
    "clinical + mask shape": ((*BEFORE, *SHAPE), WORDS),
    "clinical + R.E.N.A.L. parts": ((*BEFORE, *PARTS), WORDS),
    "clinical + shape + R.E.N.A.L.": ((*BEFORE, *SHAPE, *PARTS), WORDS),
}
BASE = "clinical before surgery"
TARGETS: dict[str, tuple[str, Mapping[object, int]]] = {
    "high grade (ISUP 3 to 4)": ("tumor_isup_grade", {"1": 0, "2": 0, "3": 1, "4": 1}),
    "pT3 or more": ("pathology_t_stage", {"1a": 0, "1b": 0, "2a": 0, "2b": 0, "3": 1, "4": 1}),
    "necrosis": ("tumor_necrosis", {False: 0, True: 1}),
    "malignant": ("malignant", {False: 0, True: 1}),
}
LEFT_OUT_FOR_PATHOLOGY = ("clinical + eGFR", "clinical + cytoreductive intent")


@dataclass(frozen=True, eq=False)
class Found:
    """One measured number, its draws over patients (the value itself first), and how many patients and events it rests on."""

    draws: np.ndarray

    def text(self, digits: int = 3) -> str:
        low, high = np.nanquantile(self.draws[1:], [0.025, 0.975])
        return f"{self.draws[0]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    """Features, tables, figures, Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with native_crop/, kits23.json and mask_stats.csv")
    parser.add_argument("--keep", type=Path, default=Path("runs/kits23/features.parquet"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--out", type=Path, default=Path("runs/kits23/tables.md"))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--only", choices=("survival", "pathology"), help="one of the two")
    parser.add_argument("--stability", type=int, default=0, metavar="N")
    options = parser.parse_args()
    table = cohort(options.data, features(options.data, options.keep))
    lines = [*describe(table), *agreement(table, options.images)]
    if options.only != "pathology":
        survival = survival_table(table, options.repeats)
        lines += ["### Overall survival", "", *rows_of(survival, "Harrell's C")]
        draw_forest({k: v.draws for k, v in survival.items()}, BASE, options.images / "kits23-survival.png")
    for name in (*TARGETS, "clear cell against other") if options.only != "survival" else ():
        known, found = pathology_table(table, name, options.repeats)
        lines += [f"### {name}", "", known, "", *rows_of(found, "AUROC")]
    if options.stability:
        lines += stability_lines(stability(options.data, options.stability))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def cohort(data: Path, masks: pd.DataFrame) -> pd.DataFrame:
    """One row a patient: clinical facts as in the source, and mask features; nobody is left out."""
    raw = json.loads((data / "kits23.json").read_text(encoding="utf-8"))
    table = pd.json_normalize(raw)
    ill = [c for c in table if c.startswith("comorbidities.") and "solid_tumor" not in c]
    table["n_comorbidities"] = table[ill].sum(axis=1)
    values = table["last_preop_egfr.value"].map(lambda v: str(v).lstrip("<>= "), na_action="ignore")
    table["egfr"] = pd.to_numeric(values, errors="coerce")
    table = table.merge(masks, on="case_id", how="left", validate="one_to_one")
    for new, old in (("log_ml", "tumour_ml"), ("log_surface", "surface_mm2")):
        table[new] = np.log(table[old])
    table["log_cyst"] = np.log1p(table["cyst_ml"])
    return table


def describe(table: pd.DataFrame) -> list[str]:
    """Cohort sizes, what is missing, and what the masks gave."""
    dead = table.vital_status == "dead"
    used = sorted({c for numeric, words in SETS.values() for c in (*numeric, *words)})
    gone = {c: int((table[c].isna() | (table[c] == "not_found_in_emr")).sum()) for c in used}
    why = table.why.fillna("").replace("", np.nan).dropna().value_counts()
    return [
        f"Patients {len(table)}, deaths {int(dead.sum())}, median follow-up of the living "
        f"{table.vital_days_after_surgery[~dead].median():.0f} days; {int((table.vital_days_after_surgery == 0).sum())} with a "
        "follow-up of 0 days are kept (they are in no comparable pair unless they died).",
        "",
        "Missing values, filled with the training median and flagged: "
        + ", ".join(f"{k} {n}" for k, n in gone.items() if n)
        + ".",
        "",
        f"R.E.N.A.L. from masks: total for {int(table.total.notna().sum())} of {len(table)}. No total because: "
        + ("; ".join(f"{k} ({n})" for k, n in why.items()) or "none")
        + ".",
        "",
        "| part | " + " | ".join(("1", "2", "3", "unknown")) + " |\n|---|---|---|---|---|",
        *(
            f"| {p} | " + " | ".join(str(int((table[p] == k).sum())) for k in (1, 2, 3)) + f" | {int(table[p].isna().sum())} |"
            for p in "RENL"
        ),
        "",
        f"Face: {table.A.value_counts().to_dict()}; complexity: {table.complexity.value_counts().to_dict()}.",
        "",
    ]


def agreement(table: pd.DataFrame, images: Path) -> list[str]:
    """R from the mask beside the radiographic size of the clinical table, by slice spacing."""
    known = table.dropna(subset=["diameter_mm", "radiographic_size"])
    draw_agreement(known, images / "kits23-size-agreement.png")
    lines = [
        "### Diameter from the mask against radiographic size",
        "",
        "| measure | slices | n | mean difference mm | 95 % limits mm | same R |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("diameter_mm", "axial_mm", "feret_mm"):
        for label, part in (
            ("all", known),
            ("below 3 mm", known[known.slice_mm < 3]),
            ("3 mm and more", known[known.slice_mm >= 3]),
        ):
            size = part.radiographic_size * 10
            gap = part[name] - size
            same = (np.digitize(part[name], [40 + 1e-9, 70]) == np.digitize(size, [40 + 1e-9, 70])).mean()
            low, high = (gap.mean() + sign * 1.96 * gap.std() for sign in (-1, 1))
            lines.append(f"| {name} | {label} | {len(part)} | {gap.mean():+.1f} | {low:+.1f} to {high:+.1f} | {same:.3f} |")
    return [*lines, ""]


def folds(groups: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) fold of each patient, each group (dead or not, present or not) spread evenly."""
    out = np.empty(len(groups), np.int64)
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        out[members] = (np.arange(len(members)) + rng.integers(n)) % n
    return out


def survival_table(table: pd.DataFrame, repeats: int) -> dict[str, Found]:
    """C of each set of predictors, and of its difference to the clinical one, over the same draws."""
    time = table.vital_days_after_surgery.to_numpy(float)
    event = (table.vital_status == "dead").to_numpy()

    def predict(x: np.ndarray, held: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        penalty = cox_penalty(x, time[rows], event[rows], folds(event[rows], INNER, rng))
        return fit_cox(x, time[rows], event[rows], penalty=penalty).log_hazard(held)

    return measure(table, event, SETS, predict, lambda r, risk: harrell(time[r], event[r], risk[r]), repeats)


def cox_penalty(x: np.ndarray, time: np.ndarray, event: np.ndarray, fold: np.ndarray) -> float:
    """The ridge with the best cross-validated partial likelihood: that of all less that of the rows fitted on (Verweij 1993)."""
    total = dict.fromkeys(PENALTIES, 0.0)
    for k in range(INNER):
        part = fold != k
        for penalty in PENALTIES:
            risk = x @ fit_cox(x[part], time[part], event[part], penalty=penalty).coefficients
            total[penalty] += partial(risk, time, event) - partial(risk[part], time[part], event[part])
    return max(total, key=lambda p: (total[p], p))


def partial(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    """Breslow's log partial likelihood."""
    order = np.argsort(-time, kind="stable")
    sums = np.logaddexp.accumulate(risk[order])
    last = np.searchsorted(-time[order], -time[order], side="right") - 1
    return float((risk[order] - sums[last])[event[order]].sum())


def pathology_table(table: pd.DataFrame, name: str, repeats: int) -> tuple[str, dict[str, Found]]:
    """Counts, and AUROC of each set among those with a known label."""
    if name in TARGETS:
        column, words = TARGETS[name]
        labels = table[column].map(lambda v: words.get(v, -1), na_action="ignore").fillna(-1).astype(int)
    else:
        labels = (
            table.tumor_histologic_subtype.map(lambda v: int(v == "clear_cell_rcc"), na_action="ignore").fillna(-1).astype(int)
        )
    known = table[labels >= 0].reset_index(drop=True)
    y = labels[labels >= 0].to_numpy()

    def predict(x: np.ndarray, held: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        inner, total = folds(y[rows], INNER, rng), np.zeros(len(held))
        for k in range(INNER):
            part, other = inner != k, inner == k
            probe = fit_linear_probe((x[part], y[rows][part]), (x[other], y[rows][other]), "multiclass", 2, penalties=PENALTIES)
            total += np.diff(probe.logits(held), axis=1)[:, 0]
        return total / INNER

    sets = {k: v for k, v in SETS.items() if k not in LEFT_OUT_FOR_PATHOLOGY}
    text = f"{len(y)} patients with a known label, {int(y.sum())} with it; {len(table) - len(y)} without one are left out."
    return text, measure(known, y, sets, predict, lambda r, score: auroc(y[r], score[r]), repeats)


Predict = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def measure(
    table: pd.DataFrame,
    groups: np.ndarray,
    sets: Mapping[str, Set],
    predict: Predict,
    statistic: Callable[[np.ndarray, np.ndarray], float],
    repeats: int,
) -> dict[str, Found]:
    """The statistic of out-of-fold predictions of every set, averaged over repeats, on the cohort and on draws of patients."""
    rng = np.random.default_rng(SEED)
    draws = [np.arange(len(table)), *rng.integers(len(table), size=(DRAWS, len(table)))]
    splits = [folds(groups, FOLDS, np.random.default_rng([SEED, k])) for k in range(repeats)]
    out = {}
    for name, (numeric, words) in sets.items():
        total = np.zeros(DRAWS + 1)
        for n, split in enumerate(splits):
            risk = np.empty(len(table))
            for k in range(FOLDS):
                rows, held = np.flatnonzero(split != k), np.flatnonzero(split == k)
                kept = fit_covariates(table.iloc[rows], numeric=numeric, categorical=words)
                x, x_held = (kept.encode(table.iloc[r]).x for r in (rows, held))
                risk[held] = predict(x, x_held, rows, np.random.default_rng([SEED, n, k]))
            total += [statistic(rows, risk) for rows in draws]
        out[name] = Found(total / repeats)
        print(f"{name}: {out[name].text()}", flush=True)
    return out


def rows_of(found: Mapping[str, Found], unit: str) -> list[str]:
    """A Markdown table with the difference to the clinical set."""
    lines = [f"| predictors | {unit} | minus clinical before surgery |", "|---|---|---|"]
    for name, value in found.items():
        gap = "" if name == BASE else Found(value.draws - found[BASE].draws).text()
        lines.append(f"| {name} | {value.text()} | {gap} |")
    return [*lines, ""]


def stability_lines(table: pd.DataFrame) -> list[str]:
    """How often each part keeps its class under another definition."""
    base = table[table.variant == "as defined"].set_index("case_id")
    lines = [
        f"### Other definitions, {len(base)} cases",
        "",
        "| definition | E | N | A | L | total | within 1 point |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, part in table.groupby("variant", sort=False):
        other = part.set_index("case_id").loc[base.index]
        same = [(other[c].eq(base[c]) | (other[c].isna() & base[c].isna())).mean() for c in ("E", "N", "A", "L", "total")]
        both = other.total.notna() & base.total.notna()
        near = ((other.total - base.total)[both].abs() <= 1).mean()
        lines.append(f"| {name} | " + " | ".join(f"{v:.2f}" for v in same) + f" | {near:.2f} of {int(both.sum())} |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
