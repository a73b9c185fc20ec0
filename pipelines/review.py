"""`medvl review`: labels of what humans decided about a results folder, and the check of its audit log."""

from __future__ import annotations

from pathlib import Path

from .console import emit_json, say

EXIT_TAMPERED = 5


def export(results: Path, out: Path, *, form: str = "csv", unsigned: bool = False, key_file: Path | None = None) -> int:
    """Exit code 0.

    Args:
        results: folder that was reviewed.
        out: file to write; replaced when it is there.
        form: csv, parquet or json.
        unsigned: also decisions of studies that are not signed.
        key_file: key of the reviews, where it does not lie in the folder.

    Raises:
        ConfigError: nobody reviewed anything, the key is gone, or an unknown format.
    """
    from medvl.review.corrections import corrections, opened
    from medvl.review.export import write_labels
    from medvl.review.record import Person

    table = corrections(results, unsigned=unsigned, key_file=key_file)
    write_labels(table, out, form)
    with opened(results, key_file) as desk:
        desk.log(Person(_user(), "command"), "labels exported", rows=len(table), unsigned=unsigned)
    wrong = int((table.model.ne("") & table.model.ne("undecided") & table.model.ne(table.label)).sum())
    say(f"{len(table)} labels of {table.case_id.nunique()} studies, {wrong} of them against the model. Written: {out}")
    if not len(table) and not unsigned:
        say("  No study is signed. Decisions of unsigned ones: --unsigned")
    return 0


def audit(
    results: Path,
    *,
    verify: bool = False,
    since: str | None = None,
    out: Path | None = None,
    key_file: Path | None = None,
    as_json: bool = False,
) -> int:
    """Exit code 0 when the log is whole, 5 when it was tampered with.

    Args:
        results: folder that was reviewed.
        verify: check the whole chain; otherwise the last events are shown.
        since: end of the log that was noted earlier.
        out: write the log as JSON lines.
        key_file: key of the reviews, where it does not lie in the folder.
        as_json: print one JSON object.

    Raises:
        ConfigError: nobody reviewed anything, the key is gone, or `since` is no end of a log.
    """
    from medvl.review.corrections import opened
    from medvl.review.export import write_log
    from medvl.review.record import moment

    with opened(results, key_file) as desk:
        if out is not None:
            write_log(desk, out)
        events = desk.events()
        found = desk.verify(since) if verify or since else None
    problems = list(found.problems) if found else []
    if as_json:
        checked = {"rows": found.n_rows, "head": found.head, "problems": problems} if found else None
        emit_json({"checked": checked, "events": events[-20:]})
    elif found is None:
        for row in events[-20:]:
            say(f"{moment(row['at'])}  {row['who']} ({row['role']})  {row['what']}  {row['case_id']}")
        say(f"{len(events)} events; --verify checks them, --out FILE writes them all")
    else:
        for problem in problems:
            say(f"  TAMPERED  {problem}")
        say(f"{found.n_rows} events checked, {len(problems) or 'no'} problems. Note this end of the log elsewhere: {found.head}")
    return EXIT_TAMPERED if problems else 0


def _user() -> str:
    """Who runs the command, as the system knows them."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in containers
        return "unknown"
