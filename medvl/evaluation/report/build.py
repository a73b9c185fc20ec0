"""The sections of a report, from a results record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medvl.evaluation.report import figures
from medvl.evaluation.report.document import (
    NA,
    Document,
    Picture,
    Section,
    Table,
    Text,
    number,
    p_text,
    paragraph,
    percent,
    points,
    readable,
    span,
)
from medvl.evaluation.report.grounding import grounding_blocks
from medvl.evaluation.report.parts import (
    comparison_section,
    leak_section,
    retrieval_blocks,
    subgroup_section,
    survival_section,
)

Told = Mapping[str, Any]
Block = Text | Table | Picture


def document(told: Told) -> Document:
    """The whole report."""
    tasks = told["tasks"]
    sections = [Section("What was evaluated", tuple(_about(told))), Section("Cohort and what was left out", tuple(_cohort(told)))]
    labels: dict[str, str] = {}
    if "zero_shot" in tasks:
        sections.append(Section("Findings, zero-shot", tuple(_findings(tasks["zero_shot"]))))
        labels = {k: f["label"] for k, f in tasks["zero_shot"]["findings"].items()}
    if "retrieval" in tasks:
        sections.append(Section("Retrieval between scans and reports", tuple(retrieval_blocks(tasks["retrieval"]))))
    if "survival" in tasks:
        sections.append(survival_section(tasks["survival"]))
    if "grounding" in tasks:
        sections.append(Section("Do the maps point at the finding?", tuple(grounding_blocks(tasks["grounding"], labels))))
    sections += [
        subgroup_section(told, labels),
        *([comparison_section(told["comparison"], labels)] if "comparison" in told else []),
    ]
    sections += [
        leak_section(told["leaks"]),
        Section("Limits", (points(limits(told)),)),
        Section("To repeat it", tuple(_repeat(told))),
    ]
    name, source = told["model"]["name"], told["source"]
    title = f"Evaluation of {name} on {source.get('cohort', 'a cohort')}, {source.get('split', told['protocol']['split'])} split"
    return Document(title, told["use"], tuple(sections))


def _about(told: Told) -> Iterator[Block]:
    protocol, tasks = told["protocol"], told["tasks"]
    headline = []
    mean = tasks.get("zero_shot", {}).get("mean_auroc", {})
    if mean.get("value") is not None:
        headline.append(f"Mean zero-shot AUROC over {mean['findings']} findings: {span(mean)}.")
    found = tasks.get("retrieval", {}).get("image_to_report")
    if found:
        k, recall = next(iter(found["recall"].items()))
        size = tasks["retrieval"]["gallery"]
        headline.append(f"Scan to report, recall at {k} among {size} patients: {span(recall)} (chance {1 / size:.3f}).")
    c = tasks.get("survival", {}).get("concordance")
    if c:
        headline.append(f"Concordance for {tasks['survival']['endpoint']}: {span(c['model'])}.")
    headline.append("Intervals are 95 %, from a bootstrap over patients.")
    yield paragraph(*headline)
    if told["warnings"]:
        yield points(told["warnings"], "warning")
    rows = [
        ("Model", f"{told['model']['name']}, SHA-256 {told['model']['sha256'][:16]}"),
        ("Protocol", f"{protocol['name']}: {protocol['summary']}"),
        ("Labels of findings", _labels_from(protocol)),
        ("Thresholds, scaling, risk groups", "from the bundle, fitted on its validation patients; none from this cohort"),
        (
            "Patients",
            f"{told['cohort']['patients']}, of which {told['cohort']['patients_with_a_region_read']} had a region that was read",
        ),
        (
            "Embedded from",
            {"scans": "whole scans, through the localiser", "crops": "crops around known centres"}.get(
                told["source"].get("way", ""), NA
            ),
        ),
        ("Bootstrap", f"{protocol['draws']} draws of whole patients, seed {protocol['seed']}"),
        ("Software", told["software"]),
    ]
    yield Table(("", "value"), tuple(rows), "What was evaluated, and how", n_left=2)


def _labels_from(protocol: Told) -> str:
    zero = next((t for t in protocol["tasks"] if t["type"] == "zero_shot"), None)
    if zero is None:
        return "not used"
    return "known from elsewhere than the report" if zero["labels"] == "truth" else "read from the reports by rules"


def _cohort(told: Told) -> Iterator[Block]:
    flow = told["cohort"]
    codes = sorted({code for kind in flow["kinds"].values() for code in kind["not_read"]})
    rows = [
        (kind, str(k["patients"]), str(k["regions"]), *(str(k["not_read"].get(code, 0)) for code in codes), str(k["read"]))
        for kind, k in flow["kinds"].items()
    ]
    columns = ("kind of region", "patients", "regions", *(f"not read: {readable(code)}" for code in codes), "read")
    yield Table(
        columns,
        tuple(rows),
        "From the cohort to what the model read. A region that was not read has no answer and is in no number below.",
    )
    if "zero_shot" in told["tasks"]:
        found = told["tasks"]["zero_shot"]["findings"]
        yield _exclusions({k: f for k, f in found.items() if "excluded" in f})
    if "localiser" in flow:
        rows_of = [
            (readable(region), str(v["n"]), number(v["median_mm"], 1), f"{100 * v['within_15_mm']:.0f} %", str(v["not_found"]))
            for region, v in flow["localiser"].items()
        ]
        columns = ("region", "scans that hold it", "median error, mm", "within 15 mm", "not found")
        yield Table(columns, tuple(rows_of), "The localiser, against true centres")


def _exclusions(found: Told) -> Table:
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


def _findings(task: Told) -> Iterator[Block]:
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
            number(f["recalibration"].get("slope"), 2),
            number(f["recalibration"].get("in_the_large"), 2),
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


def limits(told: Told) -> list[str]:
    """What the numbers do not say."""
    out = [
        "Intervals hold for other patients from where these came from; they say nothing of other hospitals, scanners or "
        "countries."
    ]
    if "phantom" in str(told["source"].get("cohort", "")):
        out.insert(0, "The cohort is of computer-made phantoms. Nothing here says anything about patients.")
    zero = next((t for t in told["protocol"]["tasks"] if t["type"] == "zero_shot"), None)
    if zero and zero["labels"] == "report":
        out.append("Labels come from reports: what a report leaves out is not counted, and errors of the rules that read it are.")
    out += [
        "Regions that the model could not read are left out of every score. The table of exclusions says how many, and how "
        "many of them held the finding.",
        "Many numbers stand side by side. A single one that looks best or worst among them may do so by chance.",
        "Predictive values and decision curves hold for the share of present regions in this cohort.",
    ]
    if told["source"].get("way") == "crops":
        out.append("Crops lie around known centres, so errors of the localiser are not in these numbers.")
    return out


def _repeat(told: Told) -> Iterator[Block]:
    rows = [(name, value) for name, value in told["hashes"].items()] + [("model", told["model"]["sha256"])]
    yield Table(
        ("SHA-256 of", "value"),
        tuple(rows),
        "Two reports with one protocol, labels and prompts hash were asked the same of the same.",
        n_left=2,
    )
    p = told["protocol"]
    yield paragraph(f"medvl evaluate {told['model']['name']} --protocol {p['name']} --draws {p['draws']}")


__all__ = ["document", "limits", "p_text"]
