"""A receiver of its own process, to be killed: says its port."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from medvl.network.receiver import Receiver


def main(folder: str, quiet_s: str) -> None:
    """Receive until killed."""
    with Receiver(
        Path(folder),
        port=0,
        on_study=lambda _path: None,
        allowed=["CT1"],
        quiet_s=float(quiet_s),
        min_free_bytes=0,
    ) as receiver:
        sys.stdout.write(f"{receiver.port}\n")
        sys.stdout.flush()
        time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
