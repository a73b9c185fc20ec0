"""A drift record as a report that people read, with the parts and the look of evaluation reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medvl.doctor import drift_figures as figures
from medvl.evaluation.report.document import (
    NA,
    Document,
    Picture,
    Section,
    Table,
    Text,
    p_text,
    paragraph,
    percent,
    points,
    readable,
)

Record = Mapping[str, Any]
Block = Text | Table | Picture


def document(record: Record) -> Document:
    """The whole report."""
    sections = (
        Section("What stands out", tuple(_alarms(record))),
        Section("What was compared", tuple(_compared(record))),
        Section("What came in", tuple(_inputs(record))),
        Section("How familiar it was", tuple(_familiarity(record))),
        Section("What was answered", tuple(_scores(record))),
        Section("Limits", (points(_limits()),)),
    )
    return Document(
        f"Drift report of {record['studies']['compared']} studies, {record['bundle']['name']}", record["use"], sections
    )


def where(row: Record) -> str:
    """The group of a comparison in words."""
    return f"{row['by']} {row['group']}".strip()


def told(record: Record, row: Record) -> str:
    """One alarm as a sentence."""
    said = f"{where(row)}: {figures.named(record, row)}"
    if row["what"] == "unfamiliar":
        how = f"{100 * row['statistic']:.0f} % of {row['n']} regions lie beyond the limit ({row['against']})"
    elif row["higher"] is None:
        how = f"other shares than in {row['against']}"
    else:
        way = "higher" if row["higher"] > 0.5 else "lower" if row["higher"] < 0.5 else "spread otherwise"
        how = f"{way} than in {row['against']} (chance of a higher value {row['higher']:.2f}, {row['n']} values)"
    return f"{said}: {how}, adjusted p {p_text(row['p_adjusted'])}."


def _alarms(record: Record) -> Iterator[Block]:
    alarms = sorted(record["alarms"], key=lambda row: row["p_adjusted"])
    if not record["tests"]:
        yield paragraph("Nothing could be tested: see the notes below.")
    elif not alarms:
        yield paragraph("No comparison stands out beyond what chance explains.")
    else:
        yield points([told(record, row) for row in alarms[:30]], "warning")
        if len(alarms) > 30:
            yield paragraph(f"And {len(alarms) - 30} more; all are in drift.json.")
    picture = figures.shift_map(record)
    if picture is not None:
        caption = (
            "One line a group, one column a question. Orange: higher than elsewhere; purple: lower; white: alike. "
            "A ring is an alarm. Grey was not compared. 'reference': against the bundle's validation regions, else against "
            "all other groups of that column."
        )
        yield Picture("shifts", picture, "Shifts by group and question", caption)


def _compared(record: Record) -> Iterator[Block]:
    n, bundle = record["studies"], record["bundle"]
    yield points(record["notes"], "warning")
    counted = ", ".join(f"{n[status]} {status}" for status in ("done", "skipped", "failed") if status in n)
    yield paragraph(f"Studies: {counted}. Bundle {bundle['name']}, SHA-256 {bundle['sha256'][:16]}. {record['software']}.")
    rows = [
        (column, value, str(count), f"too small (below {record['least']})" if count < record["least"] else "")
        for column, held in record["groups"].items()
        for value, count in held.items()
    ]
    if rows:
        yield Table(
            ("by", "group", "studies", "note"), tuple(rows), "Groups; those too small are described, never tested", n_left=2
        )


def _inputs(record: Record) -> Iterator[Block]:
    picture = figures.inputs(record)
    if picture is None:
        yield paragraph("The records hold neither spacing nor size.")
        return
    caption = "Series by group: 5 to 95 % as a line, quartiles as a bar, the median as a mark. Green: all studies."
    yield Picture("inputs", picture, "Spacing and size of the series by group", caption)
    rows = [
        (
            figures.INPUTS.get(row["name"], readable(row["name"])),
            where(row),
            str(row["n"]),
            str(row["n_against"]),
            p_text(row["p"]),
            p_text(row["p_adjusted"]),
        )
        for row in record["tests"]
        if row["what"] == "input"
    ]
    if rows:
        columns = ("input", "group", "studies", "others", "p", "adjusted p")
        caption = "Numbers: Kolmogorov-Smirnov. Scanner, kernel and the like: chi squared with simulated tables."
        yield Table(columns, tuple(rows), caption, n_left=2)


def _familiarity(record: Record) -> Iterator[Block]:
    picture = figures.familiarity(record)
    if picture is None:
        yield paragraph("No region was measured.")
        return
    caption = (
        "Distance of features over its limit; right of the dashed line a region is left undecided. In orange the share that "
        "is: it counts strange images (HU and texture) too, which these distances do not show."
    )
    yield Picture("familiarity", picture, "Familiarity by region and group", caption)
    rows = [
        (readable(row["region"]), where(row), str(row["unfamiliar"]["n"]), percent(row["unfamiliar"]))
        for row in record["familiarity"]
        if row["unfamiliar"]["n"]
    ]
    caption = "Regions left undecided as unfamiliar, with Wilson intervals. In validation it was at most 0.5 % a look."
    yield Table(("region", "group", "regions", "unfamiliar"), tuple(rows), caption, n_left=2)


def _scores(record: Record) -> Iterator[Block]:
    picture = figures.percentiles(record)
    if picture is not None:
        caption = "Answers by tenth of the bundle's reference regions. The dashed line is no drift; orange panels are alarms."
        yield Picture("percentiles", picture, "Percentiles of answers by finding and region", caption)
    rows = [
        (
            figures.named(record, row),
            str(row["n"]),
            f"{100 * row['higher']:.0f}",
            f"{row['psi']:.2f} (chance: below {row['psi_limit']:.2f})",
            p_text(row["p"]),
            p_text(row["p_adjusted"]),
        )
        for row in record["tests"]
        if row["what"] == "score" and not row["by"]
    ]
    if rows:
        columns = ("finding", "regions", "mean percentile", "population stability index", "p", "adjusted p")
        caption = "All studies against the bundle's reference. A mean percentile of 50 is no shift."
        yield Table(columns, tuple(rows), caption)
    cells = [_verdict(record, row) for row in record["verdicts"]]
    caption = (
        "Verdicts, with Wilson intervals. The last column is the share of validation regions that were labelled present: a mark "
        "(*) says that the interval leaves it out, which may be other patients as well as drift, and is no alarm."
    )
    yield Table(("finding", "decided", "present", "undecided", "present in validation"), tuple(cells), caption)


def _verdict(record: Record, row: Record) -> tuple[str, ...]:
    name = f"{record['labels'].get(row['finding'], row['finding'])}, {readable(row['region'])}"
    known, ci = row["validation"], row["present"]["ci"]
    outside = known is not None and ci is not None and not ci[0] <= known <= ci[1]
    beside = NA if known is None else f"{100 * known:.0f} %{' *' if outside else ''}"
    return name, str(row["present"]["n"]), percent(row["present"]), percent(row["undecided"]), beside


def _limits() -> list[str]:
    return [
        "A drift report sees that studies or answers look different. It does not see whether answers are right: measure that on "
        "studies whose truth is known (medvl evaluate).",
        "Other patients (a new clinic, a screening programme) shift scores as a new scanner does. Compare groups.",
        "No alarm does not prove that nothing changed: with few studies only large shifts are found.",
        "The bundle's reference regions are crops around known centres. Among many hundred studies, errors of the localiser "
        "alone may show as a small shift.",
    ]
