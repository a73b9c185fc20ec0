"""`medvl index`: embedded cohorts into an index of cases, and its upkeep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.errors import ConfigError

from .console import emit_json, say, table, track, warn

if TYPE_CHECKING:
    from medvl.evaluation.embedded import Embedded
    from medvl.retrieval.entry import Entry, Space

AT_ONCE = 4096
SOURCE_COLUMNS = ("study", "phase", "sex", "source_sha256")


def build(folders: Sequence[Path], out: Path, *, replace: bool = False) -> int:
    """Exit code 0 after adding what `medvl embed` wrote to the index in `out`, made when missing.

    Raises:
        ConfigError: a cohort of another model than the index's, or cases that are there already.
    """
    from medvl import __version__
    from medvl.evaluation.embedded import Embedded
    from medvl.retrieval.store import Index

    for folder in folders:
        cohort = Embedded.load(folder)
        cases, kept = entries_of(cohort)
        if not cases:
            raise ConfigError(f"{folder} has no region with an image or a report vector; nothing to index")
        space = space_of(cohort)
        with Index.create(out, space, software=f"medvl {__version__}") as index:
            for start in track(range(0, len(cases), AT_ONCE), f"indexing {folder.name}", n_total=math.ceil(len(cases) / AT_ONCE)):
                part = kept[start : start + AT_ONCE]
                images = cohort.embedding[part].copy()
                images[~cohort.usable[part]] = math.nan
                vectors = {"image": images, "report": cohort.report_embedding[part]}
                index.add(cases[start : start + AT_ONCE], vectors, space, replace=replace)
            say(
                f"{folder}: {len(cases)} cases added, {len(cohort) - len(cases)} without a vector left out; {len(index)} in {out}"
            )
    return 0


def space_of(cohort: Embedded) -> Space:
    """What the cohort's vectors were made by."""
    from medvl.retrieval.entry import Space

    known = cohort.source
    missing = [name for name in ("model_sha256", "contract_hash") if not known.get(name)]
    if missing:
        raise ConfigError(f"the embedded cohort does not say its {', '.join(missing)}; make it anew with medvl embed")
    return Space(known.get("model", ""), known["model_sha256"], known["contract_hash"], cohort.embedding.shape[1])


def entries_of(cohort: Embedded) -> tuple[list[Entry], Any]:
    """Cases of every region with an image or report vector, and their row numbers (n,).

    What the report says of the findings can be filtered by, and so can every column of the patients.
    """
    import numpy as np

    from medvl.retrieval.entry import Entry

    told = np.isfinite(cohort.report_embedding).all(1)
    kept = np.flatnonzero((cohort.usable & np.isfinite(cohort.embedding).all(1)) | told)
    people = {patient: _known(values) for patient, values in cohort.patients.to_dict("index").items()}
    cases = []
    for row, values in zip(kept, cohort.rows.iloc[kept].to_dict("records"), strict=True):
        person, region = people[values["patient_id"]], str(values["region"])
        side = region.rpartition("_")[2]
        cases.append(
            Entry(
                f"{values['patient_id']}/{region}",
                str(values["patient_id"]),
                region=region,
                side=side if side in ("left", "right") else "",
                kind=str(values["kind"]),
                cohort=cohort.source.get("cohort", ""),
                split=cohort.source.get("split", ""),
                report=str(values["report"]),
                age_years=float(person["age_years"]) if "age_years" in person else None,
                **{name: str(values.get(name) or person.get(name, "")) for name in SOURCE_COLUMNS},  # type: ignore[arg-type]
                findings={key: int(v) for key, v in zip(cohort.findings, cohort.said[row], strict=True) if v >= 0},
                extra={k: v for k, v in person.items() if k not in (*SOURCE_COLUMNS, "age_years")},
            )
        )
    return cases, kept


def _known(values: dict[Any, Any]) -> dict[str, str | float]:
    """Text and numbers of a patient that are known; a truth value becomes 1 or 0."""
    out: dict[str, str | float] = {}
    for name, value in values.items():
        if isinstance(value, str):
            out[str(name)] = value
        elif value is not None and not isinstance(value, list | tuple | dict) and math.isfinite(float(value)):
            out[str(name)] = float(value)
    return out


def info(folder: Path, *, as_json: bool = False) -> int:
    """Print what an index holds."""
    from medvl.retrieval.store import Index

    with Index.open(folder) as index:
        told = index.about()
    if as_json:
        emit_json(told)
    else:
        table(["index", str(folder)], [[name.replace("_", " "), value] for name, value in told.items()])
    return 0


def compact(folder: Path) -> int:
    """Drop the vectors of deleted cases."""
    from medvl.retrieval.store import Index

    with Index.open(folder) as index:
        say(f"{folder}: {index.compact()} rows dropped, {len(index)} cases left")
    return 0


def verify(folder: Path) -> int:
    """Exit code 0 if every vector is as it was added.

    Raises:
        ConfigError: something is wrong; it was printed.
    """
    from medvl.retrieval.store import Index

    with Index.open(folder) as index:
        wrong, n = index.verify(), len(index)
    for text in wrong:
        warn(text)
    if wrong:
        raise ConfigError(f"the index in {folder} is damaged in {len(wrong)} places; build it again")
    say(f"{folder}: {n} cases, all vectors as they were added")
    return 0


def delete(folder: Path, *, patients: Sequence[str], cases: Sequence[str]) -> int:
    """Take out patients or cases, vectors included.

    Raises:
        ConfigError: none of them is in the index, or none was named.
    """
    from medvl.retrieval.store import Index

    with Index.open(folder) as index:
        gone = index.delete(ids=cases, patients=patients)
        if not gone:
            raise ConfigError("none of these patients or cases is in the index; nothing was deleted")
        index.compact()
        say(f"{folder}: {gone} cases deleted, {len(index)} left")
    return 0
