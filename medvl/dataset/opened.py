"""A dataset that `medvl ingest` made, opened for training and evaluation."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.data.person import person_of
from medvl.data.table import Fact, Scan, Table, TableCase, grouped, open_table
from medvl.dataset.schema import CASES, CLINICAL, DATASET, LABEL, SCANNER, SCHEMA, SOURCE
from medvl.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

_CENTER = "_{axis}_mm"
Line = Mapping[Hashable, Any]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset folder.

    Args:
        folder: where it lies; facts: the content of `dataset.json`.
    """

    folder: Path
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def sha256(self) -> str:
        """Hash of everything that training sees: volumes, reports, labels, outcomes, facts, splits and who is whose patient."""
        return str(self.facts["sha256"])

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row a scan, columns as in `docs/reference/manifest.md`.

        Raises:
            ConfigError: the table of cases is missing or damaged.
        """
        import pandas as pd

        try:
            return pd.read_parquet(self.folder / CASES)
        except (OSError, ValueError) as error:
            raise ConfigError(f"the dataset's {CASES} cannot be read ({type(error).__name__}); run medvl ingest again") from error

    def table(self, *, allow_leaks: bool = False) -> Table:
        """The cases as `medvl.data.table_cohort.build_table` takes them, with given labels, their sources and all facts.

        Raises:
            ConfigError: cases of different splits are the same patient, image or report, and nobody allowed it.
        """
        leaks = self.facts.get("leaks", {})
        if leaks.get("open") and not allow_leaks:
            raise ConfigError(
                f"{leaks['across_splits']} pairs of cases in different splits look like one patient (leaks.csv in the dataset); "
                "run medvl ingest again with --join-leaks, or with --allow-leaks if you know better"
            )
        columns = tuple(str(name) for name in self.rows.columns)
        regions = _center_regions(columns)
        lines = [self._case(line, columns, regions) for line in self.rows.to_dict("records")]
        return Table(grouped(lines), regions)

    def _case(self, line: Line, columns: Sequence[str], regions: Sequence[str]) -> TableCase:
        labels, sources = _labels(line, columns)
        centers = {r: c for r in regions if (c := _center(line, r)) is not None}
        scan = Scan(int(line["row"]), self.folder / str(line["study"]), _text(line["phase"]), None, centers)
        event = _number(line["event"])
        return TableCase(
            str(line["patient_id"]),
            _text(line["report"]),
            str(line["split"]),
            (scan,),
            _number(line["age_years"]),
            _number(line["time_days"]),
            None if event is None else bool(event),
            labels,
            sources,
            _facts(line, columns),
            _text(line.get("person")),
            str(line["case_id"]),
        )


def is_dataset(path: Path) -> bool:
    """Whether a path is the folder of a dataset."""
    return (path / DATASET).is_file()


def open_dataset(folder: Path) -> Dataset:
    """Open what `medvl ingest` made.

    Raises:
        ConfigError: it is no dataset, not finished, or of another version.
    """
    try:
        facts = json.loads((folder / DATASET).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{folder.name} is no finished dataset: it has no {DATASET}; run medvl ingest to its end") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{DATASET} cannot be read ({type(error).__name__}); run medvl ingest again") from error
    if facts.get("schema") != SCHEMA:
        raise ConfigError(f"the dataset is of schema {facts.get('schema')!r}, not {SCHEMA!r}; run medvl ingest again")
    return Dataset(folder, facts)


def open_studies(path: Path, *, split_seed: int = 0, patient_key: bytes = b"") -> Table:
    """The cases of a dataset folder, or of a CSV or Parquet table (`open_table`), whose patients are linked by `patient_key`."""
    if path.is_dir():
        return open_dataset(path).table()
    table = open_table(path, split_seed=split_seed)
    return replace(table, cases=tuple(replace(case, person=person_of(patient_key, case.patient_id)) for case in table.cases))


def _labels(line: Line, columns: Sequence[str]) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, str]]]:
    labels: dict[str, dict[str, int]] = {}
    sources: dict[str, dict[str, str]] = {}
    for column in columns:
        value = _number(line[column]) if column.startswith(LABEL) else None
        if value is not None:
            place = column.removeprefix(LABEL)
            name, _, region = place.partition("@")
            labels.setdefault(region, {})[name] = int(value)
            sources.setdefault(region, {})[name] = str(line[SOURCE + place])
    return labels, sources


def _facts(line: Line, columns: Sequence[str]) -> dict[str, Fact]:
    """Sex, site, phase, scanner and clinical values that are known, under the names that protocols use."""
    named = {name: name for name in ("sex", "site", "phase", *SCANNER)}
    named |= {column.removeprefix(CLINICAL): column for column in columns if column.startswith(CLINICAL)}
    found: dict[str, Fact] = {}
    for name, column in named.items():
        value = line[column]
        if isinstance(value, str):
            found |= {name: value} if value else {}
        elif isinstance(value, bool) or _number(value) is not None:
            found[name] = bool(value) if isinstance(value, bool) else float(value)
    return found


def _center_regions(columns: Sequence[str]) -> tuple[str, ...]:
    ends = tuple(_CENTER.format(axis=axis) for axis in "xyz")
    starts = [column.removesuffix(ends[0]) for column in columns if column.endswith(ends[0])]
    return tuple(start for start in starts if all(start + end in columns for end in ends))


def _center(line: Line, region: str) -> tuple[float, float, float] | None:
    x, y, z = (_number(line[region + _CENTER.format(axis=axis)]) for axis in "xyz")
    return None if x is None or y is None or z is None else (x, y, z)


def _number(value: Any) -> float | None:
    """A number, or None for what is missing."""
    import pandas as pd

    return None if isinstance(value, str) or pd.isna(value) else float(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
