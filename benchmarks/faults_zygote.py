"""A process that has imported medvl and forks one `medvl` a request, so that a run to be killed costs one second, not fifteen.

The run's readers are forked in the same way, by a helper in its process group, in place of ``python -m medvl.batch.child``.
Nothing else differs from the command.

Speaks JSON lines: a request is ``{"argv": [...], "out": FILE, "err": FILE}``; the answers are the process id, then the exit code.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

READER = "medvl-reader"


class Reader:
    """What `subprocess.Popen` would be, for a reader that the helper forks."""

    helper: socket.socket

    def __init__(self, *_: Any, **__: Any) -> None:
        (taken, ours), (theirs, given) = os.pipe(), os.pipe()
        socket.send_fds(self.helper, [b"reader"], [taken, given])
        self.pid = int(self.helper.recv(32))
        os.close(taken)
        os.close(given)
        self.stdin, self.stdout = os.fdopen(ours, "wb", -1), os.fdopen(theirs, "rb", -1)

    def poll(self) -> int | None:
        """None while it runs."""
        return None if Path(f"/proc/{self.pid}").exists() else -9

    def wait(self) -> int:
        """Until it ended."""
        while self.poll() is None:
            time.sleep(0.005)
        return -9

    def kill(self) -> None:
        """End it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _help(requests: socket.socket) -> None:
    """Fork readers until the run is gone."""
    from medvl.batch import child

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        word, (taken, given), _, _ = (
            socket.recv_fds(requests, 32, 2) if requests.recv(1, socket.MSG_PEEK) else (b"", (0, 0), 0, 0)
        )
        if not word:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            Path("/proc/self/comm").write_text(READER)
            for number, one in ((0, taken), (1, given), (2, os.open(os.devnull, os.O_WRONLY))):
                os.dup2(one, number)
            os.closerange(3, 256)
            child.main()
            os._exit(0)
        os.close(taken)
        os.close(given)
        requests.send(str(pid).encode())


def _run(wanted: dict[str, Any]) -> None:
    """Be a run."""
    from medvl.batch import hand
    from medvl_pipelines import cli

    os.setsid()
    for number, name in ((1, wanted["out"]), (2, wanted["err"])):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        _help(theirs)
    theirs.close()
    Reader.helper = ours
    hand.subprocess = SimpleNamespace(Popen=Reader, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)  # type: ignore[attr-defined]
    sys.argv = ["medvl", *wanted["argv"]]
    cli.main()  # leaves by SystemExit, as the command does


def main() -> None:
    """Fork runs until the stream ends."""
    import pandas  # noqa: F401 - what a run would import first
    import sqlalchemy.dialects.sqlite  # noqa: F401

    import medvl.batch.child
    import medvl.batch.page
    import medvl.batch.run
    import medvl.delivery.objects
    import medvl.inference.masks
    import medvl.models.encoder
    import medvl.network.access
    import medvl.network.receiver  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run(json.loads(line))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
