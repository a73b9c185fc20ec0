"""The data card: one page for a hospital's data officer, with what is in the dataset, what is not, and what was done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.dataset import figures
from medvl.evaluation.report.document import NA, Document, Picture, Section, Table, Text, paragraph, points, readable
from medvl.evaluation.report.html import write_html

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CARD = "card.html"
Facts = Mapping[str, Any]
Block = Text | Table | Picture
_LEFT_OUT = "Names, ids, dates, accession numbers, UIDs, paths and DICOM headers are not in the folder."
_MEASURES = {
    "spacing_d_mm": "slice spacing, mm",
    "spacing_h_mm": "pixel spacing, mm",
    "slice_thickness_mm": "slice thickness, mm",
    "age_years": "age, years",
    "n_d": "slices",
}
_REMOVED = {
    "NAME": "names",
    "DATE": "dates",
    "ID": "numbers and ids",
    "PHONE": "phone numbers",
    "TIME": "times of day",
    "AGE": "ages above 89",
    "EMAIL": "e-mail addresses",
    "URL": "web addresses",
}


def write_card(folder: Path, facts: Facts, frame: pd.DataFrame) -> Path:
    """`card.html`, one file with its figures inside."""
    return write_html(document(facts, frame), folder / CARD)


def document(facts: Facts, frame: pd.DataFrame) -> Document:
    """The card of a dataset from the content of its `dataset.json` and its table of cases."""
    told = facts["summary"]
    sections = [
        Section("What is in it", tuple(_content(facts))),
        Section("Scans", tuple(_scans(told, frame))),
        Section("Reports and labels", tuple(_labels(facts))),
        Section("Follow-up", tuple(_follow_up(frame))),
        Section("What is missing", tuple(_missing(facts))),
        Section("Splits and leaks", tuple(_splits(facts))),
        Section("Privacy", tuple(_privacy(facts))),
        Section("How it was made", tuple(_made(facts))),
    ]
    return Document(f"Data card: {told['patients']} patients, {told['scans']} scans", facts["research_use"], tuple(sections))


def _content(facts: Facts) -> Iterator[Block]:
    told, rows = facts["summary"], facts["rows"]
    out = rows["manifest"] - rows["used"]
    sites = [s for s in told["groups"]["site"] if s != "not known"]
    yield paragraph(
        f"{told['patients']} patients with {told['scans']} CT scans"
        + (f" of {len(sites)} sites" if len(sites) > 1 else "")
        + f", from {rows['manifest']} rows of a spreadsheet.",
        f"Each scan was converted once to Hounsfield units at its own resolution; {out} rows were left out.",
    )
    warnings = list(_warnings(facts))
    if warnings:
        yield points(warnings, "warning")
    names = ("patients", "scans", "reports", "labelled", "outcomes", "events")
    lines = [(split, *(str(values[name]) for name in names)) for split, values in told["splits"].items()]
    total = ("all", *(str(sum(values[name] for values in told["splits"].values())) for name in names))
    columns = (
        "split",
        "patients",
        "scans",
        "scans with a report",
        "scans with given labels",
        "patients with follow-up",
        "events",
    )
    yield Table(columns, (*lines, total), "Patients and scans by split.")


def _warnings(facts: Facts) -> Iterator[str]:
    leaks = facts["leaks"]
    pairs = f"{leaks['across_splits']} pairs of cases in different splits may be one patient"
    if leaks["open"]:
        yield f"{pairs} (leaks.csv); training refuses this dataset."
    elif leaks["across_splits"]:
        yield f"{pairs}; using them all the same was allowed."
    if not facts["options"]["deidentified"]:
        yield "Reports were kept as they came. They may hold names, dates and numbers of patients and doctors."
    empty = [split for split, values in facts["summary"]["splits"].items() if not values["scans"]]
    if empty:
        yield f"No case is in the split {' and '.join(empty)}."


def _scans(told: Facts, frame: pd.DataFrame) -> Iterator[Block]:
    lines = [(_MEASURES[name], *_five(spread)) for name, spread in told["measures"].items()]
    yield Table(("", "known", "lowest", "quarter", "middle", "three quarters", "highest"), tuple(lines), "Spread over scans.")
    yield from _picture("measures", figures.measures(frame), "Spacing, length and age by split.", "Histograms by split")
    yield from _picture("groups", figures.groups(frame), "Scans by phase, scanner, kernel and site; colours are splits.", "Bars")
    noticed = {k: v for k, v in told["warnings"].items() if k != "not known"}
    if noticed:
        rows = tuple((code, str(n)) for code, n in noticed.items())
        yield Table(
            ("noticed while reading", "scans"), rows, "Remarks on scans that were used; reason codes are in the documentation."
        )


def _five(spread: Facts) -> tuple[str, ...]:
    names = ("n", "min", "q1", "median", "q3", "max")
    return tuple(f"{spread[name]:g}" if name in spread else NA for name in names)


def _labels(facts: Facts) -> Iterator[Block]:
    found, labels = facts["summary"]["findings"], facts["labels"]
    sources = labels["sources"]
    told = ", ".join(f"{n} from {'the table' if s == 'csv' else 'clinicians in the viewer'}" for s, n in sources.items())
    yield paragraph(
        f"Labels given: {told}." if told else "No labels were given.",
        "Where none was given, rules read the finding from the report. A clinician's label stands above the table's, and the "
        "table's above the report's.",
    )
    notes = [
        f"{readable(name)}: in {n} scans present without a side, in table and report; not used."
        for name, n in labels["region_not_known"].items()
    ]
    notes += [_review(review) for review in labels["reviews"]]
    if notes:
        yield points(notes)
    caption = "What reports and given labels say of each finding, over scans."
    yield from _picture("findings", figures.prevalence(found), caption, "Stacked bars of findings")
    columns = ("finding", "region", "present", "absent", "uncertain", "not known", "given")
    keys = ("present", "absent", "uncertain", "unknown", "given")
    rows = tuple((readable(r["finding"]), readable(r["region"]), *(str(r[k]) for k in keys)) for r in found)
    if rows:
        yield Table(columns, rows, "Findings over scans; given: labelled by the table or a clinician.", n_left=2)


def _review(review: Facts) -> str:
    parts = [f"{review['used']} of {review['labels']} clinicians' labels are of {review['studies']} studies of this dataset"]
    parts += [f"{review['unmatched']} are of other studies"] if review["unmatched"] else []
    parts += [f"{review['unknown_finding']} are of findings that no rule knows"] if review["unknown_finding"] else []
    return "; ".join(parts) + "."


def _follow_up(frame: pd.DataFrame) -> Iterator[Block]:
    found = figures.follow_up(frame)
    if found is None:
        yield paragraph("No follow-up was given.")
    else:
        caption = "Kaplan-Meier estimate with 95 % interval, by split; a patient counts once."
        yield from _picture("follow-up", found, caption, "Survival curves by split")


def _missing(facts: Facts) -> Iterator[Block]:
    caption = "Share of scans without a value."
    yield from _picture("missing", figures.missing(facts["summary"]["missing"]), caption, "Bars of missing values")
    rows = tuple((readable(code), str(n)) for code, n in facts["rows"]["left_out"].items())
    if rows:
        yield Table(("reason", "lines"), rows, "What was left out: rows, studies and single cells (rejects.csv tells which).")


def _splits(facts: Facts) -> Iterator[Block]:
    leaks, splits, options = facts["leaks"], facts["splits"], facts["options"]
    lines = [
        f"Splits are by patient; those that the table does not give are drawn with seed {options['split_seed']}.",
        *(
            [f"Held out for testing: all patients of {', '.join(options['held_out_sites'])}."]
            if options["held_out_sites"]
            else []
        ),
    ]
    if splits["seen_at_both_sites"]:
        lines.append(
            f"{splits['seen_at_both_sites']} patients were seen at a held-out site and elsewhere; all their scans are in test."
        )
    moved = splits["moved"]
    lines += [f"{moved['held_out']} patients were moved to test from a split that the table gave."] if "held_out" in moved else []
    lines += [f"{moved['joined']} patients were moved to the split of their likely other id."] if "joined" in moved else []
    pairs = ", ".join(f"{n} by {kind}" for kind, n in leaks["pairs"].items())
    lines.append(f"Pairs of cases that may be one patient: {pairs}; {leaks['across_splits']} across splits." if pairs else
                 "No two patients share an accession number, an image or a report.")  # fmt: skip
    yield points(lines)


def _privacy(facts: Facts) -> Iterator[Block]:
    lines = [_LEFT_OUT, "Patients and cases go by ids made with the key in the file key, which only its owner can read."]
    lines.append("Whoever holds the key and the spreadsheet can tell who is who; delete the key to end that.")
    if facts["options"]["deidentified"]:
        removed = ", ".join(f"{n} {_REMOVED[kind]}" for kind, n in facts["removed"].items()) or "nothing was found"
        lines.append(f"Taken out of reports: {removed}. Ages above 90 are told as 90.")
        lines.append(
            "Rules find what a column, the DICOM header or the wording announces. A person must read a sample of reports."
        )
    lines.append("Faces can be drawn from scans of the head; scans are not defaced. Text burnt into images is not looked for.")
    yield points(lines)


def _made(facts: Facts) -> Iterator[Block]:
    yield points(
        [*facts["notes"], f"Made by {facts['software']} at {facts['made_at']}.", f"Data hash (SHA-256): {facts['sha256']}"]
    )
    yield Table(("column of the spreadsheet", "taken as"), tuple(tuple(line) for line in facts["mapping"]), "Columns.", n_left=2)


def _picture(name: str, figure: Figure | None, caption: str, alt: str) -> Iterator[Block]:
    if figure is not None:
        yield Picture(name, figure, f"{alt}. {caption}", caption)
