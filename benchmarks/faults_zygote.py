"""A process that has imported medvl and forks one `medvl` a request, so that a run to be killed costs a second less than ten.

Speaks JSON lines: a request is ``{"argv": [...], "out": FILE, "err": FILE}``; the answers are the process id, then the exit code.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Fork runs until the stream ends."""
    import pandas  # noqa: F401 - what a run would import first
    import sqlalchemy.dialects.sqlite  # noqa: F401

    import medvl.batch.page
    import medvl.batch.run
    import medvl.inference.masks
    import medvl.models.encoder
    import medvl.network.access
    import medvl.network.receiver  # noqa: F401
    from medvl_pipelines import cli

    print("ready", flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for number, name in ((1, wanted["out"]), (2, wanted["err"])):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.argv = ["medvl", *wanted["argv"]]
            cli.main()  # leaves by SystemExit, as the command does
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
