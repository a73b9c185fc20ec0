"""The summary of a run: `run.json` for machines and `summary.html` for the person who looks in the morning."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from medvl import __version__
from medvl.batch.summary import STATUSES, Summary
from medvl.evaluation.report.document import Document, Section, Table, Text
from medvl.evaluation.report.html import write_html
from medvl.files import write_json
from medvl.records import RESEARCH_USE

_MEANS = {
    "done": "a result was written in this run",
    "resumed": "was done before and stays as it is",
    "skipped": "the input is unfit; its reason says why",
    "failed": "medvl broke, or an input could not be reached",
    "quarantined": "took too long or too much memory, or ended its process; tried again only with --retry-quarantined",
    "waiting": "not begun or not ended; the same command goes on with it",
}


def write_summary(summary: Summary, out: Path, bundle: str) -> None:
    """Write both files into the results folder."""
    write_json(out / "run.json", summary.as_dict())
    write_html(document(summary, bundle), out / "summary.html")


def document(summary: Summary, bundle: str) -> Document:
    """The page: what came of the studies, what was delivered, what is not done and why, and where the time went."""
    lead = f"{RESEARCH_USE} medvl {__version__}, bundle {bundle}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    sections = [_studies(summary)]
    if summary.deliveries:
        sections.append(_deliveries(summary))
    sections += [_open_cases(summary), _time(summary)]
    return Document(f"{len(summary.cases)} studies", lead, tuple(sections))


def _studies(summary: Summary) -> Section:
    rows = tuple((name, str(summary.statuses[name]), _MEANS[name]) for name in STATUSES if summary.statuses[name])
    blocks: list[Text | Table] = [Table(("studies", "n", "meaning"), rows, "Every study found, by how it ended", n_left=1)]
    if summary.stopped:
        blocks.insert(0, Text((f"The run stopped early: {summary.stopped}. The same command goes on with it.",), "warning"))
    return Section("What came of them", tuple(blocks))


def _deliveries(summary: Summary) -> Section:
    rows = tuple((state, str(n)) for state, n in sorted(summary.deliveries.items()))
    why = tuple((code, str(n)) for code, n in sorted(summary.undelivered.items()))
    blocks = [Table(("deliveries", "n"), rows, "Studies times targets")]
    blocks += [Table(("reason", "n"), why, "What is not sent, by reason")] if why else []
    return Section("Delivered", tuple(blocks))


def _open_cases(summary: Summary) -> Section:
    left = [case for case in summary.cases if case["status"] not in ("done", "resumed")]
    if not left:
        return Section("Without a result", (Text(("None.",)),))
    rows = tuple((case["case_id"], case["status"], case["reason"]) for case in left)
    caption = "Reason codes are explained in docs/reference/reason-codes.md; findings.json of each study holds the sentence"
    return Section("Without a result", (Table(("study", "status", "reason"), rows, caption, n_left=3),))


def _time(summary: Summary) -> Section:
    receipt = summary.receipt
    stages = tuple((name, f"{seconds:.1f}") for name, seconds in receipt.get("stage_seconds", {}).items())
    memory = receipt.get("peak_memory_mb", {})
    lines = (
        f"{receipt.get('seconds')} s in all, {receipt.get('studies_per_hour')} studies an hour, on {receipt.get('device')} with "
        f"{receipt.get('readers')} reading processes.",
        f"Peak memory: {memory.get('run')} MiB in the run, {memory.get('largest_reader')} MiB in its largest reading process.",
    )
    caption = "Seconds by stage, summed over processes; stages overlap, so they add up to more than the whole"
    return Section("Time and memory", (Text(lines), Table(("stage", "seconds"), stages, caption)))
