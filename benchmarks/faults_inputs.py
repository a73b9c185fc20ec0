"""Faults of what a run is pointed at: damaged studies, the same study many times, folders that cannot be read."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter, defaultdict
from pathlib import Path

from faults_check import Row, check, ledger, records
from faults_kills import fresh, infer, undisturbed
from faults_process import Process, command
from faults_studies import BAD, cohort

DROPPED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--")


def run_of(inputs: list[Path], out: Path, *more: str, before: tuple[str, ...] = ()) -> Process:
    """Start a run whose stderr goes beside its results."""
    return command(infer(inputs, out, *more), out.with_suffix(".err"), before)


def states(out: Path) -> dict[str, tuple[str, str]]:
    """State and reason by the last part of where a study lies."""
    rows = ledger(out, "SELECT json_extract(source, '$.path'), state, reason FROM studies")
    return {Path(str(path)).name: (str(state), str(reason)) for path, state, reason in rows}


def bad_row(work: Path, seed: int, *, each: int = 3) -> Row:
    """Damaged studies among good ones."""
    started = time.monotonic()
    inputs, bad = cohort(work / "in-bad", 20, each * len(BAD), seed)
    sound = [path for path in inputs if path not in bad]
    expected = undisturbed(sound, work / "bad-reference")
    row = Row("corrupted", "damaged, truncated, empty and foreign studies among 20 good ones, in one run", injected=len(bad))
    out = fresh(work / "bad", work / "bad-reference")
    code = run_of(inputs, out).wait()
    checked = check(out, expected, others=True)
    row.add(checked)
    row.studies = len(inputs)
    ends, kinds = states(out), defaultdict(Counter)
    for path, kind in bad.items():
        state, reason = ends.get(path.name, ("lost", ""))
        row.lost += state not in ("done", "skipped", "failed", "quarantined")
        row.notes += [f"FAULT: {kind}: {state}"] if state == "lost" or (state != "done" and not reason) else []
        kinds[kind][f"{state} {reason}".strip()] += 1
    row.notes += [f"exit code {code}", *(f"{kind}: {_told(ends_of)}" for kind, ends_of in kinds.items())]
    row.seconds = time.monotonic() - started
    return row


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items())


def copies_row(work: Path, seed: int) -> Row:
    """The same studies as a folder, the same folder again, a copy, and a zip."""
    started = time.monotonic()
    inputs, _ = cohort(work / "in-8", 8, 0, seed)
    expected = undisturbed(inputs, work / "copies-reference")
    again = work / "in-8-again"
    if not again.exists():
        shutil.copytree(work / "in-8", again)
        for path in inputs:
            shutil.make_archive(str(again / f"{path.name}-zipped"), "zip", path)
    given = [*inputs, *inputs, *sorted(p for p in again.iterdir())]
    random.Random(seed).shuffle(given)
    row = Row("copies", "the same study given twice, as a copy elsewhere and in a zip, in one run and again", injected=len(given))
    out = fresh(work / "copies", work / "copies-reference")
    codes = [run_of(given, out).wait() for _ in range(2)]
    row.add(check(out, expected))
    row.notes.append(f"{len(given)} inputs, {len(records(out))} results, exit codes {codes}")
    row.seconds = time.monotonic() - started
    return row


def unreadable_row(work: Path, seed: int) -> Row:
    """Folders that vanish, that may not be read, and that hold what never answers."""
    started = time.monotonic()
    shutil.rmtree(work / "in-share", ignore_errors=True)
    inputs, _ = cohort(work / "in-share", 12, 0, seed)
    expected = undisturbed(inputs, work / "share-reference")
    row = Row("unreadable", "studies that vanish in the middle of a run, that may not be read, and pipes that never answer")
    for part in (_vanishing, _forbidden, _pipes):
        out = fresh(work / f"share-{part.__name__.strip('_')}", work / "share-reference")
        told, n = part(inputs, out)
        row.injected += n
        row.add(check(out, expected, others=part is _pipes))
        row.notes += told
    row.seconds = time.monotonic() - started
    return row


def _vanishing(inputs: list[Path], out: Path) -> tuple[list[str], int]:
    """Four studies go once the first is done, and come back."""
    run = run_of(inputs, out)
    run.until(lambda: bool(run.ended))
    away = inputs[-4:]
    for path in away:
        path.rename(path.with_name(f"away-{path.name}"))
    code = run.wait()
    ends = states(out)
    told = _told(Counter(" ".join(ends.get(path.name, ("lost", ""))) for path in away))
    for path in away:
        path.with_name(f"away-{path.name}").rename(path)
    again = run_of(inputs, out).wait()
    return [f"vanished: {told}, exit code {code}; there again: exit code {again}"], len(away)


def _forbidden(inputs: list[Path], out: Path) -> tuple[list[str], int]:
    """Two folders and all files of a third may not be read, by a process without the right to read everything."""
    if shutil.which("setpriv") is None:
        return ["permissions: skipped, no setpriv"], 0
    shut = [*inputs[:2], *sorted(inputs[2].iterdir())]
    for path in shut:
        path.chmod(0)
    code = run_of(inputs, out, before=DROPPED).wait()
    ends = states(out)
    for path in shut:
        path.chmod(0o755)
    told = _told(Counter(" ".join(ends.get(path.name, ("lost", ""))) for path in inputs[:3]))
    again = run_of(inputs, out, before=DROPPED).wait()
    return [f"not readable: {told}, exit code {code}; readable again: exit code {again}"], 3


def _pipes(inputs: list[Path], out: Path) -> tuple[list[str], int]:
    """A pipe among the images of one study, a folder of nothing but pipes, and a link that leads to itself."""
    extra = inputs[0].parent / "pipes"
    shutil.rmtree(extra, ignore_errors=True)
    extra.mkdir()
    beside = inputs[0] / "99-0001.dcm"
    for path in (beside, extra / "a.dcm", extra / "b.nii.gz"):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    (extra / "c").symlink_to(extra)
    run = run_of([*inputs, extra], out)
    code = run.wait(240)
    beside.unlink()
    ends = states(out)
    told = " ".join(ends.get("pipes", ("lost", "")))
    return [f"pipes and a looped link: {told}, exit code {code}, {run.seconds:.0f} s"], 4
