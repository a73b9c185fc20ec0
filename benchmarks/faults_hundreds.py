"""Five hundred studies in one run: throughput, memory over time, and every study accounted for."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
from faults_check import Row, check, records
from faults_inputs import states
from faults_kills import infer
from faults_process import Process, command
from faults_studies import BAD, cohort

EVERY_S, WARM_UP, BIN = 0.5, 150, 25
PAGE = os.sysconf("SC_PAGE_SIZE")


def _resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / (1 << 20) or float("nan")
    except (OSError, IndexError):
        return float("nan")


def hundreds_row(work: Path, seed: int, *, studies: int = 500, n_bad: int = 25) -> Row:
    """One run over `studies` of which `n_bad` are damaged."""
    started = time.monotonic()
    kinds = [kind for kind in BAD if kind != "pixel bits"]
    inputs, bad = cohort(work / f"in-{studies}", studies - n_bad, n_bad, seed, kinds)
    out = work / "hundreds"
    shutil.rmtree(out, ignore_errors=True)
    listed = work / "hundreds.txt"
    listed.write_text("\n".join(map(str, inputs)) + "\n")
    run = command(infer([listed], out), out.with_suffix(".err"))
    samples = _watch(run)
    code = run.wait()
    row = Row("five hundred", f"{n_bad} bad studies of {len(set(bad.values()))} kinds among {studies}, one run", injected=n_bad)
    found = records(out)
    row.add(check(out, found))
    row.studies, row.lost = studies, studies - len(found)
    ends = states(out)
    undone = [path.name for path in inputs if path not in bad and ends.get(path.name, ("lost", ""))[0] != "done"]
    row.wrong += len(undone)
    row.notes += [f"FAULT: {len(undone)} good studies are not done"] if undone else []
    row.notes += _told(out, run, samples, code)
    row.notes.append("bad ones: " + ", ".join(f"{n} {what}" for what, n in Counter(" ".join(ends[p.name]) for p in bad).items()))
    (work / "hundreds.json").write_text(json.dumps(samples))
    row.seconds = time.monotonic() - started
    return row


def _watch(run: Process) -> list[tuple[float, int, float, float]]:
    """Seconds, studies ended, and resident MiB of the run and its reader, until it ends."""
    samples = []
    while run.sleep(EVERY_S):
        readers = run.readers()
        reader = max((_resident_mb(pid) for pid in readers), default=float("nan"))
        samples.append((round(run.seconds, 2), len(run.ended), _resident_mb(run.pid), reader))
    return samples


def slope(samples: list[tuple[float, int, float, float]], column: int) -> tuple[float, float]:
    """Slope in MiB per 1000 studies of the least in each `BIN` of studies after the first `WARM_UP`, and their mean in MiB.

    The least, because a study in hand adds a peak that a sample may hit or miss; what is never given back raises it.
    """
    values = np.array(samples, float)
    amid = (values[:, 1] >= WARM_UP) & (values[:, 1] < values[:, 1].max())
    late = values[amid & np.isfinite(values[:, column])]
    bins = late[:, 1] // BIN
    floor = np.array([(b * BIN, late[bins == b, column].min()) for b in np.unique(bins)])
    return float(1000 * np.polyfit(floor[:, 0], floor[:, 1], 1)[0]), float(floor[:, 1].mean())


def _told(out: Path, run: Process, samples: list[tuple[float, int, float, float]], code: int) -> list[str]:
    receipt = json.loads((out / "run.json").read_text())["receipt"]
    counts = json.loads((out / "run.json").read_text())
    told = [
        f"exit code {code}; " + ", ".join(f"{counts[k]} {k}" for k in ("done", "skipped", "failed", "quarantined", "waiting"))
    ]
    told.append(f"{receipt['seconds']:.0f} s, {receipt['studies_per_hour']:.0f} done studies an hour")
    for name, column in (("run", 2), ("reader", 3)):
        rise, mean = slope(samples, column)
        told.append(f"least memory of the {name}: {mean:.0f} MiB after study {WARM_UP}, slope {rise:+.1f} MiB per 1000 studies")
    return told


def figure(work: Path, path: Path) -> None:
    """Memory and progress over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    values = np.array(json.loads((work / "hundreds.json").read_text()), float)
    minutes = values[:, 0] / 60
    drawing, (top, below) = plt.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained", height_ratios=(3, 2))
    top.plot(minutes, values[:, 2], label="run (model, writing, ledger)", color="#1f5fa8")
    top.plot(minutes, values[:, 3], label="reading process", color="#c2571a")
    top.set(ylabel="resident memory (MiB)", ylim=(0, 1.25 * np.nanmax(values[:, 2:])), title="500 phantom studies in one run")
    top.legend(loc="lower right", frameon=False)
    below.plot(minutes, values[:, 1], color="#333333")
    below.set(ylabel="studies ended", xlabel="minutes", ylim=(0, None), xlim=(0, None))
    for axes in (top, below):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=130)
    plt.close(drawing)
