"""`medvl ingest`: from a hospital's spreadsheet to a dataset that training takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import ConfigError

from .built_in import findings_file
from .console import emit_json, say, table, warn
from .patient_key import patient_key as key_given
from .progress import Shown

if TYPE_CHECKING:
    from medvl.dataset.columns import Mapped
    from medvl.dataset.ingest import Made, Options
    from medvl.dataset.labels import Reviews
    from medvl.dataset.manifest import Manifest
    from medvl.dataset.splits import Policy
    from medvl.dataset.web import Web

LEFT_OUT = 3
SHOWN = 10
_FINDINGS = ("phantom", "painted")


def run(
    manifest: Path,
    out: Path,
    *,
    maps: Sequence[str] = (),
    root: Path | None = None,
    clinical: Sequence[str] = (),
    identifiers: Sequence[str] = (),
    dates: str = "",
    dicomweb: str | None = None,
    credentials: Path | None = None,
    allow_plain: bool = False,
    reviews: Sequence[Path] = (),
    unsigned: bool = False,
    seed: int = 0,
    held_out: Sequence[str] = (),
    allow_leaks: bool = False,
    join_leaks: bool = False,
    patient_key: Path | None = None,
    deidentify: bool = True,
    workers: int = 1,
    timeout_s: float = 600.0,
    strict: bool = False,
    dry_run: bool = False,
    as_json: bool = False,
) -> int:
    """Exit code 0; 3 where rows or studies were left out.

    Args:
        manifest: CSV or Parquet.
        out: folder of the dataset.
        maps: WANTED=COLUMN.
        root: of relative paths, default the manifest's folder.
        clinical: columns that are covariates.
        identifiers: columns that hold identity.
        dates: dmy or mdy.
        dicomweb: address of the PACS that studies are fetched from.
        credentials: private file of its login.
        allow_plain: plain http to another machine.
        reviews: results folders whose corrections become labels.
        unsigned: also decisions that are not signed.
        seed: of drawn splits.
        held_out: sites whose patients are for testing.
        allow_leaks: keep given splits that part what may be one patient.
        join_leaks: move them into one split; by default training is refused.
        patient_key: file of the site's key, by which patients are linked.
        deidentify: take identifiers out of reports.
        workers: processes.
        timeout_s: longest time for a study.
        strict: stop at any fault of the manifest.
        dry_run: check and show everything, convert and write nothing.
        as_json: print `dataset.json` (or the mapping) instead of text.

    Raises:
        ConfigError: the manifest or an option is wrong.
    """
    from medvl.dataset.ingest import Options, ingest

    if allow_leaks and join_leaks:
        raise ConfigError("--allow-leaks leaves pairs where they are and --join-leaks moves them; give one")
    folder, web = root or manifest.parent, _web(dicomweb, credentials, allow_plain)
    mapped, rows = _read(manifest, folder, maps, clinical, identifiers, dates, web is not None)
    if not as_json:
        _show(mapped, rows, wholly=dry_run)
    if strict and rows.issues:
        raise ConfigError(f"the manifest has {len(rows.issues)} faults and --strict was given; nothing was converted")
    human = tuple(_reviews(path, unsigned) for path in reviews)
    if dry_run:
        return _told_only(mapped, rows, human, as_json)
    policy: Policy = "allow" if allow_leaks else "join" if join_leaks else "refuse"
    key = key_given(patient_key, out)
    options = Options(folder, deidentify, seed, tuple(held_out), policy, human, web, workers, timeout_s, patient_key=key)
    with Shown() as progress:
        made = ingest(rows, mapped, out, options, lambda done, total: progress("studies", done, total, {}))
    return _tell(made, out, options, as_json)


def default_workers() -> int:
    """One a core that this process may use, eight at most: more wait for the disk."""
    return min(8, len(os.sched_getaffinity(0)))


def _read(
    manifest: Path,
    folder: Path,
    maps: Sequence[str],
    clinical: Sequence[str],
    identifiers: Sequence[str],
    dates: str,
    web: bool,
) -> tuple[Mapped, Manifest]:
    from medvl.dataset.columns import map_columns, parse_map
    from medvl.dataset.manifest import Reader
    from medvl.dataset.sheet import read_sheet

    if dates not in ("", "dmy", "mdy"):
        raise ConfigError(f"--dates is dmy or mdy, got {dates!r}")
    sheet = read_sheet(manifest)
    mapped = map_columns(sheet.columns, parse_map(maps), aliases=aliases(), clinical=clinical, identifiers=identifiers)
    return mapped, Reader(mapped, folder, web, "dmy" if dates == "dmy" else "mdy" if dates else "").read(sheet)


def aliases() -> dict[str, str]:
    """Keys of the built-in findings lists to the attributes that they ask."""
    from medvl.text.prompts import load_findings

    lists = [load_findings(findings_file(name).read_text(encoding="utf-8")) for name in _FINDINGS]
    return {finding.key: finding.truth for listed in lists for finding in listed.findings}


def _web(address: str | None, credentials: Path | None, allow_plain: bool) -> Web | None:
    if address is None:
        return None
    from medvl.dataset.web import Web
    from medvl.network.access import access_from

    return Web(address, access_from(os.environ, credentials), allow_plain)


def _reviews(folder: Path, unsigned: bool) -> Reviews:
    from medvl.dataset.labels import open_reviews

    return open_reviews(folder, aliases(), unsigned=unsigned)


def _show(mapped: Mapped, rows: Manifest, *, wholly: bool) -> None:
    """The mapping, how the sheet was read, and the first faults."""
    if wholly:
        table(("column", "taken as"), mapped.lines())
    for line in (*rows.notes, *mapped.told):
        warn(line)
    for issue in rows.issues[:SHOWN]:
        warn(f"row {issue.row}: {issue.message}{'; the row is left out' if issue.fatal else '; the cell is left out'}")
    if len(rows.issues) > SHOWN:
        more = ", ".join(f"{n} {code}" for code, n in Counter(i.code for i in rows.issues).items())
        warn(f"... {len(rows.issues)} faults in all ({more}); rejects.csv will list them")


def _told_only(mapped: Mapped, rows: Manifest, human: Sequence[Reviews], as_json: bool) -> int:
    from medvl.data.table import SPLITS

    fatal = {issue.row for issue in rows.issues if issue.fatal}
    given = Counter(row.split for row in rows.rows if row.split)
    told = {
        "rows": rows.n_rows,
        "usable": len(rows.rows),
        "patients": len({row.patient for row in rows.rows}),
        "with_report": sum(bool(row.report) for row in rows.rows),
        "with_label": sum(bool(row.labels) for row in rows.rows),
        "with_follow_up": sum(row.time_days is not None for row in rows.rows),
        "given_splits": {split: given[split] for split in SPLITS if given[split]},
        "review_labels": sum(review.n for review in human),
    }
    if as_json:
        emit_json({"mapping": mapped.lines(), **told, "issues": [[i.row, i.code, i.message, i.fatal] for i in rows.issues]})
        return LEFT_OUT if fatal else 0
    say(
        f"{told['usable']} of {told['rows']} rows can be used: {told['patients']} patients, {told['with_report']} rows with a "
        f"report, {told['with_label']} with a label, {told['with_follow_up']} with follow-up. Nothing was converted or written."
    )
    return LEFT_OUT if fatal else 0


def _tell(made: Made, out: Path, options: Options, as_json: bool) -> int:
    facts = made.dataset.facts
    left = facts["rows"]["manifest"] - facts["rows"]["used"]
    if as_json:
        emit_json(facts)
        return LEFT_OUT if left else 0
    told, leaks = facts["summary"], facts["leaks"]
    splits = ", ".join(f"{values['patients']} {name}" for name, values in told["splits"].items())
    again = f" ({made.n_known} studies taken over from an earlier run)" if made.n_known else ""
    say(f"{told['patients']} patients ({splits}), {told['scans']} scans{again}. Written to {out}; see card.html")
    for review in facts["labels"]["reviews"]:
        say(f"{review['used']} clinicians' labels joined, of {review['studies']} studies; {review['unmatched']} of other studies")
    if left:
        codes = ", ".join(f"{n} {code}" for code, n in made.rejects.items())
        say(f"{left} rows were left out ({codes}); see rejects.csv")
    if not options.clean:
        warn("reports were kept as they came: they may identify patients")
    if leaks["open"]:
        warn(
            f"{leaks['across_splits']} pairs of cases in different splits may be one patient (leaks.csv): training refuses this "
            "dataset. --join-leaks moves each pair to one split, --allow-leaks keeps them"
        )
    say(f"Data hash {made.dataset.sha256}")
    return LEFT_OUT if left else 0
