"""How often does the gate let a bundle pass that is equal, better or worse, by held-out patients and margins?

Eight findings of known AUROC, one region a patient. Both bundles' scores are binormal and calibrated without error; their noise
is correlated, as that of two models on the same images is. The checks are the gate's own.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm

import medvl_configs
from medvl.evaluation.gate_checks import answer_checks, calibration_checks, finding_checks, subgroup_checks
from medvl.evaluation.gate_policy import GatePolicy, load_policy
from medvl.evaluation.gate_rows import Check, Judge, Pair, fails, verdict_of
from medvl.evaluation.intervals import Draws, proportion
from medvl.evaluation.report.style import BLUE, GREEN, GREY, LIGHT, ORANGE, as_png, grid_of, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AUROCS = (0.72, 0.76, 0.80, 0.84, 0.87, 0.90, 0.93, 0.95)
PREVALENCE = (0.15, 0.35, 0.20, 0.40, 0.25, 0.30, 0.15, 0.30)
PATIENTS = (60, 100, 200, 300, 600)
CHANGES = {
    "equal": (0.0,) * 8,
    "every finding 0.02 better": (0.02,) * 8,
    "every finding 0.02 worse": (-0.02,) * 8,
    "one finding 0.10 worse": (0.0, 0.0, 0.0, -0.10, 0.0, 0.0, 0.0, 0.0),
}
RULES = {  # margin of the mean, margin of a finding, what becomes of an inconclusive one
    "mean 0.02, finding 0.05 (default)": (0.02, 0.05, "estimate"),
    "mean 0.01, finding 0.03": (0.01, 0.03, "estimate"),
    "mean 0.03, finding 0.10": (0.03, 0.10, "estimate"),
    "default, inconclusive fails": (0.02, 0.05, "fail"),
}


PARTS = ("primary", "finding", "calibration", "answers", "subgroup")


def separation(auroc: float) -> float:
    """Distance of the two classes in standard deviations."""
    return float(np.sqrt(2) * norm.ppf(auroc))


def pairs_of(n: int, change: tuple[float, ...], correlation: float, rng: np.random.Generator) -> list[Pair]:
    """What both bundles say of `n` patients."""
    who = np.array([f"p{i:04d}" for i in range(n)])
    out = []
    for k, (auroc, prevalence, gain) in enumerate(zip(AUROCS, PREVALENCE, change, strict=True)):
        labels = (rng.random(n) < prevalence).astype(np.int64)
        shared = rng.standard_normal(n)
        scores, said = [], []
        for area in (auroc, auroc + gain):
            d = separation(area)
            noise = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.standard_normal(n)
            p = expit(d * (labels * d + noise - d / 2) + logit(prevalence))
            far = np.abs(logit(p) - logit(prevalence))
            word = np.where(p >= prevalence, "present", "absent")
            said.append(np.where(far < 0.2 * d, "undecided", word))
            scores.append(p)
        out.append(Pair(f"finding {k}", labels, who, scores[0], scores[1], said[0], said[1]))
    return out


def checks_of(pairs: list[Pair], policy: GatePolicy, rng: np.random.Generator) -> list[Check]:
    """Every check of the gate that needs findings only."""
    who = pairs[0].patients
    patients = pd.DataFrame({"sex": rng.choice(["F", "M"], len(who)), "age_years": rng.uniform(40, 90, len(who))}, index=who)
    judge = Judge(Draws(who, policy.draws, int(rng.integers(1 << 30))), policy.level)
    rows = finding_checks(pairs, judge, policy) + list(calibration_checks(pairs, judge, policy))
    return rows + list(answer_checks(pairs, judge, policy)) + list(subgroup_checks(patients, pairs, judge, policy))


def under(row: Check, rules: tuple[float, float, str]) -> Check:
    """A check as it would have come out under other margins."""
    if row.gain is None or row.low is None or row.high is None or row.part not in ("primary", "finding"):
        return row
    margin = rules[0] if row.part == "primary" else rules[1]
    rule = row.rule if row.part == "primary" else rules[2]
    verdict = verdict_of(row.low, row.high, margin)
    return replace(row, margin=margin, verdict=verdict, failed=fails(verdict, row.gain, margin, rule))


def simulate(n_runs: int, correlation: float, policy: GatePolicy, seed: int) -> dict[str, dict[str, list[int]]]:
    """How often each rule let a bundle pass, by change and number of patients; and why the default one did not."""
    out: dict[str, dict[str, list[int]]] = {}
    for name, change in CHANGES.items():
        passed = {rule: [0] * len(PATIENTS) for rule in (*RULES, *(f"fails: {p}" for p in PARTS))}
        for at, n in enumerate(PATIENTS):
            rng = np.random.default_rng([seed, n])
            for _ in range(n_runs):
                rows = checks_of(pairs_of(n, change, correlation, rng), policy, rng)
                for rule, margins in RULES.items():
                    judged = [under(row, margins) for row in rows]
                    passed[rule][at] += not any(row.failed for row in judged)
                for part in PARTS:
                    passed[f"fails: {part}"][at] += any(row.failed for row in rows if row.part == part)
        out[name] = passed
    return out


def drawn(told: dict[str, Any], correlation: str) -> Figure:
    """A panel for each change: the share of bundles that pass, by held-out patients, a line for each set of margins."""
    with styled():
        figure, panels = grid_of(len(CHANGES), 2, 2.5)
        figure.set_size_inches(7.6, 5.9)
        for axes, (change, rules) in zip(panels, told["passed"][correlation].items(), strict=True):
            for (rule, colour), marker in zip(zip(RULES, (BLUE, ORANGE, GREEN, GREY), strict=True), "soD^", strict=True):
                hits, n = np.array(rules[rule]), told["runs"]
                low, high = proportion(hits, np.full(len(hits), n))
                axes.fill_between(PATIENTS, low, high, color=colour, alpha=0.12, linewidth=0)
                axes.plot(PATIENTS, hits / n, marker=marker, color=colour, markersize=4, label=rule)
            axes.set_title(f"the new bundle: {change}", weight="bold")
            axes.set_xscale("log")
            axes.set_xticks(PATIENTS, [str(n) for n in PATIENTS])
            axes.minorticks_off()
            axes.set_ylim(-0.03, 1.03)
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
            axes.grid(axis="y", color=LIGHT, linewidth=0.5)
        figure.supxlabel("held-out patients", fontsize=9)
        figure.supylabel("share that passes the gate", fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        return figure


def main() -> None:
    """Simulate, write `operating.json` and `operating.png`, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--correlation", type=float, nargs="+", default=[0.8])
    options = parser.parse_args()
    default = load_policy(Path(medvl_configs.__path__[0]) / "gates" / "default.yaml")
    policy = default.model_copy(update={"draws": options.draws})
    started = time.process_time()
    found = {str(c): simulate(options.runs, c, policy, 1) for c in options.correlation}
    options.out.mkdir(parents=True, exist_ok=True)
    told = {"runs": options.runs, "draws": options.draws, "patients": PATIENTS, "policy": default.hash, "passed": found}
    (options.out / "operating.json").write_text(json.dumps(told, indent=1) + "\n")
    (options.out / "operating.png").write_bytes(as_png(drawn(told, next(iter(found)))))
    for correlation, by_change in found.items():
        for change, rules in by_change.items():
            for rule, counts in rules.items():
                cells = "  ".join(f"{n}: {k / options.runs:4.0%}" for n, k in zip(PATIENTS, counts, strict=True))
                print(f"r {correlation}  {change:28}{rule:36}{cells}")
    print(f"{time.process_time() - started:.0f} s of processor")


if __name__ == "__main__":
    main()
