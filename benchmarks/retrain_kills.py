"""Kill -9 of `medvl retrain` at random points, over and over: is the bundle at the end that of a run that nobody stopped?

    python benchmarks/retrain_kills.py --data DATASET --plan PLAN --kills 24

The whole run is done once, then once more in another folder with each start killed after a time drawn at random, at most what is
left of a whole run and at least what a start takes. Prints one JSON object with what each kill hit; exit code 1 when the bundles
differ or a run that was left to itself does not end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

START_S = 6.0


def started(args: argparse.Namespace, out: Path) -> subprocess.Popen[bytes]:
    """The command, in a process group of its own."""
    command = [str(Path(sys.executable).with_name("medvl")), "retrain", "--from", args.parent, "--data", str(args.data)]
    command += [
        "--out",
        str(out),
        "--plan",
        args.plan,
        "--preset",
        "cpu",
        "--name",
        "killed",
        "--store",
        str(out.parent / "store"),
    ]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def sha256_of(out: Path) -> str:
    """Hash of the bundle's manifest of files; empty when there is none."""
    path = out / "bundle" / "bundle.json"
    return json.dumps(json.loads(path.read_text(encoding="utf-8"))["files"], sort_keys=True) if path.is_file() else ""


def doing(out: Path) -> str:
    """What a run that was just killed was at, by what it had written."""
    if (out / "finished.json").is_file():
        return "embedding, gate and store"
    if (out / "bundle").is_dir():
        return "writing the bundle"
    if not (out / "settings.json").is_file():
        return "crops" if (out / "cohorts").is_dir() and not (out / "recipe.json").is_file() else "probe"
    stages = list((out / "stages").glob("*/*/"))
    done = sum((folder / "weights.safetensors").is_file() for folder in stages)
    total = len(json.loads((out / "settings.json").read_text(encoding="utf-8"))["recipe"]["stages"])
    return "a stage" if done < total else "choosing weights"


def run(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Kill and go on until there were enough kills, then let it end."""
    rng, hits = random.Random(args.seed), Counter[str]()
    begun = time.monotonic()
    whole = started(args, folder / "whole").wait()
    length = time.monotonic() - begun
    wanted, hashes = sha256_of(folder / "whole"), list[str]()
    number, out = 0, folder / "killed-0"
    while sum(hits.values()) < args.kills:
        process = started(args, out)
        try:
            process.wait(START_S + rng.uniform(0, max(1.0, (length - START_S) / 3)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            hits[doing(out)] += 1
        else:
            hashes.append(sha256_of(out))
            number, out = number + 1, folder / f"killed-{number + 1}"
    last = started(args, out).wait()
    hashes.append(sha256_of(out))
    same = sum(h == wanted for h in hashes)
    return {
        "kills": dict(hits),
        "whole_run_s": round(length, 1),
        "exit_codes": [whole, last],
        "bundles": len(hashes),
        "same": same,
        "ok": bool(wanted) and same == len(hashes) and whole == last,
    }


def main() -> int:
    """Run from the command line."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--data", type=Path, required=True, help="dataset of medvl ingest")
    asked.add_argument("--parent", default="phantom-demo", help="bundle to begin from")
    asked.add_argument("--plan", default="continue", help="name or file of a retraining plan; a short one makes the runs short")
    asked.add_argument("--kills", type=int, default=24)
    asked.add_argument("--seed", type=int, default=0)
    args = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="retrain-kills-") as folder:
        told = run(args, Path(folder))
    print(json.dumps(told, indent=2))
    return 0 if told["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
