"""`medvl drift`: do the studies of a results folder look like those that the bundle was made with, and like one another?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.errors import BundleError

from .built_in import bundle_folder, bundles
from .console import emit_json, err, say

if TYPE_CHECKING:
    from medvl.doctor.drift_read import Reference

EXIT_DRIFT = 5
BY = "scanner,kernel,thickness,week"


def run(results: Path, *, against: str | None = None, by: str = BY, out: Path | None = None, as_json: bool = False) -> int:
    """Exit code 0 when nothing stands out, 5 when something does.

    Args:
        results: folder that `medvl infer` wrote.
        against: the bundle that did the studies, by name or folder; None looks among the built-in ones.
        by: columns to group by, separated by commas.
        out: folder for `drift.json`, `report.md`, `report.html` and figures.
        as_json: print the record instead of text.

    Raises:
        BundleError: no such bundle.
        ConfigError: an unknown column, or nothing to compare.
    """
    with err().status("comparing"):
        from medvl.doctor.drift_read import columns_of, read_results, reference_of
        from medvl.doctor.drift_record import drift_record
        from medvl.models.bundle import open_bundle

        columns = columns_of([name.strip() for name in by.split(",") if name.strip()])
        reference = reference_of(open_bundle(bundle_folder(against))) if against else None
        found = read_results(results, reference.sha256 if reference else None)
        reference = reference or _known(found.bundle["sha256"])
        record = drift_record(found, reference, columns)
    if out is not None:
        _write(record, out)
    if as_json:
        emit_json(record)
    else:
        _show(record)
        if out is not None:
            say(f"Written: {out / 'report.html'}, {out / 'report.md'}, {out / 'drift.json'}")
    return EXIT_DRIFT if record["alarms"] else 0


def _known(sha256: str) -> Reference | None:
    """What the built-in bundle or that of the store with that hash knows; None where there is none, or it is damaged."""
    from medvl.doctor.drift_read import reference_of
    from medvl.models.bundle import open_bundle
    from medvl.models.store import BundleStore

    store = BundleStore()
    for folder in (*bundles().values(), *(store.folder_of(e) for e in store.entries() if e.sha256 == sha256)):
        try:
            bundle = open_bundle(folder)
        except BundleError:
            continue
        if bundle.sha256 == sha256:
            return reference_of(bundle)
    return None


def _write(record: Mapping[str, Any], out: Path) -> None:
    from medvl.doctor.drift_report import document
    from medvl.evaluation.report.html import write_html
    from medvl.evaluation.report.markdown import write_markdown
    from medvl.files import replace_text

    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / "drift.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_markdown(document(record), out)
    write_html(document(record), out / "report.html")


def _show(record: Mapping[str, Any]) -> None:
    """What stands out, and what was not compared."""
    from medvl.doctor.drift_report import told

    studies, bundle = record["studies"], record["bundle"]
    say(f"{studies['compared']} studies done by {bundle['name']} ({bundle['sha256'][:12]}), {len(record['tests'])} comparisons")
    for row in sorted(record["alarms"], key=lambda row: row["p_adjusted"]):
        say(f"  DRIFT  {told(record, row)}")
    if not record["alarms"]:
        say("  Nothing stands out beyond what chance explains." if record["tests"] else "  Nothing could be tested.")
    for column, value, n in record["too_small"]:
        say(f"  too small: {column} {value} ({n} of at least {record['least']} studies)")
    for note in record["notes"]:
        say(f"  note: {note}")
    say(record["use"])
