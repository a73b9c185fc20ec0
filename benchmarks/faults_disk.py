"""A disk that fills up in the middle of a run, and two runs on one results folder."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from faults_check import Row, check, unsound
from faults_kills import OF_FORTY, fresh, infer, undisturbed
from faults_process import Lane, Process, command
from faults_studies import cohort

SIZE = "400m"


def disk_row(work: Path, seed: int, *, wanted: int = 8) -> Row:
    """Results on a small tmpfs: filled to the brim at once, or to less than the run wants free."""
    started = time.monotonic()
    row = Row("full disk", "disk of the results filled in the middle of a run, then room made")
    mount = work / "small-disk"
    mount.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(mount)], check=False, capture_output=True)
    if made.returncode:
        row.notes.append("skipped: a tmpfs cannot be mounted here (not root)")
        return row
    rng = random.Random(seed)
    inputs, _ = cohort(work / "in-12", 12, 0, seed)
    expected = undisturbed(inputs, work / "disk-reference")
    codes: Counter[str] = Counter()
    try:
        for turn in range(wanted):
            out = fresh(mount / "results", work / "disk-reference")
            shutil.copytree(work / "bundle", mount / "bundle", dirs_exist_ok=True)
            _fill(inputs, out, rng, brim=turn % 2 == 0, codes=codes, row=row)
            row.add(check(out, expected))
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)
    row.notes += [f"{n} x {what}" for what, n in sorted(codes.items())]
    row.seconds = time.monotonic() - started
    return row


def _run(inputs: list[Path], out: Path) -> Process:
    """A run whose stderr goes to another disk."""
    return command(infer(inputs, out), out.parent.with_name("disk.err"))


def _fill(inputs: list[Path], out: Path, rng: random.Random, *, brim: bool, codes: Counter[str], row: Row) -> None:
    """Fill the disk at a random moment, try again while it is full, make room, and finish."""
    filler = out.parent / "filler"
    run = _run(inputs, out)
    run.until(lambda: len(run.ended) >= rng.randrange(1, 6))
    run.sleep(rng.uniform(0, 0.5))
    _write_until(filler, 0 if brim else 100 << 20)
    codes[f"exit code {run.wait(120)} when {'the disk was full' if brim else 'too little was free'}"] += 1
    row.injected += 1
    codes[f"exit code {_run(inputs, out).wait(120)} while it was full"] += 1
    filler.unlink()
    for what in unsound(out):
        if "owner" not in what:
            row.notes.append(f"FAULT while full: {what}")
    codes[f"exit code {_run(inputs, out).wait()} with room again"] += 1


def _write_until(filler: Path, left: int) -> None:
    """Write zeros until so few bytes are free, or until the disk takes no more."""
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while shutil.disk_usage(filler.parent).free > left:
            file.write(bytes(1 << 18))
        while not left:
            file.write(bytes(1 << 12))


def runners_row(work: Path, seed: int, *, wanted: int = 16) -> Row:
    """Two runs on one results folder at once, each killed at random and started again."""
    started = time.monotonic()
    inputs, _ = cohort(work / "in-40", 36, 6, seed, OF_FORTY)
    expected = undisturbed(inputs, work / "kills-reference")
    row = Row("two runners", "two runs on one results folder at once, each killed (SIGKILL) at random and started again")
    codes: Counter[int] = Counter()
    turn = shared = 0
    with Lane() as one, Lane() as other:
        while row.injected < wanted:
            out = fresh(work / f"runners-{turn}", work / "kills-reference")

            def serve(lane: Lane, number: int, out: Path = out, turn: int = turn) -> int:
                rng, err = random.Random(f"{seed} {turn} {number}"), out.with_name(f"{out.name}-{number}.err")
                err.unlink(missing_ok=True)
                for _ in range(3):
                    run = lane.start(infer(inputs, out), err)
                    run.until(lambda run=run: bool(run.ended))
                    run.sleep(rng.uniform(0, 5))
                    if not run.kill():
                        break
                    run.wait()
                    row.injected += 1
                codes[lane.start(infer(inputs, out), err).wait()] += 1
                return int(": done" in err.read_text())

            with ThreadPoolExecutor(2) as pool:
                both = list(pool.map(serve, (one, other), (0, 1)))
            codes[one.start(infer(inputs, out), out.with_suffix(".err")).wait()] += 1
            shared += sum(both) == 2
            row.add(check(out, expected))
            turn += 1
    row.notes += [f"{turn} results folders, {shared} of them worked on by both; exit codes at the end {dict(codes)}"]
    row.seconds = time.monotonic() - started
    return row
