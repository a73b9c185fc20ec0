"""Our survival head and measures beside lifelines and scikit-survival on real tables, on the same folds.

    python benchmarks/survival_tables.py --data ../shared/data

Four cohorts: lung1 (336 lung cancers), TCGA-KIRC (279 kidney cancers), heart failure (299), and KiTS23 (392 kidney tumours, with
covariates known before surgery only). Five folds, dealt evenly by event, from a seed. In every fold the covariates are learned
from the other four, and so is the ridge, by folds within them. Every patient is predicted once, by a model that has not seen it.
C is of the pooled predictions. Uno's C, AUC and Brier score are of each fold, with the censoring of its training patients, and
averaged. Intervals are percentiles over patients drawn 1000 times: folds and predictions stay as they are, censoring is
estimated anew from the training patients drawn. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import concordance_index_censored, concordance_index_ipcw, cumulative_dynamic_auc, integrated_brier_score
from sksurv.util import Surv

from medvl.evaluation.intervals import Draws, bootstrap
from medvl.evaluation.metrics import harrell_of
from medvl.survival.calibration import calibration_groups
from medvl.survival.covariates import fit_covariates
from medvl.survival.cox import fit_cox
from medvl.survival.curves import curve, draw_groups, log_rank, risk_groups
from medvl.survival.discrete import fit_discrete
from medvl.survival.endpoints import Endpoint
from medvl.survival.measures import censoring, dynamic_auc, harrell, integrated_brier, uno
from medvl.survival.penalty import choose_penalty, event_folds
from medvl.survival.weighted import (
    integrated,
    mean_auc,
    weighted_auc,
    weighted_brier,
    weighted_kaplan_meier,
    weighted_uno,
)

PENALTIES = tuple(float(p) for p in np.logspace(1, -3, 9))
PLAIN = "Kaplan-Meier"
Array = np.ndarray


@dataclass(frozen=True)
class Cohort:
    """A table with what is predicted and from what; horizons in days for AUC and Brier score."""

    name: str
    table: pd.DataFrame
    endpoint: Endpoint
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    horizons: tuple[float, ...]


def cohorts(data: Path) -> list[Cohort]:
    lung = pd.read_csv(data / "survival" / "lung1.csv")
    kirc = pd.read_csv(data / "survival" / "tcga_kirc.csv")
    heart = pd.read_csv(data / "survival" / "heart_failure.csv")
    kits = pd.DataFrame([before_surgery(row) for row in json.loads((data / "kits23" / "kits23.json").read_text())])
    return [
        # the column "survival" is the outcome at two years; the seed point says where the tumour lies in the scanner
        Cohort(
            "lung1",
            lung,
            Endpoint(name="OS", time="Survival.time", event="deadstatus.event"),
            ("age",),
            ("clinical.T.Stage", "Clinical.N.Stage", "Clinical.M.Stage", "Overall.Stage", "Histology", "gender"),
            (365.0, 730.0, 1095.0),
        ),
        # censorship 1 is censored, 0 is a death
        Cohort(
            "TCGA-KIRC",
            kirc,
            Endpoint(name="OS", time="survival_months", event="censorship", happened=(0,), censored=(1,), unit="months"),
            ("age", "is_female"),
            (),
            (365.0, 1095.0, 1825.0),
        ),
        Cohort(
            "heart failure",
            heart,
            Endpoint(name="OS", time="time", event="DEATH_EVENT"),
            tuple(c for c in heart.columns if c not in ("time", "DEATH_EVENT")),
            (),
            (60.0, 120.0, 180.0),
        ),
        Cohort(
            "KiTS23",
            kits,
            Endpoint(name="OS", time="days", event="status", happened=("dead",), censored=("censored",)),
            ("age", "bmi", "egfr", "size_cm", "pack_years", "n_comorbidities"),
            ("gender", "smoking", "cytoreductive", "metastatic"),
            (365.0, 1095.0, 1825.0),
        ),
    ]


def before_surgery(row: dict) -> dict:
    """What was known of a KiTS23 patient before surgery: no pathology, no course of the operation or of the stay."""
    smoking = row["smoking_history"]
    return {
        "days": row["vital_days_after_surgery"],
        "status": row["vital_status"],
        "age": row["age_at_nephrectomy"],
        "bmi": row["bmi"],
        "egfr": (row["last_preop_egfr"] or {}).get("value"),
        "size_cm": row["radiographic_size"],
        "pack_years": row["pack_years"],
        "n_comorbidities": sum(bool(v) for v in row["comorbidities"].values()),
        "gender": row["gender"],
        "smoking": None if smoking == "not_found_in_emr" else smoking,
        "cytoreductive": row["cytoreductive"],
        "metastatic": row["comorbidities"]["metastatic_solid_tumor"],
    }


Predictions = tuple[Array, Array]  # log hazards (N,), survival at times (N, T)
Fitter = Callable[[Array, Array, Array, Array, Array, float], Predictions]


def our_cox(x: Array, t: Array, e: Array, held: Array, at: Array, penalty: float) -> Predictions:
    fit = fit_cox(x, t, e, penalty=penalty)
    return fit.log_hazard(held), fit.survival(held, at)


def our_discrete(x: Array, t: Array, e: Array, held: Array, at: Array, penalty: float) -> Predictions:
    fit = fit_discrete(x, t, e, penalty=penalty * e.mean(), n_intervals=12)
    return fit.log_hazard(held), fit.survival(held, at)


def by_scikit_survival(x: Array, t: Array, e: Array, held: Array, at: Array, penalty: float) -> Predictions:
    fit = CoxPHSurvivalAnalysis(alpha=penalty * e.sum(), ties="efron", tol=1e-12, n_iter=200).fit(x, Surv.from_arrays(e, t))
    # it predicts relative to zero; predictions of several folds only mix relative to the training mean
    return fit.predict(held) - x.mean(0) @ fit.coef_, np.array([[f(a) for a in at] for f in fit.predict_survival_function(held)])


def by_lifelines(x: Array, t: Array, e: Array, held: Array, at: Array, penalty: float) -> Predictions:
    # its penalty is per patient and on columns over their sample deviation; given as one number a column it is the same ridge
    columns = [f"x{k}" for k in range(x.shape[1])]
    ridge = penalty * e.mean() / x.var(0, ddof=1)
    fit = CoxPHFitter(penalizer=ridge).fit(
        pd.DataFrame(x, columns=columns).assign(t=t, e=e), "t", "e", fit_options={"precision": 1e-12}
    )
    frame = pd.DataFrame(held, columns=columns)
    hazards = fit.baseline_cumulative_hazard_.iloc[:, 0]  # its own predictions interpolate between event times
    risk = np.log(fit.predict_partial_hazard(frame).to_numpy())
    steps = np.array([hazards[hazards.index <= a].iloc[-1] if (hazards.index <= a).any() else 0.0 for a in at])
    return risk, np.exp(-steps * np.exp(risk)[:, None])


FITTERS: dict[str, Fitter] = {
    "medvl Cox, ridge by inner folds": our_cox,
    "lifelines CoxPHFitter, same ridge": by_lifelines,
    "scikit-survival, same ridge": by_scikit_survival,
    "medvl discrete time, same ridge": our_discrete,
}


@dataclass(frozen=True)
class Scores:
    """Pooled out-of-fold predictions; means over folds of our measures, and how far they are from scikit-survival's at most.

    For the latter events are weighed by G(t), as scikit-survival does; the tables weigh them by G(t-).
    """

    risk: Array
    survival: Array
    ours: tuple[float, ...]
    off: tuple[float, ...]


def evaluate(cohort: Cohort, table: pd.DataFrame, t: Array, e: Array, fold: Array, grid: Array) -> dict[str, Scores]:
    found: dict[str, list[tuple[Array, Predictions]]] = {name: [] for name in FITTERS}
    for k in range(fold.max() + 1):
        held = fold == k
        how = fit_covariates(table[~held], numeric=cohort.numeric, categorical=cohort.categorical)
        x, x_held = how.encode(table[~held]).x, how.encode(table[held]).x
        x, x_held = x[:, x.std(0) > 0], x_held[:, x.std(0) > 0]
        penalty = choose_penalty(x, t[~held], e[~held], penalties=PENALTIES).penalty
        for name, fitter in FITTERS.items():
            found[name].append((held, fitter(x, t[~held], e[~held], x_held, grid, penalty)))
    return {name: scored(t, e, parts, grid, np.array(cohort.horizons)) for name, parts in found.items()}


def scored(t: Array, e: Array, parts: list[tuple[Array, Predictions]], grid: Array, horizons: Array) -> Scores:
    risk, survival, ours, off = np.zeros(len(t)), np.zeros((len(t), len(grid))), [], []
    tau = grid[-1]
    for held, (r, s) in parts:
        risk[held], survival[held] = r, s
        mine = {}
        for tied in ("before", "at"):
            known = censoring(t[~held], e[~held], tied)
            mine[tied] = (
                uno(t[held], e[held], r, known, tau),
                dynamic_auc(t[held], e[held], r, horizons, known)[1],
                integrated_brier(t[held], e[held], s, grid, known),
            )
        # scikit-survival wants no test time beyond the training's: stop everyone just after the grid, which changes nothing
        late = t[held] > tau
        y = Surv.from_arrays(e[held] & ~late, np.where(late, tau + 1e-3, t[held]))
        train = Surv.from_arrays(e[~held], t[~held])
        theirs = (
            concordance_index_ipcw(train, y, r, tau)[0],
            cumulative_dynamic_auc(train, y, r, horizons)[1],
            integrated_brier_score(train, y, s, grid),
        )
        ours.append(mine["before"])
        off.append(np.abs(np.subtract(mine["at"], theirs)))
    return Scores(risk, survival, tuple(np.mean(ours, axis=0)), tuple(np.max(off, axis=0)))


def interval(t: Array, e: Array, risk: Array, draws: int) -> str:
    low, high = bootstrap(harrell_of(t, e, risk), np.arange(len(t)), n=draws)
    return f"{harrell(t, e, risk):.3f} ({low:.3f} to {high:.3f})"


def drawn(cohort: Cohort, t: Array, e: Array, fold: Array, scores: Scores, grid: Array, weights: Array) -> Array:
    """(3, 1 + draws) Uno's C, mean AUC and IBS, means over folds, the cohort's own first."""
    folds = []
    for k in range(fold.max() + 1):
        held, at = fold == k, np.array(cohort.horizons)
        known = weighted_kaplan_meier(t[~held], e[~held], weights[:, ~held], censoring=True)
        one = (t[held], e[held], scores.risk[held], weights[:, held], known)
        areas = mean_auc(t[held], e[held], weights[:, held], at, weighted_auc(*one, at))
        errors = weighted_brier(t[held], e[held], scores.survival[held], weights[:, held], known, grid)
        folds.append([weighted_uno(*one, grid[-1]), areas, integrated(errors, grid)])
    return np.mean(folds, axis=0)


def cell(values: Array, *, sign: bool = False) -> str:
    """A value and its interval over the draws that have one."""
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    form = "+.3f" if sign else ".3f"
    return f"{values[0]:{form}} ({low:{form}} to {high:{form}})"


def report(cohort: Cohort, draws: int, figures: Path | None) -> list[str]:
    outcome = cohort.endpoint.read(cohort.table)
    if reason := outcome.refusal():
        return [f"### {cohort.name}", "", reason, ""]
    known, table = outcome.known, cohort.table[outcome.known]
    t, e = outcome.time_days[known], outcome.event[known]
    whole = fit_covariates(table, numeric=cohort.numeric, categorical=cohort.categorical)
    fold = event_folds(e, 5, seed=0)
    grid = np.linspace(cohort.horizons[0] / 2, cohort.horizons[-1], 40)
    results = evaluate(cohort, table, t, e, fold, grid)
    lines = [f"### {cohort.name}", "", outcome.describe() + ".", ""]
    lines += [whole.encode(table).describe() + f"; {len(whole.names)} features.", ""]
    if warning := outcome.caution(len(whole.names)):
        lines += [warning + ".", ""]
    lines += [f"| model | C, pooled out of fold | Uno C | mean AUC | IBS | IBS minus {PLAIN} |", "|---|---|---|---|---|---|"]
    weights = Draws([f"{i:04d}" for i in range(len(t))], draws).weights([f"{i:04d}" for i in range(len(t))])
    plain = drawn(cohort, t, e, fold, marginal(t, e, fold, grid), grid, weights)[2]
    for name, scores in results.items():
        found = drawn(cohort, t, e, fold, scores, grid, weights)
        if not np.allclose(found[:, 0], scores.ours, atol=1e-12):
            raise SystemExit(f"{name}: measures under weights of one differ from the plain ones")
        cells = [interval(t, e, scores.risk, draws), *(cell(v) for v in found), cell(found[2] - plain, sign=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append(f"| {PLAIN} of training, no covariates | 0.5 | 0.5 | 0.5 | {cell(plain)} | |")
    return [*lines, "", *checks(t, e, results), "", *calibrated(cohort, t, e, results, grid, figures), ""]


def marginal(t: Array, e: Array, fold: Array, grid: Array) -> Scores:
    """Predicting everybody the Kaplan-Meier curve of training."""
    level = np.stack([curve(t[fold != k], e[fold != k]).at(grid)[0] for k in range(fold.max() + 1)])
    return Scores(np.zeros(len(t)), level[fold], (), ())


def checks(t: Array, e: Array, results: dict[str, Scores]) -> list[str]:
    """How far we are from the other libraries, in predictions and in measures."""
    names = list(results)
    mine = results[names[0]]
    far = {n: np.abs(results[n].risk - mine.risk).max() for n in names[1:3]}
    pooled = [
        abs(harrell(t, e, mine.risk) - concordance_index_censored(e, t, mine.risk)[0]),
        abs(harrell(t, e, mine.risk) - concordance_index(t, -mine.risk, e)),
    ]
    lines = ["| against | largest difference |", "|---|---|"]
    lines += [f"| log hazards of {n.partition(',')[0]} | {v:.1e} |" for n, v in far.items()]
    lines += [f"| Harrell's C of scikit-survival, of lifelines | {pooled[0]:.1e}, {pooled[1]:.1e} |"]
    for k, name in enumerate(("Uno's C", "mean AUC", "IBS")):
        lines.append(f"| {name} of scikit-survival | {mine.off[k]:.1e} |")
    return lines


def calibrated(cohort: Cohort, t: Array, e: Array, results: dict[str, Scores], grid: Array, figures: Path | None) -> list[str]:
    """Calibration at the middle horizon, and curves of risk tertiles cut on the other half of the patients."""
    at = cohort.horizons[1]
    mine = results[next(iter(results))]
    column = np.array([np.interp(at, grid, row) for row in mine.survival])
    lines = [f"Calibration at {at:g} days of the pooled predictions:", ""]
    lines += ["| patients | events by then | predicted survival | Kaplan-Meier |", "|---|---|---|---|"]
    for g in calibration_groups(t, e, column, at, 4):
        lines.append(f"| {g.n} | {g.n_events} | {g.predicted:.3f} | {g.observed:.3f} ({g.low:.3f} to {g.high:.3f}) |")
    half = event_folds(e, 2, seed=1) == 0
    cuts = risk_groups(mine.risk[half], 3)
    names = cuts.assign(mine.risk[~half])
    chi, p = log_rank(t[~half], e[~half], names)
    lines += ["", f"Risk tertiles cut on one half of the patients, log-rank on the other: chi-squared {chi:.1f}, p = {p:.1e}."]
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        curves = {n: curve(t[~half][names == n], e[~half][names == n]) for n in cuts.names if (names == n).any()}
        path = figures / f"survival-{cohort.name.lower().replace(' ', '-')}.png"
        draw_groups(path, curves, title=f"{cohort.name}: overall survival by predicted risk", p=p)
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds survival/ and kits23/")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", nargs="*", help="names of cohorts")
    parser.add_argument("--figures", type=Path, help="folder for Kaplan-Meier figures")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="lifelines")
    for cohort in cohorts(options.data):
        if not options.only or cohort.name in options.only:
            print("\n".join(report(cohort, options.draws, options.figures)), flush=True)


if __name__ == "__main__":
    main()
