"""What a results folder holds after a fault, beside what an undisturbed run made of the same studies."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_OF_THE_RUN = ("made_at", "timings_s")
_ENDS = ("done", "skipped", "failed", "quarantined")


@dataclass
class Row:
    """One line of the table.

    Args:
        name: of the row.
        fault: what was done.
        injected: how often.
        studies: how many studies went through it, counted once for each results folder.
        lost: without an end, or with no result where the undisturbed run has one.
        duplicated: second results or records of a study, and second deliveries of one object under another UID.
        wrong: results that differ from the undisturbed run's.
        notes: what else was seen.
    """

    name: str
    fault: str
    injected: int = 0
    studies: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, checked: Checked) -> None:
        """Count the studies of one results folder."""
        self.studies += checked.studies
        self.lost += len(checked.lost)
        self.duplicated += len(checked.twice)
        self.wrong += len(checked.wrong)
        for what in (*checked.lost, *checked.twice, *checked.wrong, *checked.unsound):
            self.notes.append(f"FAULT: {what}")


@dataclass
class Checked:
    """What was found in one results folder."""

    studies: int
    lost: list[str]
    twice: list[str]
    wrong: list[str]
    unsound: list[str]


def records(out: Path) -> dict[str, dict[str, Any]]:
    """Every `findings.json` by case id, without what differs from run to run."""
    found = {}
    for path in sorted((out / "studies").glob("[0-9a-f]*/findings.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        found[path.parent.name] = {k: v for k, v in values.items() if k not in _OF_THE_RUN}
    return found


def ledger(out: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of the ledger."""
    with sqlite3.connect(out / "ledger.sqlite", timeout=30) as db:
        return db.execute(query).fetchall()


def check(out: Path, reference: dict[str, dict[str, Any]], *, others: bool = False, received: bool = False) -> Checked:
    """Compare a results folder with an undisturbed run under the same key, and look for anything half written.

    Args:
        out: results folder.
        reference: `records` of the undisturbed run.
        others: there may be studies that it does not have.
        received: the studies came over the network, where both sides choose the transfer syntax, which the record names.
    """
    found = records(out)
    states = {case: (state, reason) for case, state, reason in ledger(out, "SELECT case_id, state, reason FROM studies")}
    lost, wrong = [], []
    for case, wanted in reference.items():
        state, reason = states.get(case, ("missing", ""))
        if state not in _ENDS or case not in found:
            lost.append(f"{case} has no end ({state})")
        elif wanted["status"] == "done" != found[case]["status"]:
            lost.append(f"{case} ended {state} ({reason}) where it can be done")
        elif digest(found[case], received) != digest(wanted, received):
            wrong.append(f"{case} differs in {', '.join(sorted(k for k in wanted if wanted[k] != found[case].get(k)))}")
    done = Counter(case for (case,) in ledger(out, "SELECT case_id FROM events WHERE what = 'done'"))
    more = set() if others else (states.keys() | found.keys()) - reference.keys()
    twice = [f"{case} is no study of the inputs" for case in sorted(more)]
    twice += [f"{case} was done {n} times" for case, n in done.items() if n > 1]
    return Checked(len(reference), lost, twice, wrong, unsound(out))


def unsound(out: Path) -> list[str]:
    """Anything that is half written or damaged."""
    wrong = []
    ((told,),) = ledger(out, "PRAGMA integrity_check")
    if told != "ok":
        wrong.append("the ledger is damaged")
    for folder in (out / "studies").iterdir():
        if not folder.name.startswith(".") and not (folder / "findings.json").is_file():
            wrong.append(f"{folder.name} holds no record")
    for name in ("run.json", "sources.json"):
        path = out / name
        if path.exists():
            json.loads(path.read_text(encoding="utf-8"))
    wrong += [f"{case} still has an owner" for (case,) in ledger(out, "SELECT case_id FROM studies WHERE owner IS NOT NULL")]
    return wrong


def digest(values: dict[str, Any], received: bool = False) -> str:
    """SHA-256 of a record, without the transfer syntax of studies that were received."""
    if received and values.get("series"):
        facts = {k: v for k, v in values["series"]["facts"].items() if k != "transfer_syntaxes"}
        values = {**values, "series": {**values["series"], "facts": facts}}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
