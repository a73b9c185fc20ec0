"""The summary of a run, from the ledger."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from medvl.batch.summary import Summary
from medvl.batch.tables import ENDS, Sending, State

if TYPE_CHECKING:
    from medvl.batch.run import Run


def summary_of(run: Run) -> Summary:
    """How the studies of this run stand now; those that another run has in hand count as waiting."""
    cases, bare = [], 0
    for row in run.ledger.studies():
        if row["case_id"] not in run.finder.seen:
            continue
        made = row["objects"] and row["way"] == run.way
        bare += run.way is not None and row["state"] == State.done and not made
        before = run.finder.seen[row["case_id"]]
        status = row["state"] if row["state"] in ENDS else "waiting"
        status = before if before and status == "done" else status
        hashes = {name: row[name] for name in ("pixels", "bundle", "contract")}
        cases.append({"case_id": row["case_id"], "status": status, "reason": row["reason"] if status != "done" else "", **hashes})
    owed = [row for row in run.dues.rows() if row["case_id"] in run.finder.seen]
    n_done = sum(case["status"] == "done" for case in cases)
    return Summary(
        cases,
        Counter(str(row["state"]) for row in owed),
        Counter(str(row["reason"]) for row in owed if row["state"] != Sending.sent and row["reason"]),
        run.meter.receipt(n_done, run.options.readers, f"{run.predictor.device}{', bfloat16' if run.predictor.bf16 else ''}"),
        run.stop.code,
        bare,
    )
