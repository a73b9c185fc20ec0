"""The sections of a report, from a results record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from medvl.evaluation.report.document import (
    NA,
    Document,
    Picture,
    Section,
    Table,
    Text,
    number,
    paragraph,
    points,
    readable,
    span,
)
from medvl.evaluation.report.findings import exclusions, finding_blocks
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
        sections.append(Section("Findings, zero-shot", tuple(finding_blocks(tasks["zero_shot"]))))
        labels = {k: f["label"] for k, f in tasks["zero_shot"]["findings"].items()}
    if "retrieval" in tasks:
        sections.append(Section("Retrieval between scans and reports", tuple(retrieval_blocks(tasks["retrieval"]))))
    sections += [_of_endpoint(key, tasks[key], len(_endpoints(told)) > 1) for key in _endpoints(told)]
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


def _endpoints(told: Told) -> list[str]:
    """Names of the survival tasks in the results."""
    return [str(t.get("name") or t["type"]) for t in told["protocol"]["tasks"] if t["type"] == "survival"]


def _of_endpoint(key: str, task: Told, several: bool) -> Section:
    """The section of one endpoint; with several, its figures have names of their own."""
    section = survival_section(task)
    if not several:
        return section
    blocks = [replace(b, name=f"{b.name}-{key.lower()}") if isinstance(b, Picture) else b for b in section.blocks]
    return Section(section.title, tuple(blocks))


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
    for task in (tasks[key] for key in _endpoints(told)):
        if "concordance" in task:
            headline.append(f"Concordance for {task['endpoint']}: {span(task['concordance']['model'])}.")
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
        yield exclusions({k: f for k, f in found.items() if "excluded" in f})
    if "localiser" in flow:
        rows_of = [
            (readable(region), str(v["n"]), number(v["median_mm"], 1), f"{100 * v['within_15_mm']:.0f} %", str(v["not_found"]))
            for region, v in flow["localiser"].items()
        ]
        columns = ("region", "scans that hold it", "median error, mm", "within 15 mm", "not found")
        yield Table(columns, tuple(rows_of), "The localiser, against true centres")


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
