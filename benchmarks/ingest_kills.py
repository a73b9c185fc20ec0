"""Kill -9 of `medvl ingest` at random points, over and over: does the finished dataset have the hash of one that nobody stopped?

    python benchmarks/ingest_kills.py MANIFEST --kills 24 --workers 2

Each kill hits the process and all of its workers, after a time drawn at random between nothing and the time of a whole run. When
a run ends before its kill, the dataset is compared and the next one starts from an empty folder. The last run of all is left to
end. Prints one JSON object; exit code 1 when any hash differs or anything half written is left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def started(manifest: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """The command, in a process group of its own."""
    program = Path(sys.executable).with_name("medvl")
    command = [str(program), "ingest", str(manifest), "--out", str(out), "--workers", str(workers)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def sha256_of(out: Path) -> str:
    """Data hash of a finished dataset; empty when it is not finished."""
    path = out / "dataset.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["sha256"]) if path.is_file() else ""


def leftovers(out: Path) -> list[str]:
    """What a finished dataset must not hold."""
    return [p.name for p in out.rglob(".*") if p.name != ".lock"]


def run(manifest: Path, kills: int, workers: int, seed: int, folder: Path) -> dict[str, object]:
    """Kill and go on until there were `kills` of them."""
    rng, out = random.Random(seed), folder / "killed"
    begun = time.monotonic()
    whole = started(manifest, folder / "whole", workers).wait()
    length = time.monotonic() - begun
    wanted = sha256_of(folder / "whole")
    done, at, hashes, left = 0, list[float](), list[str](), list[str]()
    while done < kills:
        process, wait = started(manifest, out, workers), rng.uniform(0, length)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done, at = done + 1, [*at, round(wait, 2)]
            print(f"kill {done} of {kills} after {wait:.1f} s", file=sys.stderr, flush=True)
        else:
            hashes.append(sha256_of(out))
            left += leftovers(out)
            shutil.rmtree(out)
    started(manifest, out, workers).wait()
    hashes.append(sha256_of(out))
    left += leftovers(out)
    return {
        "kills": done,
        "killed_after_s": at,
        "whole_run_s": round(length, 2),
        "exit_code": whole,
        "sha256": wanted,
        "finished": len(hashes),
        "same": sum(h == wanted for h in hashes),
        "left_over": left,
    }


def main() -> int:
    """Exit code 0 when every finished dataset is the same."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = run(options.manifest, options.kills, options.workers, options.seed, Path(folder))
    print(json.dumps(told, indent=2))
    return 0 if told["sha256"] and told["same"] == told["finished"] and not told["left_over"] else 1


if __name__ == "__main__":
    sys.exit(main())
