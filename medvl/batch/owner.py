"""Who holds a study: a process, named so that others can tell whether it still lives."""

from __future__ import annotations

import functools
import os
import socket
import uuid
from pathlib import Path


@functools.cache
def machine() -> str:
    """A name of this machine that a restart changes, so that no process of before the restart seems alive."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    started = boot.read_text(encoding="ascii").strip()[:8] if boot.exists() else ""
    spaces = Path("/proc/self/ns/pid")
    space = str(spaces.readlink()) if spaces.exists() else ""
    return f"{socket.gethostname()}-{started}-{''.join(c for c in space if c.isdigit())}"


def me() -> str:
    """``machine/process id/start/random`` of this process."""
    return f"{machine()}/{os.getpid()}/{_started(os.getpid())}/{uuid.uuid4().hex[:8]}"


def lives(owner: str) -> bool | None:
    """Whether the process still runs; None for one of another machine, of which only its lease tells."""
    parts = owner.split("/")
    if len(parts) != 4 or parts[0] != machine():
        return None
    started = _started(int(parts[1]))
    return started != "" and started == parts[2]


def held(owner: str | None, lease_until: float, now: float) -> bool:
    """Whether what belongs to `owner` is to be left to it: it lives, or its lease, where that is all there is to go by."""
    alive = lives(owner) if owner else False
    return bool(alive) or (alive is None and lease_until > now)


def _started(pid: int) -> str:
    """When a process began, in ticks of the kernel; empty where there is none, or where it is dead and not yet collected."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if told[0] in ("Z", "X") else told[19]
