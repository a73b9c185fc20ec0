"""`medvl` as real processes, each in a process group of its own, that can be watched and killed at a chosen moment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_ENDED = re.compile(r"^\[\d+/\d+\] study ([0-9a-f]{12}): (done|skipped|failed|quarantined)\b", re.MULTILINE)
_LOOK_S = 0.01


class Process:
    """One run.

    Args:
        pid: also the id of its process group.
        err: file with its stderr.
        wait: gives the exit code once it ended.
    """

    def __init__(self, pid: int, err: Path, wait: Callable[[], int]) -> None:
        self.pid, self._err, self._since = pid, err, time.monotonic()
        self._from = err.stat().st_size if err.exists() else 0
        self._code: int | None = None

        def watch() -> None:
            self._code = wait()

        self._watch = threading.Thread(target=watch, daemon=True)
        self._watch.start()

    @property
    def code(self) -> int | None:
        """Exit code, None while it runs."""
        self._watch.join(_LOOK_S)
        return None if self._watch.is_alive() else self._code

    @property
    def said(self) -> str:
        """Its stderr so far."""
        if not self._err.exists():
            return ""
        with self._err.open("rb") as file:
            file.seek(self._from)
            return file.read().decode(errors="replace")

    @property
    def ended(self) -> list[str]:
        """Case ids that it has told of as ended, in order."""
        return [match[1] for match in _ENDED.finditer(self.said)]

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._since

    def until(self, condition: Callable[[], bool], within_s: float = 600.0) -> bool:
        """Wait for a condition; False when the process ended first, or the time did."""
        until = time.monotonic() + within_s
        while not condition():
            if self.code is not None or time.monotonic() > until:
                return condition()
        return True

    def sleep(self, seconds: float) -> bool:
        """Wait; True while the process still runs."""
        time.sleep(seconds)
        return self.code is None

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Signal the whole group; False when the process had ended already."""
        if self.code is not None:
            return False
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, within_s: float = 900.0) -> int:
        """Exit code; one that overstays is killed and gives -9."""
        self._watch.join(within_s)
        if self._watch.is_alive():
            self.kill()
            self._watch.join()
        return -9 if self._code is None else self._code

    def readers(self) -> list[int]:
        """Process ids of its child processes that read studies."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text().rpartition(")")[2].split()
                    words = (entry / "cmdline").read_bytes() + (entry / "comm").read_bytes()
                except OSError:
                    continue
                reads = b"medvl.batch.child" in words or b"medvl-reader" in words
                if int(stat[2]) == self.pid and stat[0] != "Z" and reads:
                    found.append(int(entry.name))
        return found


def environment() -> dict[str, str]:
    """One thread a process, and no colours."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def command(argv: Sequence[str], err: Path, before: Sequence[str] = ()) -> Process:
    """Start `medvl` as a person would; `before` are words in front of the command.

    stdout goes to a file beside `err`, called like it with ``.out``.
    """
    medvl = Path(sys.executable).with_name("medvl")
    with err.open("ab") as errors, err.with_suffix(".out").open("ab") as out:
        words = [*before, str(medvl), *argv]
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=environment(), start_new_session=True
        )
    return Process(process.pid, err, process.wait)


class Lane:
    """Starts one `medvl` after the other from a process that has its imports done; a context manager."""

    def __enter__(self) -> Lane:
        script = Path(__file__).with_name("faults_zygote.py")
        self._zygote = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        self._line()
        return self

    def __exit__(self, *_: object) -> None:
        self._zygote.kill()
        self._zygote.communicate()

    def _line(self) -> str:
        assert self._zygote.stdout is not None
        line = self._zygote.stdout.readline().strip()
        if not line:
            raise RuntimeError("the process that forks runs is gone")
        return line

    def start(self, argv: Sequence[str], err: Path) -> Process:
        """One run; the one before must have ended."""
        assert self._zygote.stdin is not None
        err.touch()
        wanted = {"argv": list(argv), "out": str(err.with_suffix(".out")), "err": str(err)}
        self._zygote.stdin.write(json.dumps(wanted) + "\n")
        self._zygote.stdin.flush()
        return Process(int(self._line()), err, lambda: int(self._line()))
