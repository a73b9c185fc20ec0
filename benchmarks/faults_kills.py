"""Runs that are killed at random moments, whole or one reader of them, until their studies are through."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults_check import Row, check, ledger, records
from faults_process import Lane, Process, command
from faults_studies import cohort

START_S, AMID_S, END_S = 5.0, 3.0, 0.4
OF_FORTY = ("garbage", "no images", "no NIfTI", "zip cut", "files cut", "empty files")


def bundle(out: Path) -> Path:
    """A copy of the demonstration bundle beside a results folder, so that nobody changes it meanwhile."""
    copy = out.parent / "bundle"
    if not copy.exists():
        from medvl_pipelines.built_in import bundle_folder

        part = copy.with_name(".bundle")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(bundle_folder("phantom-demo"), part)
        part.rename(copy)
    return copy


def infer(inputs: list[Path], out: Path, *more: str) -> list[str]:
    """Words of a run without heat maps."""
    return ["infer", *map(str, inputs), "-b", str(bundle(out)), "-o", str(out), "--no-explain", "--readers", "1", *more]


def undisturbed(inputs: list[Path], out: Path, *more: str) -> dict[str, dict[str, object]]:
    """Records of a run that nothing happens to; made once for each folder."""
    if not (out / "run.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        code = command(infer(inputs, out, *more), out.with_suffix(".err")).wait()
        if code not in (0, 3):
            raise RuntimeError(f"the undisturbed run ended with {code}")
    return records(out)


def fresh(out: Path, reference: Path) -> Path:
    """An empty results folder with the key of another, so that case ids are the same."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shutil.copy(reference / "key", out / "key")
    return out


class Kills:
    """Counts kills over all lanes until there are enough."""

    def __init__(self, wanted: int, until: float) -> None:
        self._lock, self.wanted, self._until = threading.Lock(), wanted, until
        self.moments: Counter[str] = Counter()
        self.codes: Counter[int] = Counter()

    @property
    def enough(self) -> bool:
        """Whether no more are wanted."""
        return sum(self.moments.values()) >= self.wanted or time.monotonic() > self._until

    def count(self, moment: str) -> None:
        """One more."""
        with self._lock:
            self.moments[moment] += 1


def _ambush(run: Process, rng: random.Random, n: int, kills: Kills) -> bool:
    """Kill a run at a random moment; False when it was through before."""
    kind = rng.choices(("start", "amid", "end"), (0.15, 0.77, 0.08))[0]
    if kind == "start":
        run.sleep(rng.uniform(0, START_S))
    elif kind == "amid":
        run.until(lambda: ": done" in run.said)
        run.sleep(rng.uniform(0, AMID_S))
    else:
        run.until(lambda: len(set(run.ended)) + run.said.count(": resumed") >= n)
        run.sleep(rng.uniform(0, END_S))
    said = run.said
    ended = len(set(run.ended)) + said.count(": resumed")
    if not run.kill(signal.SIGKILL):
        return False
    run.wait()
    kills.count("before a study ended" if not run.ended else "after the last study ended" if ended >= n else "amid the work")
    return True


def states_of(out: Path) -> Counter[str]:
    """Studies by state; none where the run was killed before it had a ledger."""
    try:
        rows = ledger(out, "SELECT state FROM studies")
    except sqlite3.OperationalError:
        return Counter({"no ledger": 1})
    return Counter(str(state) for (state,) in rows) or Counter({"no study": 1})


def held_by_the_dead(out: Path) -> Counter[str]:
    """How often each study was taken back from a run that died."""
    return Counter(str(case) for (case,) in ledger(out, "SELECT case_id FROM events WHERE what = 'its run died'"))


def _campaign(lane: Lane, work: Path, inputs: list[Path], reference: Path, name: str, seed: int, kills: Kills) -> Path:
    """One results folder: kill and start again until the studies are through or there were enough kills; then finish it."""
    rng, out = random.Random(f"{seed} {name}"), fresh(work / name, reference)
    err = out.with_suffix(".err")
    err.unlink(missing_ok=True)
    through = 0
    while not kills.enough and through < 2:
        real = rng.random() < 0.05
        argv = infer(inputs, out)
        run = command(argv, err) if real else lane.start(argv, err)
        if not _ambush(run, rng, len(inputs), kills):
            break
        through += states_of(out).keys() <= {"done", "skipped"}
    kills.codes[lane.start(infer(inputs, out), err).wait()] += 1
    return out


def kills_row(work: Path, seed: int, *, wanted: int = 200, lanes: int = 2, limit_s: float = 2400.0) -> Row:
    """SIGKILL to the whole process group."""
    started = time.monotonic()
    inputs, _ = cohort(work / "in-40", 36, 6, seed, OF_FORTY)
    reference = work / "kills-reference"
    expected = undisturbed(inputs, reference)
    row = Row("kills", "run killed with SIGKILL at a random moment, whole process group, and started again")
    kills = Kills(wanted, started + limit_s)
    lock, held = threading.Lock(), Counter[int]()

    def serve(number: int) -> None:
        turn = 0
        with Lane() as lane:
            while not kills.enough:
                out = _campaign(lane, work, inputs, reference, f"kills-{number}-{turn}", seed, kills)
                with lock:
                    row.add(check(out, expected))
                    held.update(held_by_the_dead(out).values())
                    print(
                        f"{time.monotonic() - started:.0f} s: {dict(kills.moments)}, {row.notes[-5:]}",
                        file=sys.stderr,
                        flush=True,
                    )
                turn += 1

    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(serve, range(lanes)))
    row.injected = sum(kills.moments.values())
    row.notes += [f"{n} kills {moment}" for moment, n in kills.moments.items()]
    row.notes.append(f"studies in hand of runs that died, by how often: {dict(sorted(held.items()))}")
    row.notes.append(f"{sum(kills.codes.values())} results folders, exit codes at the end {dict(kills.codes)}")
    row.seconds = time.monotonic() - started
    return row


def readers_row(work: Path, seed: int, *, wanted: int = 30) -> Row:
    """SIGKILL or SIGSTOP to the reader only, in one run that is never started again."""
    started = time.monotonic()
    rng = random.Random(seed)
    inputs, _ = cohort(work / "in-40", 36, 6, seed, OF_FORTY)
    reference = work / "kills-reference"
    expected = undisturbed(inputs, reference)
    row = Row("readers", "reading process killed (SIGKILL) or frozen (SIGSTOP, ended by --timeout) at a random moment")
    stopped = codes = 0
    with Lane() as lane:
        turn = 0
        while row.injected < wanted:
            out = fresh(work / f"readers-{turn}", reference)
            err = out.with_suffix(".err")
            err.unlink(missing_ok=True)
            while True:
                run = lane.start(infer(inputs, out, "--timeout", "30", "--retry-quarantined"), err)
                done = 0
                while run.until(lambda run=run, done=done: len(run.ended) > done) and row.injected < wanted:
                    run.sleep(rng.uniform(0, 0.6))
                    freeze = rng.random() < 0.2
                    for pid in run.readers():
                        os.kill(pid, signal.SIGSTOP if freeze else signal.SIGKILL)
                        row.injected += 1
                        stopped += freeze
                    done = len(run.ended) + rng.randrange(1, 6)
                codes = run.wait()
                if "quarantined" not in run.said:
                    break
            row.add(check(out, expected))
            turn += 1
    row.notes += [f"{stopped} of them frozen", f"last exit code {codes}"]
    row.seconds = time.monotonic() - started
    return row
