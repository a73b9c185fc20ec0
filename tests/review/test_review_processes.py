"""Several processes on one folder, and one that is killed while it writes."""

import signal
import subprocess
import sys
from pathlib import Path

from reviewed import ANNA, CASE, MASS, save

from medvl.review.desk import Reviews

SCRIPT = Path(__file__).with_name("deciding.py")


def start(desk: Reviews, who: str, n: int) -> subprocess.Popen[str]:
    line = [sys.executable, str(SCRIPT), str(desk.folder), who, str(n)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_lose_nothing_and_overwrite_nothing(desk: Reviews) -> None:
    reviewers = [start(desk, who, 15) for who in ("Anna", "Bert")]
    told = []
    for process in reviewers:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        told += [line.split(" ", 2) for line in out.splitlines() if line.startswith("kept")]
    kept = {int(version): comment for _, version, comment in told}
    assert sorted(kept) == list(range(1, 31))  # thirty decisions, each its own version
    held = {row["version"]: row["content"]["comment"] for row in desk.history(CASE)}
    assert held == kept
    assert desk.review(CASE).decisions[MASS].version == 30
    assert desk.verify().problems == ()
    assert [row["number"] for row in desk.events()] == list(range(1, 32))


def test_what_was_kept_outlives_kill_9(desk: Reviews) -> None:
    process = start(desk, "Anna", 100_000)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(12)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.readlines()
    process.communicate()
    version = max(int(line.split()[1]) for line in told if line.startswith("kept") and line.endswith("\n"))
    assert version >= 12
    with Reviews(desk.folder) as after:
        now = after.review(CASE).decisions[MASS]
        assert now.version in (version, version + 1)  # the last one may be kept and not yet told
        assert len(after.history(CASE)) == now.version
        assert after.verify().problems == ()
        assert save(after, MASS, "reject", ANNA).version == now.version + 1
