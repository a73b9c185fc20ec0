"""Converted rows put together: the table of cases, its hash, what leaked, what was left out."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.data.identity import keyed_id
from medvl.data.person import joined
from medvl.dataset.labels import Given
from medvl.dataset.leaks import Pair
from medvl.dataset.manifest import Issue, Row
from medvl.dataset.schema import CASES, CLINICAL, LABEL, LEAKS, REJECTS, SCANNER, SOURCE, VOLUMES
from medvl.dataset.splits import Policy
from medvl.files import whole
from medvl.imaging.volume_file import SUFFIX

if TYPE_CHECKING:
    import pandas as pd

REJECT_COLUMNS = ("row", "case_id", "used", "code", "message")
LEAK_COLUMNS = ("kind", "case_id", "other_case_id", "split", "other_split", "likeness", "state")
_OLDEST = 90.0
_NUMBERS = ("kvp", "slice_thickness_mm")


@dataclass(frozen=True)
class Case:
    """A row that was converted: the row, its note (see `convert`), its labels and its split."""

    row: Row
    note: Mapping[str, Any]
    given: Given
    split: str


def record(case: Case, key: bytes, clean: bool) -> dict[str, Any]:
    """The case as a line of the table, without labels, covariates and centres."""
    row, note = case.row, case.note
    facts, grid = note["facts"], note["grid"]
    hints = facts.get("phase_hints") or [""]
    age = row.age_years
    return {
        "row": row.number,
        "case_id": note["case_id"],
        "patient_id": keyed_id(key, f"patient:{row.patient}"),
        "person": note.get("person", ""),
        "study": f"{VOLUMES}/{note['case_id']}{SUFFIX}",
        "report": note["report"],
        "split": case.split,
        "phase": row.phase or _PHASE_OF_HINT.get(hints[0], ""),
        "phase_from": "manifest" if row.phase else "header" if hints[0] in _PHASE_OF_HINT else "",
        "time_days": row.time_days,
        "event": row.event,
        "age_years": min(age, _OLDEST) if age is not None and clean else age,
        "sex": row.sex,
        "site": row.site,
        **{name: facts.get(name) for name in SCANNER},
        **{f"spacing_{axis}_mm": value for axis, value in zip("dhw", grid["spacing_mm"], strict=True)},
        **{f"n_{axis}": value for axis, value in zip("dhw", grid["shape_dhw"], strict=True)},
        "warnings": ";".join(note["warnings"]),
        "series": note["series"],
        "volume_sha256": note["sha256"],
    }


_PHASE_OF_HINT = {
    "native": "noncontrast",
    "arterial": "arterial",
    "portal_venous": "portal_venous",
    "nephrographic": "nephrographic",
    "delayed": "delayed",
}


def frame_of(cases: Sequence[Case], key: bytes, clean: bool) -> pd.DataFrame:
    """The table of cases; label columns are there where any case has that label."""
    import pandas as pd

    frame = pd.DataFrame([record(case, key, clean) for case in cases])
    frame["person"] = frame.groupby("patient_id")["person"].transform(joined)
    if not frame["person"].any():  # no patient key was given
        frame = frame.drop(columns="person")
    for name in ("event",):
        frame[name] = frame[name].astype("boolean")
    for name in ("time_days", "age_years", *_NUMBERS):
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype("float64")
    frame["contrast"] = frame["contrast"].astype("boolean")
    for name in ("manufacturer", "model", "kernel"):
        frame[name] = frame[name].map(lambda value: str(value) if isinstance(value, str) else "")
    columns: dict[str, Any] = {}
    for finding, region in sorted({place for case in cases for place in case.given.labels}):
        place = f"{finding}@{region}"
        columns[LABEL + place] = pd.array([case.given.labels.get((finding, region)) for case in cases], "Int8")
        columns[SOURCE + place] = [case.given.sources.get((finding, region), "") for case in cases]
    for name in sorted({name for case in cases for name in case.row.clinical}):
        values = [case.row.clinical.get(name) for case in cases]
        text = any(isinstance(value, str) for value in values)
        columns[CLINICAL + name] = ["" if v is None else str(v) for v in values] if text else pd.array(values, "Float64")
    for name in sorted({name for case in cases for name in case.row.centers}):
        columns[name] = pd.array([case.row.centers.get(name) for case in cases], "Float64")
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)


def data_hash(frame: pd.DataFrame) -> str:
    """Hash of what training sees; the same whatever the folder's key, the order of the rows and of the work.

    Rows are hashed without ids, then the set of each patient's rows, then the set of patients.
    """
    left_out = {"row", "case_id", "patient_id", "person", "study", "series"}
    patients: dict[str, list[str]] = defaultdict(list)
    for line in frame.to_dict("records"):
        seen = {str(name): _plain(value) for name, value in line.items() if name not in left_out}
        seen = {name: value for name, value in seen.items() if value not in (None, "")}
        patients[str(line["patient_id"])].append(_sha(seen))
    return _sha(sorted(_sha(sorted(rows)) for rows in patients.values()))


def _plain(value: Any) -> Any:
    import numpy as np
    import pandas as pd

    if not isinstance(value, str) and pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_frame(folder: Path, frame: pd.DataFrame) -> None:
    """`cases.parquet`, whole or not at all."""
    with whole(folder / CASES) as part:
        frame.to_parquet(part, index=False)


def leak_lines(
    pairs: Sequence[Pair], cases: Sequence[Mapping[str, Any]], splits: Sequence[str], given: Sequence[str], policy: Policy
) -> list[dict[str, Any]]:
    """Lines of `leaks.csv`: ``together`` in one split, ``joined`` by us, ``open`` or ``allowed`` across splits."""
    out = []
    for pair in pairs:
        a, b = splits[pair.first], splits[pair.second]
        parted = bool(given[pair.first] and given[pair.second] and given[pair.first] != given[pair.second])
        state = ("joined" if parted else "together") if a == b else "allowed" if policy == "allow" else "open"
        ids = cases[pair.first]["case_id"], cases[pair.second]["case_id"]
        out.append(dict(zip(LEAK_COLUMNS, (pair.kind, *ids, a, b, pair.likeness, state), strict=True)))
    return out


def leak_summary(lines: Sequence[Mapping[str, Any]], policy: Policy) -> dict[str, Any]:
    """What `dataset.json` says of them."""
    across = [line for line in lines if line["split"] != line["other_split"]]
    return {
        "policy": policy,
        "pairs": dict(sorted(Counter(str(line["kind"]) for line in lines).items())),
        "across_splits": len(across),
        "joined": sum(line["state"] == "joined" for line in lines),
        "open": bool(across) and policy != "allow",
    }


def write_leaks(folder: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """`leaks.csv`."""
    _write(folder / LEAKS, LEAK_COLUMNS, lines)


def reject_lines(issues: Iterable[Issue], refused: Iterable[tuple[Row, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Lines of `rejects.csv`: cells that were left out (used 1), rows and studies that were (used 0)."""
    out = [dict(zip(REJECT_COLUMNS, (i.row, "", int(not i.fatal), i.code, i.message), strict=True)) for i in issues]
    for row, note in refused:
        values = (row.number, note["case_id"], 0, note["code"], note["message"])
        out.append(dict(zip(REJECT_COLUMNS, values, strict=True)))
    return sorted(out, key=lambda line: (line["row"], line["code"], line["message"]))


def write_rejects(folder: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """`rejects.csv`."""
    _write(folder / REJECTS, REJECT_COLUMNS, lines)


def _write(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> None:
    with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)
