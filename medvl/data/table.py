"""A table of studies and reports (CSV or Parquet) read and checked as a whole before any work is done.

Messages name rows and columns only: patient ids, paths and report texts may hold identifiers and are never repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medvl.data.person import joined
from medvl.data.table_file import check_columns, nearest, read_rows
from medvl.errors import ConfigError
from medvl.imaging.phantom.write import split_of

REQUIRED = ("patient_id", "study")
REPORTS = ("report", "report_file")
OPTIONAL = ("split", "time_days", "event", "age_years", "phase", "masks")
SPLITS = ("train", "validation", "test")
PHASE_NAMES = ("noncontrast", "arterial", "portal_venous", "nephrographic", "delayed")
_ALSO = {
    "val": "validation",
    "valid": "validation",
    "native": "noncontrast",
    "non_contrast": "noncontrast",
    "portal": "portal_venous",
    "venous": "portal_venous",
}
_EVENTS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_SHOWN = 10
Fact = str | float | bool


@dataclass(frozen=True)
class Scan:
    """One row's scan. `centers` holds region centres (LPS mm) that the table gives; `masks` a folder of region masks."""

    row: int
    study: Path = field(repr=False)
    phase: str = ""
    masks: Path | None = field(default=None, repr=False)
    centers: Mapping[str, tuple[float, float, float]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class TableCase:
    """One report with its scans: one, or several phases of the same examination, the first row's first.

    Args:
        patient_id: any name of the patient; report: the text; split: of `SPLITS`; scans: at least one.
        age_years, time_days, event: None where not known.
        labels: region to attribute to 1 present, 0 absent or 2 uncertain, given by others than the report; they stand above it.
        label_sources: region to attribute to who gave the label, such as ``csv`` or ``review``.
        facts: what else is known for subgroups, such as sex, site, phase and manufacturer; text, numbers and truth values.
        person: links of the patient under the site's key (`medvl.data.person`), empty without.
        dataset_case: what a dataset calls the first scan; empty for a plain table.
    """

    patient_id: str = field(repr=False)
    report: str = field(repr=False)
    split: str
    scans: tuple[Scan, ...]
    age_years: float | None = None
    time_days: float | None = None
    event: bool | None = None
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict, repr=False)
    label_sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    facts: Mapping[str, Fact] = field(default_factory=dict, repr=False)
    person: str = field(default="", repr=False)
    dataset_case: str = ""


@dataclass(frozen=True)
class Table:
    """A table that passed every check."""

    cases: tuple[TableCase, ...] = field(repr=False)
    center_regions: tuple[str, ...]

    def of(self, split: str) -> tuple[TableCase, ...]:
        """The cases of one split, in the order of the table."""
        return tuple(case for case in self.cases if case.split == split)


@dataclass(frozen=True)
class _Line:
    """A row as read, with what is wrong in it."""

    case: TableCase
    wrong: tuple[str, ...]


def open_table(path: Path, *, split_seed: int = 0) -> Table:
    """Read and check a table; paths in it are relative to its folder.

    Rows of one patient with the same report and different phases are scans of one case. Patients without a split get one from
    a hash of `split_seed` and their id: 70 % train, 15 % validation, 15 % test, and nobody moves when rows are added.

    Raises:
        ConfigError: the table cannot be read, a column is missing or misspelt, or rows are wrong (the first ten are told).
    """
    rows = read_rows(path)
    if not rows:
        raise ConfigError("the table has no rows below its header")
    regions = check_columns(tuple(rows[0]), REQUIRED, REPORTS, OPTIONAL)
    lines = [_line(number, row, path.parent, regions) for number, row in enumerate(rows, start=2)]
    wrong = [text for line in lines for text in line.wrong] + list(_between_rows(lines))
    if wrong:
        rest = f"\n... and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ConfigError(
            f"the table has {len(wrong)} fault{'s' * (len(wrong) > 1)} (its header is row 1):\n"
            + "\n".join(wrong[:_SHOWN])
            + rest
        )
    return Table(grouped(_with_splits([line.case for line in lines], split_seed)), regions)


class _Cells:
    """One row being read: values by column, and a list of what is wrong."""

    def __init__(self, number: int, row: Mapping[str, str]) -> None:
        self.number, self.row, self.wrong = number, row, list[str]()

    def text(self, name: str) -> str:
        return self.row.get(name, "")

    def fault(self, name: str, what: str) -> None:
        self.wrong.append(f"row {self.number}, column {name!r}: {what}")

    def number_of(self, name: str, low: float, high: float) -> float | None:
        text = self.text(name)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            self.fault(name, f"needs a number from {low:g} to {high:g}, or nothing")
            return None
        return value

    def path(self, name: str, folder: Path, ready: Callable[[Path], bool], what: str) -> Path | None:
        place = folder / self.text(name) if self.text(name) else None
        if place is not None and not ready(place):
            self.fault(name, f"there is no such {what}; paths are relative to the table")
            return None
        return place

    def choice(self, name: str, known: Sequence[str]) -> str:
        text = self.text(name).lower().replace(" ", "_").replace("-", "_")
        value = _ALSO.get(text, text)
        if value and value not in known:
            self.fault(name, f"must be one of {', '.join(known)}{nearest(value, known)}")
        return value


def _line(number: int, row: Mapping[str, str], folder: Path, regions: tuple[str, ...]) -> _Line:
    cells = _Cells(number, row)
    patient = cells.text("patient_id")
    for name in REQUIRED:
        if not cells.text(name):
            cells.fault(name, "is empty")
    study = cells.path("study", folder, Path.exists, "file or folder")
    masks = cells.path("masks", folder, Path.is_dir, "folder")
    time, event = cells.number_of("time_days", 0, 1e5), _EVENTS.get(cells.text("event").lower())
    if cells.text("event") and event is None:
        cells.fault("event", "must be 0 or 1, or empty")
    if (time is None) != (event is None):
        cells.fault("event" if event is None else "time_days", "time_days and event go together: give both or neither")
    scan = Scan(number, study or folder, cells.choice("phase", PHASE_NAMES), masks, _centers(cells, regions))
    age = cells.number_of("age_years", 0, 130)
    return _Line(
        TableCase(patient, _report(cells, folder), cells.choice("split", SPLITS), (scan,), age, time, event), tuple(cells.wrong)
    )


def _centers(cells: _Cells, regions: tuple[str, ...]) -> dict[str, tuple[float, float, float]]:
    centers = {}
    for region in regions:
        x, y, z = (cells.number_of(f"{region}_{axis}_mm", -1e4, 1e4) for axis in "xyz")
        if x is not None and y is not None and z is not None:
            centers[region] = (x, y, z)
        elif (x, y, z) != (None, None, None):
            cells.fault(f"{region}_x_mm", "a centre needs x, y and z, or none of them")
    return centers


def _report(cells: _Cells, folder: Path) -> str:
    """The report's text, from the column or its file."""
    text = cells.text("report")
    name = "report_file" if not text and "report_file" in cells.row else "report"
    place = cells.path(name, folder, Path.is_file, "file") if name == "report_file" else None
    if place is not None:
        try:
            text = place.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            cells.fault(name, "the file is not UTF-8 text")
            return ""
    if not text.strip() and not any(f"column {name!r}" in fault for fault in cells.wrong):
        cells.fault(name, "is empty; every row needs a report")
    return text


def _between_rows(lines: Sequence[_Line]) -> Iterator[str]:
    """What is wrong between rows: a patient in two splits, one scan twice."""
    splits: dict[str, TableCase] = {}
    scans: dict[tuple[Path, str], int] = {}
    for line in lines:
        case, scan = line.case, line.case.scans[0]
        first = splits.setdefault(case.patient_id, case) if case.split and case.patient_id else case
        if first.split != case.split:
            yield f"rows {first.scans[0].row} and {scan.row}: the same patient is in two splits ({first.split} and {case.split})"
        before = scans.setdefault((scan.study, scan.phase), scan.row)
        if before != scan.row and not line.wrong:
            yield f"rows {before} and {scan.row}: the same study twice; name different phases or leave one out"


def _with_splits(cases: Sequence[TableCase], seed: int) -> list[TableCase]:
    """Every row with the split of its patient, which one row may give for all; else the one that the hash says."""
    given = {case.patient_id: case.split for case in cases if case.split}
    return [replace(case, split=given.get(case.patient_id) or split_of(seed, case.patient_id)) for case in cases]


def grouped(lines: Sequence[TableCase]) -> tuple[TableCase, ...]:
    """Cases of one scan each as cases: scans of a patient with one report and different phases become one, in their order.

    Of labels and facts the first row that has one is believed.
    """
    groups: dict[tuple[str, str], list[list[TableCase]]] = {}
    order: list[list[TableCase]] = []
    for line in lines:
        phase = line.scans[0].phase
        mine = groups.setdefault((line.patient_id, line.report), [])
        home = next((g for g in mine if phase and all(c.scans[0].phase not in ("", phase) for c in g)), None)
        if home is None:
            home = []
            mine.append(home)
            order.append(home)
        home.append(line)
    return tuple(_one_case(group) for group in order)


def _one_case(group: Sequence[TableCase]) -> TableCase:
    first = group[0]
    labels: dict[str, dict[str, int]] = {}
    sources: dict[str, dict[str, str]] = {}
    facts: dict[str, Fact] = {}
    for case in reversed(group):
        for region, given in case.labels.items():
            labels.setdefault(region, {}).update(given)
            sources.setdefault(region, {}).update({name: case.label_sources[region][name] for name in given})
        facts |= case.facts
    scans = tuple(case.scans[0] for case in group)
    person = joined(case.person for case in group)
    made = TableCase(first.patient_id, first.report, first.split, scans, *_outcome(group), labels, sources, facts, person)
    return replace(made, dataset_case=first.dataset_case)


def _outcome(group: Sequence[TableCase]) -> tuple[float | None, float | None, bool | None]:
    """Age, time and event of the first row that has them."""
    age = next((c.age_years for c in group if c.age_years is not None), None)
    known = next((c for c in group if c.time_days is not None), group[0])
    return age, known.time_days, known.event
