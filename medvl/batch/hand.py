"""One child process and the thread that waits for it; what overstays its time or outgrows its memory is killed."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.batch import wire
from medvl.errors import InputError, MedvlError

_LOOKS_S = 0.1
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class KilledError(MedvlError):
    """The child did not finish its job.

    Args:
        code: ``timeout``, ``memory_budget`` or ``worker_died``.
        message: one sentence for a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class ChildError(MedvlError):
    """Our fault, in the child: `message` names the kind of error and where."""


class Hand:
    """Gives jobs to a child process, one at a time; starts it at the first and again after it was killed.

    Args:
        greeting: what the child is told when it starts; without one it waits, its libraries loaded, until it is greeted.
    """

    def __init__(self, greeting: Mapping[str, Any] | None = None) -> None:
        self._greeting = dict(greeting) if greeting is not None else None
        self._process: subprocess.Popen[bytes] | None = None
        self._why: tuple[str, str] | None = None
        self._closed = False
        self.peak_mb = 0

    def ask(self, job: Mapping[str, Any], within_s: float) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """The child's answer.

        Raises:
            InputError: the input is unfit.
            KilledError: it took too long or too much memory, or died.
            ChildError: medvl failed in it.
        """
        process = self._started()
        self._why = None
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(process, done, within_s), daemon=True)
        watch.start()
        try:
            assert process.stdin is not None and process.stdout is not None  # noqa: S101 - pipes were asked for
            wire.send(process.stdin, job)
            text, arrays = wire.receive(process.stdout)
        except wire.Broken as error:
            self._end()
            code, message = self._why or (
                "worker_died",
                "its process died, of lack of memory or in a decoder",
            )
            raise KilledError(code, message) from error
        finally:
            done.set()
            watch.join()
        self.peak_mb = max(self.peak_mb, int(text.get("peak_mb", 0)))
        if text.get("kind") == "memory":
            self._end()  # what a failed allocation left behind is given back
        return _judged(text), arrays

    def start(self) -> None:
        """Start the child already, so that it is ready when the first job comes."""
        self._started()

    def greet(self, greeting: Mapping[str, Any]) -> None:
        """Tell a child that waits what it works on."""
        self._greeting = dict(greeting)
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(wire.Broken):
                wire.send(self._process.stdin, self._greeting)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        command = [sys.executable, "-P", "-m", "medvl.batch.child"]
        alone = {**os.environ, **dict.fromkeys(_THREADS, "1")}  # the other cores belong to other readers and the model
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=alone)
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        if self._greeting is not None:
            with contextlib.suppress(wire.Broken):
                wire.send(process.stdin, self._greeting)
        self._process = process
        if self._closed:
            self._end()
        return process

    def _watch(self, process: subprocess.Popen[bytes], done: threading.Event, within_s: float) -> None:
        until = time.monotonic() + within_s
        bound = 2 * int((self._greeting or {}).get("memory_mb") or 0)
        while not done.wait(_LOOKS_S):
            if time.monotonic() > until:
                self._why = ("timeout", f"it took more than {within_s:g} s; see --timeout")
            elif bound and _resident_mb(process.pid) > bound:
                self._why = ("memory_budget", "it needs more memory than a study may take; see --memory")
            if self._why is not None:
                process.kill()
                return

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def kill(self) -> None:
        """End the child for good, from any thread; a job under way ends as killed."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the child for good, from the thread that asks it."""
        self._closed = True
        self._end()


class Here:
    """Does the jobs in this process, where nothing can stop them: for notebooks and tests.

    Args:
        greeting: as for `Hand`.
    """

    def __init__(self, greeting: Mapping[str, Any]) -> None:
        from medvl.batch.child import Child

        self._child = Child({**greeting, "memory_mb": 0})
        self.peak_mb = 0

    def ask(self, job: Mapping[str, Any], within_s: float) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """The answer; raises as `Hand.ask`, except that nothing is killed."""
        from medvl.batch.child import answer

        text, arrays = answer(self._child, json.loads(json.dumps(job)))
        return _judged(json.loads(json.dumps(text))), arrays

    def start(self) -> None:
        """There is nothing to start."""

    kill = close = start


def _judged(text: dict[str, Any]) -> dict[str, Any]:
    if "error" not in text:
        return text
    code, message = (str(part) for part in text["error"])
    if text.get("kind") == "input":
        raise InputError(code, message)
    if text.get("kind") == "memory":
        raise KilledError(code, message)
    raise ChildError(message)


def _resident_mb(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return int(np.int64(pages) * resource.getpagesize() >> 20)
