"""The parts of a report on zero-shot findings: what they were measured on, how right they are, how well calibrated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medvl.evaluation.report import figures
from medvl.evaluation.report.document import NA, Picture, Table, Text, number, percent, points, readable, span

Told = Mapping[str, Any]
Block = Text | Table | Picture


def exclusions(found: Told) -> Table:
    """How many regions each finding was measured on, and why the others were not."""
    codes = sorted({e["reason"] for f in found.values() for e in f["excluded"]}, key=lambda c: (c != "unanswered", c))
    rows = []
    for f in found.values():
        by = {e["reason"]: e for e in f["excluded"]}
        cells = [f"{by[c]['n']} ({by[c]['present']})" if c in by else "0" for c in codes]
        rows.append((f["label"], str(f["eligible"]), *cells, f"{f['n']} ({f['present']})"))
    columns = (
        "finding",
        "regions",
        *(("labels do not say" if c == "unanswered" else f"not read: {readable(c)}") for c in codes),
        "measured",
    )
    return Table(columns, tuple(rows), "What each finding was measured on; in brackets, how many of these are labelled present")


def finding_blocks(task: Told) -> Iterator[Block]:
    """Scores of each finding, their curves and their calibration."""
    found, mean = task["findings"], task["mean_auroc"]
    done = dict(figures.measured(found))
    rows = [
        (
            f["label"],
            str(f["n"]),
            str(f["present"]),
            span(f["auroc"]),
            span(f["average_precision"], 2),
            percent(f["sensitivity"]),
            percent(f["specificity"]),
            f"{100 * f['undecided']['value']:.0f} %",
            span(f["ece"]),
        )
        for f in done.values()
    ]
    rows.append(("Mean", "", "", span(mean), "", "", "", "", ""))
    columns = ("finding", "regions", "present", "AUROC", "average precision", "sensitivity", "specificity", "undecided", "ECE")
    yield Table(
        columns,
        tuple(rows),
        "Sensitivity and specificity are among regions that got a verdict at the bundle's threshold. ECE: expected calibration "
        "error, ten equally filled bins; its interval is corrected for the bias of ECE, so it may lie below the value.",
    )
    left = [f"{f['label']}: {NA}, {f['na']}" for f in found.values() if "na" in f]
    if left:
        yield points(["Not measured:", *left])
    if not done:
        return
    yield Picture(
        "auroc",
        figures.finding_forest(done),
        "AUROC of each finding with its interval",
        "AUROC by finding, best first; the dashed line is chance.",
    )
    yield Picture(
        "roc",
        figures.roc(done),
        "ROC curves, one panel a finding",
        "ROC curves. The orange point is what the bundle's verdicts reach among regions that got one; it may lie off the "
        "curve, which holds all regions.",
    )
    yield Picture(
        "reliability",
        figures.reliability(done),
        "Reliability plots, one panel a finding",
        "Reliability: observed frequency in ten equally filled bins of the calibrated score, with intervals over patients. On "
        "the dashed line, scores are probabilities.",
    )
    parts = [
        (
            f["label"],
            span(f["ece"]),
            number(f["ece"]["if_calibrated"]),
            number(f["ece"]["if_calibrated_95"]),
            span(f["recalibration"].get("slope"), 2),
            span(f["recalibration"].get("in_the_large"), 2),
            span(f["brier"]),
        )
        for f in done.values()
    ]
    titles = ("finding", "ECE", "ECE if calibrated", "its 95th percentile", "slope", "calibration in the large", "Brier score")
    yield Table(
        titles,
        tuple(parts),
        "Calibration. ECE if calibrated: what chance alone gives a perfectly calibrated model with as many regions. Slope 1 "
        "and in the large 0 are right; a slope below 1 means scores are too extreme.",
    )
    yield Picture(
        "decision",
        figures.decision(done),
        "Decision curves, one panel a finding",
        "Decision curves: net benefit for whoever would act from a given probability on, with pointwise 95 % intervals over "
        "patients. They hold for the prevalence of this cohort.",
    )
    yield Picture(
        "risk-coverage",
        figures.risk_coverage(done),
        "Risk-coverage curves, one panel a finding",
        "Errors among the most certain answers. A curve that rises to the right means that leaving doubtful regions undecided "
        "pays.",
    )
