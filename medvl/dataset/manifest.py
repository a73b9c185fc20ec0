"""The rows of a manifest, checked: what can be used, and for every cell that cannot, its row, column and a reason code.

No message repeats a cell: patient ids, paths and report texts may identify a patient.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medvl.data.table import PHASE_NAMES, Fact
from medvl.data.table_file import nearest
from medvl.dataset import cells
from medvl.dataset.columns import DATES, Mapped
from medvl.dataset.sheet import Sheet
from medvl.errors import ConfigError
from medvl.network.errors import is_uid

MAX_REPORT_BYTES = 4 << 20
MAX_DAYS = 1e5
MAX_LEVELS, MAX_LEVEL_LENGTH = 30, 40
_WEB = ("http://", "https://", "dicomweb+")
_TIMES = {"time_days": 1.0, "time_months": 365.25 / 12, "time_years": 365.25}


@dataclass(frozen=True)
class Issue:
    """What is wrong in a row. `fatal`: the row cannot be used; else only the cell is left out."""

    row: int
    code: str
    message: str
    fatal: bool = False


@dataclass(frozen=True)
class Row:
    """One scan of the manifest. Everything that may identify stays in memory and is not shown.

    Args:
        number: row of the sheet, its header being 1.
        patient: any name of the patient; accession: number of the examination; both never written.
        study: a path, a Study Instance UID, or an address; report: the text as it came.
        split, phase, site, sex: as known words, empty where not known.
        labels: (finding, region or empty) to 1, 0 or 2.
        clinical: further values; centers: columns of region centres to mm.
        identity: texts that identify the patient, to be taken out of the report.
    """

    number: int
    patient: str = field(repr=False)
    study: str = field(repr=False)
    report: str = field(default="", repr=False)
    split: str = ""
    phase: str = ""
    site: str = field(default="", repr=False)
    sex: str = ""
    age_years: float | None = None
    time_days: float | None = None
    event: bool | None = None
    accession: str = field(default="", repr=False)
    labels: Mapping[tuple[str, str], int] = field(default_factory=dict, repr=False)
    clinical: Mapping[str, Fact] = field(default_factory=dict, repr=False)
    centers: Mapping[str, float] = field(default_factory=dict, repr=False)
    identity: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Manifest:
    """Rows that can be used, what is wrong in the others and in single cells, and how the columns were read."""

    rows: tuple[Row, ...] = field(repr=False)
    issues: tuple[Issue, ...]
    notes: tuple[str, ...]
    n_rows: int


@dataclass(frozen=True)
class Reader:
    """How rows are read.

    Args:
        mapped: which column is what.
        root: folder that paths are relative to.
        web: whether studies may be UIDs or addresses.
        dates: order of day and month, empty to find out.
        numeric, free: covariates that are numbers, and that hold free text; orders: date column to its order. Found by `read`.
    """

    mapped: Mapped
    root: Path
    web: bool = False
    dates: cells.DateOrder = ""
    numeric: frozenset[str] = frozenset()
    free: frozenset[str] = frozenset()
    orders: Mapping[str, cells.DateOrder] = field(default_factory=dict)

    def read(self, sheet: Sheet) -> Manifest:
        """Check every row.

        Raises:
            ConfigError: there are no rows, none can be used, or the order of a column's dates is not clear.
        """
        if not sheet.rows:
            raise ConfigError("the manifest has no rows below its header")
        ready, notes = self._prepared(sheet)
        rows, issues = list[Row](), list[Issue]()
        for k, line in enumerate(sheet.rows, start=2):
            if not any(line.values()):
                continue
            row, found = _Reading(k, line, ready).row()
            issues += found
            rows += [row] if row is not None else []
        rows, repeated = _between(rows)
        issues = sorted([*issues, *repeated], key=lambda issue: issue.row)
        if not rows:
            told = "; ".join(f"row {i.row}: {i.message}" for i in issues[:5])
            raise ConfigError(f"no row of the manifest can be used. {told}")
        return Manifest(tuple(rows), tuple(issues), (*sheet.notes, *notes), len(sheet.rows))

    def _prepared(self, sheet: Sheet) -> tuple[Reader, list[str]]:
        """Orders of dates, and which covariates are numbers: nine in ten of their cells read as one."""
        notes, orders, numeric, free = list[str](), dict[str, cells.DateOrder](), set[str](), set[str]()
        for name in DATES:
            for column in self.mapped.fields.get(name, ()):
                orders[column] = cells.date_order(column, (line[column] for line in sheet.rows), self.dates)
                if orders[column]:
                    notes.append(f"column {column!r}: dates read {'day' if orders[column] == 'dmy' else 'month'} first")
        for name, column in self.mapped.clinical.items():
            told = [line[column] for line in sheet.rows if line[column]]
            if told and sum(cells.number(text) is not None for text in told) >= 0.9 * len(told):
                numeric.add(name)
            elif len(set(told)) > MAX_LEVELS or any(len(text) > MAX_LEVEL_LENGTH for text in told):
                free.add(name)
                notes.append(f"column {column!r} holds free text, which may identify; it is not used as a covariate")
        fields = self.mapped.fields
        if "last_seen_date" in fields or "death_date" in fields:
            start = next((n for n in ("scan_date", "diagnosis_date") if n in fields), None)
            nothing = "follow-up dates have no scan_date to count from: not used"
            notes.append(f"follow-up is counted from {start}" if start else nothing)
        for k, name in enumerate(n for n in _TIMES if n in fields):
            if k:
                notes.append(f"{name} is used where the columns before it are empty")
        return replace(self, numeric=frozenset(numeric), free=frozenset(free), orders=orders), notes


class _Reading:
    """One row being read."""

    def __init__(self, number: int, line: Mapping[str, str], how: Reader) -> None:
        self.number, self.line, self.how = number, line, how
        self.issues: list[Issue] = []

    def cell(self, name: str) -> tuple[str, str]:
        """Text and column of the first filled column of a field."""
        columns = self.how.mapped.fields.get(name, ())
        column = next((c for c in columns if self.line[c]), columns[0] if columns else "")
        return self.line.get(column, ""), column

    def bad(self, column: str, what: str, code: str = "bad_cell", fatal: bool = False) -> None:
        self.issues.append(Issue(self.number, code, f"column {column!r}: {what}", fatal))

    def row(self) -> tuple[Row | None, list[Issue]]:
        """The row, or None where it cannot be used; and what is wrong."""
        patient, column = self.cell("patient_id")
        if not patient:
            self.bad(column, "is empty", "bad_row", fatal=True)
        elif "e+" in patient.lower() and cells.number(patient) is not None:
            self.bad(column, "a number that a spreadsheet shortened; export ids as text", "bad_row", fatal=True)
        study, days = self._study(), self._days()
        time, event = self._outcome(days)
        word = {n: self._word(n) for n in ("split", "phase", "sex")}
        labels, clinical, centers = self._labels(), dict(self._clinical()), dict(self._centers())
        row = Row(
            self.number, patient, study, self._report(), word["split"], word["phase"], self.cell("site")[0], word["sex"],
            self._age(days), time, event, self.cell("accession")[0], labels, clinical, centers, self._identity(),
        )  # fmt: skip
        return (None if any(issue.fatal for issue in self.issues) else row), self.issues

    def _study(self) -> str:
        text, column = self.cell("study")
        if not text:
            self.bad(column, "is empty", "bad_row", fatal=True)
        elif text.startswith(_WEB) or (is_uid(text) and not (self.how.root / text).exists()):
            if not self.how.web:
                self.bad(column, "names a study of a PACS; say which one with --dicomweb URL", "bad_row", fatal=True)
        elif not (self.how.root / text).exists():
            self.bad(column, "there is no such file or folder; --root says what paths are relative to", "not_found", fatal=True)
        return text

    def _report(self) -> str:
        text, column = self.cell("report")
        if not text or "\n" in text or len(text) > 1024 or not text.lower().endswith((".txt", ".md", ".rtf", ".xml")):
            return text
        path = self.how.root / text
        if path.suffix.lower() in (".rtf", ".xml"):
            self.bad(column, f"a report in {path.suffix} is not read; give plain text", "bad_report")
        elif not path.is_file():
            self.bad(column, "there is no such report file", "bad_report")
        elif path.stat().st_size > MAX_REPORT_BYTES:
            self.bad(column, f"the report file is larger than {MAX_REPORT_BYTES >> 20} MiB", "bad_report")
        else:
            data = path.read_bytes()
            try:
                return data.decode("utf-8-sig").strip()
            except UnicodeDecodeError:
                return data.decode("cp1252", "replace").strip()
        return ""

    def _word(self, name: str) -> str:
        text, column = self.cell(name)
        found = {"split": cells.split, "phase": cells.phase, "sex": cells.sex}[name](text) if text else ""
        if found is None:
            known = {"split": ("train", "validation", "test"), "phase": PHASE_NAMES, "sex": ("F", "M", "O")}[name]
            self.bad(column, f"must be one of {', '.join(known)}{nearest(text, known)}")
        return found or ""

    def _number(self, name: str, low: float, high: float) -> float | None:
        text, column = self.cell(name)
        value = cells.number(text.removesuffix("Y") if name == "age_years" else text) if text else None
        if text and (value is None or not low <= value <= high):
            self.bad(column, f"needs a number from {low:g} to {high:g}")
            return None
        return value

    def _days(self) -> dict[str, datetime.date]:
        """The dates of the row by name."""
        found = {}
        for name in DATES:
            text, column = self.cell(name)
            value = cells.date(text, self.how.orders.get(column, "")) if text else None
            if text and value is None:
                self.bad(column, "is no date that can be read")
            elif value is not None:
                found[name] = value
        return found

    def _age(self, days: Mapping[str, datetime.date]) -> float | None:
        told = self._number("age_years", 0, 130)
        if told is not None or "birth_date" not in days or "scan_date" not in days:
            return told
        age = (days["scan_date"] - days["birth_date"]).days / 365.25
        if not 0 <= age <= 130:
            self.bad(self.cell("birth_date")[1], "gives an age that is not from 0 to 130 years")
            return None
        return round(age, 1)

    def _outcome(self, days: Mapping[str, datetime.date]) -> tuple[float | None, bool | None]:
        """Follow-up in days and whether the event happened; both or neither."""
        text, column = self.cell("event")
        event = cells.event(text) if text else None
        if text and event is None:
            self.bad(column, "must say 0 or 1, alive or dead")
        time = next((v * f for n, f in _TIMES.items() if (v := self._number(n, 0, MAX_DAYS / f)) is not None), None)
        start = days.get("scan_date", days.get("diagnosis_date"))
        if time is None and start is not None and ("death_date" in days or "last_seen_date" in days):
            event = event if event is not None else "death_date" in days
            names = ("death_date", "last_seen_date") if event else ("last_seen_date", "death_date")
            last = next(name for name in names if name in days)
            time = float((days[last] - start).days)
            if time < 0:
                self.bad(self.cell(last)[1], "follow-up ends before it begins", "bad_outcome")
                return None, None
        if (time is None) != (event is None) and not any(i.code == "bad_cell" for i in self.issues):
            self.issues.append(Issue(self.number, "bad_outcome", "time and event go together; one is missing, neither is used"))
        return (time, event) if time is not None and event is not None else (None, None)

    def _labels(self) -> dict[tuple[str, str], int]:
        found = {}
        for one in self.how.mapped.labels:
            text = self.line[one.column]
            value = cells.label(text) if text else None
            if text and value is None:
                self.bad(one.column, "must be 0 or 1, absent or present, no or yes, or uncertain", "bad_label")
            elif value is not None:
                found[one.finding, one.region] = value
        return found

    def _clinical(self) -> Iterator[tuple[str, Fact]]:
        for name, column in self.how.mapped.clinical.items():
            text = self.line[column]
            if not text or name in self.how.free:
                continue
            if name not in self.how.numeric:
                yield name, text
            elif (value := cells.number(text)) is not None:
                yield name, value
            else:
                self.bad(column, "needs a number, as its other cells are")

    def _centers(self) -> Iterator[tuple[str, float]]:
        for column in self.how.mapped.centers:
            value = cells.number(self.line[column]) if self.line[column] else None
            if value is not None:
                yield column, value
            elif self.line[column]:
                self.bad(column, "needs a number in mm")

    def _identity(self) -> tuple[str, ...]:
        """Cells that identify: ids, names, dates, and the parts of the study's path that are told by the row."""
        told = [self.line[c] for c in self.how.mapped.identifiers]
        told += [self.cell(n)[0] for n in ("patient_id", "accession", *DATES)]
        return tuple(dict.fromkeys(text for text in told if text))


def _between(rows: Sequence[Row]) -> tuple[list[Row], list[Issue]]:
    """Rows without those that give the same scan twice; a patient in two given splits is no row's fault, and is told later."""
    first: dict[tuple[str, str], int] = {}
    kept, issues = list[Row](), list[Issue]()
    for row in rows:
        before = first.setdefault((row.study, row.phase), row.number)
        if before == row.number:
            kept.append(row)
        else:
            issues.append(Issue(row.number, "repeated_study", f"the same study as row {before}; name different phases", True))
    return kept, issues


def issue_counts(issues: Sequence[Issue]) -> dict[str, int]:
    """How many of each code."""
    return dict(sorted(Counter(issue.code for issue in issues).items()))
