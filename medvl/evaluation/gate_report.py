"""A gate's decision for people: reasons, a forest of gains with their margins, tables, and what was compared with what."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.evaluation.gate import GateResult
from medvl.evaluation.report.document import NA, Document, Picture, Section, Table, Text, paragraph, points, readable
from medvl.evaluation.report.html import write_html
from medvl.evaluation.report.markdown import write_markdown
from medvl.evaluation.report.style import BLUE, GREEN, GREY, INK, LIGHT, ORANGE, WIDTH, styled
from medvl.files import replace_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
PARTS = {
    "primary": "Mean of the findings",
    "finding": "Each finding",
    "retrieval": "Retrieval between scans and reports",
    "survival": "Survival",
    "calibration": "Calibration",
    "answers": "Answers",
    "subgroup": "Subgroups",
}
MARKS = {"better": ("^", GREEN), "not worse": ("s", BLUE), "inconclusive": ("o", GREY), "worse": ("X", ORANGE)}


def write_gate(result: GateResult, out: Path) -> None:
    """Write `gate.json`, `gate.md` with `figures/`, and `gate.html`."""
    out.mkdir(parents=True, exist_ok=True)
    report = gate_document(result.record)
    write_markdown(report, out, "gate.md")
    write_html(report, out / "gate.html")
    replace_text(out / "gate.json", json.dumps(result.record, indent=1, allow_nan=False) + "\n")


def gate_document(record: Mapping[str, Any]) -> Document:
    """The report of a gate's record."""
    word = "passed" if record["passed"] else "did not pass"
    title = f"Gate: {record['after']['name']} {word}, compared with {record['before']['name']}"
    sections = [Section("Decision", tuple(_decision(record)))]
    rows = [row for row in record["checks"] if row["gain"] is not None]
    if main := [row for row in rows if row["part"] != "subgroup" and not _detail(row)]:
        sections.append(Section("All gains at a glance", (_picture("gains", main, record),)))
    for part, name in PARTS.items():
        mine = [row for row in record["checks"] if row["part"] == part]
        if mine:
            drawn = [row for row in mine if row["gain"] is not None]
            picture = (_picture("subgroups", drawn, record),) if part == "subgroup" and drawn else ()
            sections.append(Section(name, (*picture, _table(mine, record))))
    sections.append(Section("What was compared", tuple(_about(record))))
    return Document(title, record["use"], tuple(sections))


def _decision(record: Mapping[str, Any]) -> Iterator[Text]:
    word = "may be promoted" if record["passed"] else "is kept, but not promoted"
    yield paragraph(f"{record['after']['name']} {word}. Every check must pass; the policy is {record['policy']['name']}.")
    failing = [f"{r['code']}: {r['sentence']}" for r in record["reasons"] if r["fails"]]
    told = [f"{r['code']}: {r['sentence']}" for r in record["reasons"] if not r["fails"]]
    if failing:
        yield points(failing, "warning")
    if told:
        yield points(told)


def _detail(row: Row) -> bool:
    """Calibration of single findings stands in a table only."""
    return bool(row["part"] == "calibration" and row["present"] is not None)


def _name(row: Row, record: Mapping[str, Any]) -> str:
    return str(record["labels_of"].get(row["what"], readable(row["what"])))


def _picture(name: str, rows: Sequence[Row], record: Mapping[str, Any]) -> Picture:
    caption = (
        "Gain of the new bundle with its interval (positive is better, whatever the metric). The orange tick is the loss that is "
        "too much. Triangle: better; square: not worse by the margin; circle: inconclusive; cross: shown to be worse by more."
    )
    return Picture(name, gain_forest(rows, record), "Forest plot of gains with intervals and margins", caption)


def gain_forest(rows: Sequence[Row], record: Mapping[str, Any]) -> Figure:
    """Gains by part, each with its interval, its margin, and the verdict in words."""
    from matplotlib.figure import Figure

    lines: list[Row | str] = []
    for part, name in PARTS.items():
        mine = [row for row in rows if row["part"] == part]
        if mine and part != "subgroup":
            lines.append(name)
        lines += mine
    with styled():
        figure = Figure(figsize=(WIDTH * 0.42, 0.235 * len(lines) + 0.7))
        axes = figure.add_axes((0, 0, 1, 1))
        for k, line in enumerate(lines):
            _line(axes, len(lines) - 1 - k, line, record)
        axes.axvline(0, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
        axes.set_ylim(-0.7, len(lines) - 0.3)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=LIGHT, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set_xlabel("worse   <   gain of the new bundle   >   better")
        title = f"gain [{record['policy']['level']:.0%} interval]   verdict"
        axes.set_title(title, loc="right", x=1.02, ha="left", color=GREY, fontsize=7.5)
        return figure


def _line(axes: Axes, y: int, line: Row | str, record: Mapping[str, Any]) -> None:
    left: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
    if isinstance(line, str):
        axes.text(-0.02, y, line, weight="bold", **left)
        return
    marker, colour = MARKS[line["verdict"]]
    metric = "" if line["part"] in ("finding", "subgroup") else f", {line['metric']}"
    axes.text(-0.02, y, f"{_name(line, record)}{metric}", **left)
    word = f"{line['verdict']}{'  FAILS' if line['failed'] else ''}"
    axes.text(
        1.02,
        y,
        f"{_gain(line)}   {word}",
        transform=axes.get_yaxis_transform(),
        ha="left",
        va="center",
        color=INK if line["failed"] else GREY,
        weight="bold" if line["failed"] else None,
        fontsize=7.5,
    )
    axes.plot([line["low"], line["high"]], [y, y], color=colour, linewidth=1.3, solid_capstyle="butt")
    axes.plot([line["gain"]], [y], marker, color=colour, markersize=7 if marker == "X" else 5, markeredgewidth=0)
    axes.plot([-line["margin"]], [y], "|", color=ORANGE, markersize=9, markeredgewidth=1.6)


def _gain(row: Row) -> str:
    return f"{row['gain']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def _table(rows: Sequence[Row], record: Mapping[str, Any]) -> Table:
    cells = []
    for row in rows:
        n = str(row["n"]) if row["present"] is None else f"{row['present']}/{row['n']}"
        head = (_name(row, record), row["metric"])
        if row["gain"] is None:
            cells.append((*head, n, NA, NA, NA, NA, f"{row['verdict']}: {row['note']}"))
            continue
        verdict = f"{row['verdict']}{', FAILS' if row['failed'] else ''}"
        numbers = (f"{row['before']:.3f}", f"{row['after']:.3f}", _gain(row), f"{row['margin']:g}")
        cells.append((*head, n, *numbers, verdict))
    columns = ("what", "metric", "n", "before", "after", "gain", "margin", "verdict")
    return Table(columns, tuple(cells), "Before, after and the gain; n is present / regions, or patients", n_left=2)


def _about(record: Mapping[str, Any]) -> Iterator[Text | Table]:
    cohort, policy = record["cohort"], record["policy"]
    labels = {"truth": "known from elsewhere than the report", "report": "read from the reports by rules"}[cohort["labels"]]
    rows = [
        ("bundle before", record["before"]["sha256"]),
        ("bundle after", record["after"]["sha256"]),
        *((f"embedded cohort {k}", record[k]["embedded_sha256"]) for k in ("before", "after") if "embedded_sha256" in record[k]),
        ("policy", policy["hash"]),
        ("labels", cohort["labels_sha256"]),
    ]
    yield paragraph(
        f"{cohort['patients']} patients, {cohort['regions']} regions that both bundles embedded; labels {labels}. Intervals are "
        f"{policy['level']:.0%}, from {policy['draws']} draws of whole patients that all numbers share (seed {policy['seed']}). "
        f"Made by {record['software']}."
    )
    yield Table(("SHA-256 of", "value"), tuple(rows), "Two gates with one policy and labels asked the same", n_left=2)
