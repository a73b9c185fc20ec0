"""Cohorts from a checked table: each case's regions cropped through the one preprocessing path, labels read from its report.

A cache folder holds one `table-*` folder a split, `key` (mode 0600, from which ids are derived) and `rejects.csv`. What the
folders know of a patient is a keyed id, the crops, the report and what the table says of age and outcome; no path and no id.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.data.cache import Row, fill_rows
from medvl.data.cohort import Cohort, common_grid, open_cohort, write_cohort, write_lines
from medvl.data.given import with_given
from medvl.data.identity import folder_key, keyed_id
from medvl.data.reuse import OUR_FAULT, ROWS_NAME, failed, known_rows, row_key, taken_over
from medvl.data.table import SPLITS, Scan, Table, TableCase
from medvl.data.table_file import nearest
from medvl.dicom.choose import Want
from medvl.errors import ConfigError, InputError, MedvlError
from medvl.files import whole
from medvl.imaging.load import Entry, load
from medvl.imaging.preprocess import MIN_COVERED, Contract, to_hu_grid
from medvl.imaging.resample import covered_fraction
from medvl.records import Volume
from medvl.text.labels import extract
from medvl.text.report import parse_report

Located = Mapping[str, tuple[ArrayLike, float]]
Locate = Callable[[Volume, Scan], Located]
TABLE_VERSION = 1
MIN_CONFIDENCE = 0.5
REJECT_COLUMNS = ("row", "split", "case_id", "used", "scan", "code", "message")
_HINTS = {"noncontrast": "native"}
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Build:
    """All that a worker needs to make the rows of one split; `known` says where rows made for other tables lie."""

    scans: tuple[tuple[Scan, ...], ...]
    keys: tuple[str, ...]
    contract: Contract
    locate: Locate | None
    min_confidence: float
    known: Mapping[str, tuple[Path, int]]
    n_phases: int

    @property
    def lead(self) -> tuple[int, ...]:
        """Axes of a row before the grid: (phases, regions), or (regions,) where no case of the table has several scans."""
        return (*((self.n_phases,) if self.n_phases > 1 else ()), len(self.contract.regions))

    def __call__(self, number: int) -> Row:
        """The crops of one case, taken over from an earlier build where nothing has changed since."""
        found = self.known.get(self.keys[number])
        if found is not None:
            row = taken_over(*found, self.lead)
            if row is not None:
                return row
        grid, scans = common_grid(self.contract), self.scans[number]
        shape = (self.n_phases, len(self.contract.regions))
        hu = np.full((*shape, *grid), self.contract.fill_hu, np.int16)
        covered, notes, used = np.zeros(shape, np.float32), [], set[str]()
        for k, scan in enumerate(scans):
            try:
                hu[k], covered[k] = self._scan(scan, used)
            except InputError as error:
                notes.append(f"{k}|{error.code}|{error.message}")
            except MedvlError:
                raise
            except Exception as error:
                notes.append(f"{k}|{OUR_FAULT}|{type(error).__name__} while reading or cropping the scan; please report it")
        return Row(hu.reshape(*self.lead, *grid), covered.reshape(self.lead), "\n".join(notes))

    def _scan(self, scan: Scan, used: set[str]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        entry = _chosen(scan)
        if entry.key in used:
            raise InputError(
                "no_volume", f"the study has no series of its own for phase {scan.phase!r}; give that series' folder"
            )
        used.add(entry.key)
        volume = entry.read()
        places = dict(self.locate(volume, scan)) if self.locate is not None else {}
        places.update({name: (center, 1.0) for name, center in scan.centers.items()})
        hu = np.full((len(self.contract.regions), *common_grid(self.contract)), self.contract.fill_hu, np.int16)
        covered = np.zeros(len(hu), np.float32)
        sure = [k for k, s in enumerate(self.contract.regions) if s.name in places and places[s.name][1] >= self.min_confidence]
        if not sure:
            raise InputError("region_not_found", f"no region was located with confidence {self.min_confidence:g} or more")
        for k in sure:
            spec = self.contract.regions[k]
            target = spec.geometry(places[spec.name][0])
            covered[k] = covered_fraction(volume.geometry, target)
            if covered[k] >= MIN_COVERED:
                hu[k] = to_hu_grid(volume, target, fill=self.contract.fill_hu)
        if covered.max() < MIN_COVERED:
            raise InputError(
                "region_incomplete", f"the scan covers {covered.max():.0%} of the best region, not {MIN_COVERED:.0%}"
            )
        return hu, covered


def build_table(
    folder: Path,
    table: Table,
    contract: Contract,
    locate: Locate | None = None,
    *,
    locate_key: str = "",
    beyond: Sequence[str] = (),
    min_confidence: float = MIN_CONFIDENCE,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Cohort]:
    """Build the cohort of every split that has cases (or go on with a broken-off build) and open them.

    A case whose scans cannot be used keeps its row, with covered 0 throughout and `case["rejected"]` set to a reason code;
    `rejects.csv` lists every scan that was left out and why.

    Args:
        folder: the cache; rows that an earlier build made of the same studies are taken over.
        table: from `open_table`.
        contract: the regions' grids.
        locate: volume and scan to {region: (centre LPS mm, confidence)}; centres in the table stand above it. With several
            workers it must be picklable.
        locate_key: changes when `locate` would say something else, such as the hash of a localiser's bundle.
        beyond: regions whose centres the table may give although the contract has no such region.
        min_confidence: a region less sure than this is not taken.
        workers: processes.
        progress: called with (split, done, total).

    Raises:
        ConfigError: grids differ, a centre column names no region, nothing says where regions lie, or no case can be used.
    """
    common_grid(contract)
    _check_places(table, contract, locate, beyond)
    facts = json.dumps([TABLE_VERSION, contract.hash, locate_key, min_confidence])
    n_phases = max(len(case.scans) for case in table.cases)
    cohorts, rejects = {}, list[dict[str, Any]]()
    for split in SPLITS:
        cases = table.of(split)
        if cases:
            keys = tuple(row_key(facts, case.scans) for case in cases)
            scans = tuple(case.scans for case in cases)
            build = _Build(scans, keys, contract, locate, min_confidence, known_rows(folder), n_phases)
            told = None if progress is None else partial(progress, split)
            cohorts[split], lost = _one_split(folder, split, cases, build, workers, told)
            rejects += lost
    _write_rejects(folder / "rejects.csv", rejects)
    if not any((cohort.covered > 0).any() for cohort in cohorts.values()):
        codes = ", ".join(sorted({row["code"] for row in rejects})) or "no reason kept"
        raise ConfigError(
            f"none of the {len(table.cases)} cases of the table can be used ({codes}); see rejects.csv in the cache"
        )
    return cohorts


def _one_split(
    folder: Path,
    split: str,
    cases: Sequence[TableCase],
    build: _Build,
    workers: int,
    told: Callable[[int, int], None] | None,
) -> tuple[Cohort, Iterable[dict[str, Any]]]:
    """The cohort of one split and its lines of `rejects.csv`."""
    contract = build.contract
    place = folder / ("table-" + hashlib.sha256(json.dumps([build.keys, build.lead]).encode()).hexdigest()[:16])
    shape = (len(cases), *build.lead, *common_grid(contract))
    rows = fill_rows(place, shape, build, workers=workers, chunk=1, progress=told, redo=failed, start="spawn")
    notes = [[line.split("|", 2) for line in note.splitlines()] for note in rows.notes]
    used = rows.covered.reshape(len(cases), -1).max(axis=1) > 0
    key = folder_key(folder / "key")
    told_cases = [_describe(case, key, n, bool(u)) for case, n, u in zip(cases, notes, used, strict=True)]
    write_lines(place / ROWS_NAME, [build.keys])
    write_cohort(place, told_cases, {"regions": contract.names, "split": split, "contract": contract.hash})
    return open_cohort(place), _rejects(split, cases, told_cases, notes, used)


def _check_places(table: Table, contract: Contract, locate: Locate | None, beyond: Sequence[str]) -> None:
    for name in table.center_regions:
        if name not in (*contract.names, *beyond):
            raise ConfigError(
                f"the table gives centres of {name!r}, which is no region of this recipe{nearest(name, contract.names)}"
            )
    if locate is None and not any(scan.centers for case in table.cases for scan in case.scans):
        names = ", ".join(contract.names)
        raise ConfigError(f"nothing says where {names} lie: give a bundle with a localiser, a masks column, or centre columns")


def _chosen(scan: Scan) -> Entry:
    """The series of the scan's phase, where the study has several.

    Raises:
        InputError: the study cannot be opened or holds no volume.
    """
    loaded = load(scan.study, Want(phase=_HINTS.get(scan.phase, scan.phase) or None))
    entry = loaded.chosen
    if entry is None:
        refused = sorted({e.reasons[0].code for study in loaded for e in study.entries if e.reasons})
        raise InputError("no_volume", f"the study holds no CT volume ({', '.join(refused) or 'no images'}); see `medvl inspect`")
    return entry


def _describe(case: TableCase, key: bytes, notes: Sequence[Sequence[str]], used: bool) -> dict[str, Any]:
    """What the cohort says of a case: as for phantoms, without truth but for what the table gives."""
    report = parse_report(case.report)
    known = {**case.facts, "age_years": case.age_years, "time_days": case.time_days, "event": case.event}
    first = case.scans[0]
    out = {
        "patient_id": keyed_id(key, f"patient:{case.patient_id}"),
        "case_id": keyed_id(key, f"case:{case.patient_id}:{first.study.resolve()}:{first.phase}"),
        "truth": {name: value for name, value in known.items() if value is not None},
        "report": case.report,
        "region_texts": report.regions,
        "labels": with_given(extract(report), case.labels),
        "phases": [scan.phase for scan in case.scans],
    }
    out |= {name: told for name in ("person", "dataset_case") if (told := getattr(case, name))}
    if case.label_sources:
        out["label_sources"] = {region: dict(sources) for region, sources in case.label_sources.items()}
    return out if used else {**out, "rejected": notes[0][1] if notes else "region_not_found"}


def _rejects(
    split: str,
    cases: Sequence[TableCase],
    told: Sequence[Mapping[str, Any]],
    notes: Sequence[Sequence[Sequence[str]]],
    used: NDArray[np.bool_],
) -> Iterator[dict[str, Any]]:
    for case, values, lines, kept in zip(cases, told, notes, used, strict=True):
        for number, code, message in lines:
            scan = case.scans[int(number)]
            row = (scan.row, split, values["case_id"], int(kept), scan.phase, code, message)
            yield dict(zip(REJECT_COLUMNS, row, strict=True))


def _write_rejects(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, REJECT_COLUMNS)
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["row"]))
