"""The report on a protocol of downstream tasks, from its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medvl.evaluation.report.document import (
    NA,
    Document,
    Picture,
    Section,
    Table,
    Text,
    p_text,
    paragraph,
    points,
    readable,
    span,
)
from medvl.evaluation.report.parts import leak_section
from medvl.evaluation.report.style import BLUE, GREY, ORANGE, grid_of, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Told = Mapping[str, Any]
Block = Text | Table | Picture
BESIDE = {
    "clinical": "clinical facts",
    "image and clinical": "image and clinical facts",
    "size": "size",
    "second": "second encoder",
}
COLUMNS = 4


def tasks_document(told: Told) -> Document:
    """The whole report: every task beside its baselines, or NA with the reason."""
    sections = [
        Section("What was evaluated", tuple(_about(told))),
        Section("Cohort and what was left out", tuple(_cohort(told))),
        Section("Tasks", tuple(_results(told))),
        Section("Several scans of a patient", tuple(_scans(told))),
    ]
    if told["protocol"]["fractions"]:
        sections.append(Section("With fewer labels", tuple(_curves(told))))
    sections += [
        leak_section(told["leaks"]),
        Section("Limits", (points(_limits(told)),)),
        Section("To repeat it", tuple(_repeat(told))),
    ]
    title = f"{told['protocol']['name']}: heads on {told['model']['name']}, measured on {_cohort_name(told)}, test split"
    return Document(title, told["use"], tuple(sections))


def measured(told: Told) -> dict[str, Told]:
    """Tasks that have numbers."""
    return {name: task for name, task in told["tasks"].items() if "na" not in task}


def _cohort_name(told: Told) -> str:
    return str(told["source"]["test"][0].get("cohort", "a cohort"))


def _called(name: str, task: Told) -> str:
    return name if task["label"].lower() == name.lower() else f"{name}: {task['label']}"


def _about(told: Told) -> Iterator[Block]:
    n, protocol = len(measured(told)), told["protocol"]
    yield paragraph(
        f"{n} of {len(told['tasks'])} tasks were measured; the others are NA with their reason. Intervals are 95 %, from a "
        "bootstrap over test patients."
    )
    if told["warnings"]:
        yield points(told["warnings"], "warning")
    rows = [
        ("Model", f"{told['model']['name']}, SHA-256 {told['model']['sha256'][:16]}"),
        ("Protocol", f"{protocol['name']}: {protocol['summary']}"),
        ("Heads", f"on frozen features ({protocol['features']}): proportional odds, linear probe, ridge Cox; fitted on train"),
        ("Penalties, cuts, thresholds", "chosen on validation; test is measured once"),
        *(
            (f"{split.capitalize()} embedded from", "; ".join(f"{s.get('cohort', NA)}, {s.get('way', NA)}" for s in sources))
            for split, sources in told["source"].items()
        ),
        ("Bootstrap", f"{protocol['draws']} draws of whole patients"),
        ("Software", told["software"]),
    ]
    if "second" in told:
        rows.insert(1, ("Second encoder", f"{told['second']['name']}, SHA-256 {told['second']['sha256'][:16]}"))
    yield Table(("", "value"), tuple(rows), "What was evaluated, and how", n_left=2)


def _cohort(told: Told) -> Iterator[Block]:
    parts = told["cohort"]
    codes = sorted({code for part in parts.values() for code in part["not_read"]})
    rows = tuple(
        (split, str(p["patients"]), str(p["labelled"]), *(str(p["not_read"].get(c, 0)) for c in codes), str(p["read"]))
        for split, p in parts.items()
    )
    columns = ("split", "patients", "labelled lesions", *(f"not read: {readable(c)}" for c in codes), "read")
    yield Table(columns, rows, "From the cohort and the table of labels to what heads learn from and are measured on.")
    left = [(name, task) for name, task in measured(told).items()]
    reasons = sorted({r for _, task in left for gone in task["excluded"].values() for r in gone})
    cells = tuple(
        (_called(name, task), split, *(str(task["excluded"][split].get(r, 0)) for r in reasons))
        for name, task in left
        for split in parts
    )
    if reasons:
        caption = "Left out of each task, by reason; each task has its own labels. Nothing is imputed."
        yield Table(("task", "split", *map(readable, reasons)), cells, caption, n_left=2)
    dropped = [
        f"{_called(name, task)}: class {readable(c)} is left out, too few ({', '.join(f'{n} in {s}' for s, n in sizes.items())})"
        for name, task in left
        for c, sizes in task.get("left_out", {}).items()
    ]
    if dropped:
        yield points(dropped)


def _results(told: Told) -> Iterator[Block]:
    beside = [b for b in BESIDE if any(b in task["beside"] for task in measured(told).values())]
    rows, apart, more = [], [], []
    for name, task in told["tasks"].items():
        called = _called(name, task)
        if "na" in task:
            rows.append((called, "", "", NA, *("" for _ in beside)))
            continue
        image, main = task["image"], task["main"]
        rows.append((called, main, _size(task), span(image[main]), *(_beside(task, b) for b in beside)))
        for b, gap in task["difference"].items():
            cell = f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
            apart.append((called, BESIDE[b], main, cell, p_text(gap["p"])))
        more += [(called, k, _value(v)) for k, v in image.items() if isinstance(v, Mapping) and k != main]
    caption = "Each task by itself: its own label column, exclusions and endpoint. The same kind of head for every column."
    columns = ("task", "measure", "test lesions (patients)", "image", *(BESIDE[b] for b in beside))
    yield Table(columns, tuple(rows), caption)
    gone = [f"{_called(n, t)}: {NA}, {t['na']}" for n, t in told["tasks"].items() if "na" in t]
    gone += [
        f"{_called(n, t)}, {BESIDE[b]}: {NA}, {found['na']}"
        for n, t in measured(told).items()
        for b, found in t["beside"].items()
        if "na" in found
    ]
    if gone:
        yield points(gone)
    if apart:
        caption = "Image minus each baseline, on the same draws of test patients; p is not adjusted for the number of rows."
        yield Table(("task", "minus", "measure", "difference", "p"), tuple(apart), caption, n_left=3)
    if more:
        yield Table(("task", "measure", "image"), tuple(more), "Other measures", n_left=2)


def _size(task: Told) -> str:
    image = task["image"]
    counts = f"{image['n']} ({image['patients']})"
    if "events" in image:
        return f"{counts}, {image['events']} events"
    return f"{counts}: " + ", ".join(f"{n} {readable(c)}" for c, n in zip(task["classes"], image["sizes"], strict=True))


def _beside(task: Told, name: str) -> str:
    found = task["beside"].get(name)
    if found is None:
        return "label is made of it" if name == "size" else ""
    return NA if "na" in found else _value(found[task["main"]])


def _value(found: Told) -> str:
    return f"{NA}: {found['na']}" if "na" in found else span(found)


def _scans(told: Told) -> Iterator[Block]:
    rows = []
    for name, task in measured(told).items():
        found = task["phases"]
        if "na" not in found:
            gap, main = found["fused_minus_single"], task["main"]
            cells = (span(task["image"][main]), span(found["single"][main]))
            apart = f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
            rows.append((_called(name, task), main, str(found["with_several"]), *cells, apart, p_text(gap["p"])))
    if not rows:
        yield paragraph("Every lesion has a single scan in test, so there is nothing to fuse.")
        return
    columns = ("task", "measure", "with several scans", "all scans", "one scan", "difference", "p")
    yield Table(
        columns, tuple(rows), "The mean over a lesion's scans against one of them, each with cuts chosen on such scans", n_left=2
    )


def _curves(told: Told) -> Iterator[Block]:
    found = {name: task for name, task in measured(told).items() if task.get("curve")}
    if not found:
        yield paragraph(f"{NA}: no task was measured.")
        return
    fractions = told["protocol"]["fractions"]
    caption = "Main measure by share of the training patients, drawn whole: mean over draws, 95 % interval over test patients."
    yield Picture("fewer-labels", curve_figure(found), "Each task with fewer labels", caption)
    rows = tuple((_called(name, task), *(_point(point) for point in task["curve"])) for name, task in found.items())
    caption = "Shares of the training patients; refused where a share holds too little of a class or too few events."
    yield Table(("task", *(f"{100 * f:g} %" for f in fractions)), rows, caption)


def _point(point: Told) -> str:
    if point["value"] is None:
        return "refused"
    few = f" ({len(point['seeds'])} seeds)" if point["refused"] else ""
    return span(point) + few


def curve_figure(found: Mapping[str, Told]) -> Figure:
    """A panel a task: mean over draws of patients, 95 % interval over test patients, each draw, and clinical facts as a line."""
    with styled():
        figure, panels = grid_of(len(found), COLUMNS, 2.3)
        figure.supxlabel("training patients, %", fontsize=9)
        for (name, task), axes in zip(found.items(), panels, strict=True):
            kept = [p for p in task["curve"] if p["value"] is not None]
            x = [100 * p["fraction"] for p in kept]
            if kept:
                axes.fill_between(x, *np.array([p["ci"] for p in kept]).T, color=BLUE, alpha=0.15, linewidth=0)
                axes.plot(x, [p["value"] for p in kept], "o-", color=BLUE, markersize=3, linewidth=1)
            for p in kept:
                axes.plot([100 * p["fraction"]] * len(p["seeds"]), list(p["seeds"].values()), ".", color=GREY, markersize=2.5)
            clinical = task["beside"].get("clinical", {}).get(task["main"])
            if clinical and clinical["value"] is not None:
                axes.axhline(clinical["value"], color=ORANGE, linewidth=1, linestyle="--")
            axes.set(xscale="log", title=name, ylabel=task["main"])
            axes.set_xticks([1, 10, 100], ["1", "10", "100"])
        _key(figure)
        return figure


def _key(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=BLUE, marker="o", markersize=3, label="image, mean over draws"),
        Line2D([], [], color=GREY, marker=".", linestyle="", label="each draw"),
        Line2D([], [], color=ORANGE, linestyle="--", label="clinical facts, all labels"),
    ]
    figure.legend(handles=lines, loc="outside upper right", ncols=len(lines))


def _limits(told: Told) -> list[str]:
    out = [
        "Intervals hold for other patients from where these came from, not for other hospitals, scanners or countries.",
        "A lesion without a label, and one that the model could not read, is in no number; the tables of exclusions count them.",
        "Many numbers stand side by side. A single one that looks best or worst among them may do so by chance.",
    ]
    if "phantom" in _cohort_name(told):
        out.insert(0, "The cohort is of computer-made phantoms. Nothing here says anything about patients.")
    if any(s.get("way") == "crops" for s in told["source"]["test"]):
        out.append("Test crops lie around known centres, so errors of the localiser are not in these numbers.")
    return out


def _repeat(told: Told) -> Iterator[Block]:
    rows = (*told["hashes"].items(), ("model", told["model"]["sha256"]))
    yield Table(
        ("SHA-256 of", "value"), rows, "Reports with one protocol and labels hash were asked the same of the same.", n_left=2
    )
    p = told["protocol"]
    given = "--embedded TEST --training TRAIN --training VALIDATION --labels CSV"
    yield paragraph(f"medvl evaluate {told['model']['name']} --protocol {p['name']} --draws {p['draws']} {given}")
