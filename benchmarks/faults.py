"""Faults injected into `medvl infer` and `medvl listen` as real processes: studies lost, duplicated and wrong afterwards.

    python benchmarks/faults.py --work runs/faults --seed 1
    python benchmarks/faults.py --work runs/faults --only five-hundred --figure docs/images/five-hundred.png

Every row compares the results folder after the fault with an undisturbed run of the same studies under the same key. Rows are
kept in the work folder; `--only` runs some anew and prints the table of all that are there, `--only ''` runs none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

from faults_check import Row
from faults_disk import disk_row, runners_row
from faults_hundreds import figure, hundreds_row
from faults_inputs import bad_row, copies_row, unreadable_row
from faults_kills import kills_row, readers_row
from faults_pacs import listen_row, pacs_row

ROWS: dict[str, Callable[[Path, int], Row]] = {
    "kills": kills_row,
    "readers": readers_row,
    "disk": disk_row,
    "corrupted": bad_row,
    "pacs": pacs_row,
    "copies": copies_row,
    "listen": listen_row,
    "runners": runners_row,
    "unreadable": unreadable_row,
    "five-hundred": hundreds_row,
}
BEGIN, END = "<!-- made by benchmarks/faults.py -->", "<!-- end -->"


def markdown(rows: list[Row]) -> str:
    """The table, and what else was seen in each row."""
    lines = ["| fault | times | studies | lost | duplicated | wrong |", "|---|---|---|---|---|---|"]
    lines += [f"| {r.fault} | {r.injected} | {r.studies} | {r.lost} | {r.duplicated} | {r.wrong} |" for r in rows]
    for row in rows:
        lines += ["", f"**{row.name}** ({row.seconds / 60:.1f} min):", "", *(f"- {note}" for note in row.notes)]
    return "\n".join(lines)


def main() -> None:
    """Run rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for studies, results and rows")
    parser.add_argument("--only", help=f"rows, joined by commas: {', '.join(ROWS)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--figure", type=Path, help="draw memory and progress of the five hundred here")
    parser.add_argument("--page", type=Path, help="put the table into this Markdown page, between its markers")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    kept = args.work.resolve() / "rows"
    kept.mkdir(parents=True, exist_ok=True)
    for name in ROWS if args.only is None else filter(None, args.only.split(",")):
        more = {"wanted": args.kills} if name == "kills" else {}
        row = ROWS[name](kept.parent, args.seed, **more)
        (kept / f"{name}.json").write_text(json.dumps(vars(row), indent=1))
    rows = [Row(**json.loads(path.read_text())) for name in ROWS if (path := kept / f"{name}.json").exists()]
    if args.figure:
        figure(kept.parent, args.figure)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, seed {args.seed}"
    if args.page:
        before, _, rest = args.page.read_text(encoding="utf-8").partition(BEGIN)
        told = f"{BEGIN}\n\nMachine: {machine}.\n\n{markdown(rows)}\n\n{END}"
        args.page.write_text(before + told + rest.partition(END)[2], encoding="utf-8")
    if args.json:
        print(json.dumps([vars(row) for row in rows], indent=1))
    else:
        print(f"{machine}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
