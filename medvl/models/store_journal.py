"""What was promoted when, one line each: the last whole line of the journal says which bundle is in use.

There is no second file that could say otherwise. A line counts once its newline is on the disk, so a process that dies while it
writes leaves the bundle in use that was in use before. Each line names the SHA-256 of the one before it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from medvl.errors import BundleError

Action = Literal["promote", "rollback"]


@dataclass(frozen=True)
class Promotion:
    """One line of the journal. It names bundles and no people; `reason` is what a person wrote.

    Args:
        n: 1 for the first line; at: UTC, ISO 8601; action: ``promote`` or ``rollback``.
        was: SHA-256 of the bundle in use before, or None; now: of the one in use since; name: of that one in the store.
        gate: SHA-256 of the gate's record that allowed it, or None; forced: whether the rules of promotion were overruled.
        previous: SHA-256 of the line before, "" for the first.
    """

    n: int
    at: str
    action: Action
    was: str | None
    now: str
    name: str
    gate: str | None = None
    forced: bool = False
    reason: str = ""
    previous: str = ""


class Journal:
    """The file `path`; only a holder of the store's lock may append."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Promotion, ...]:
        """Every whole line, oldest first.

        Raises:
            BundleError: a line was altered or taken out.
        """
        found: list[Promotion] = []
        previous = ""
        for n, line in enumerate(self._lines(), 1):
            try:
                entry = Promotion(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise BundleError(f"line {n} of {self.path.name} cannot be read; restore the journal from a backup") from error
            if entry.n != n or entry.previous != previous:
                raise BundleError(f"line {n} of {self.path.name} does not follow the line before; restore it from a backup")
            found.append(entry)
            previous = hashlib.sha256(line).hexdigest()
        return tuple(found)

    def append(self, action: Action, *, was: str | None, now: str, name: str, **told: Any) -> Promotion:
        """Add one line and have it on the disk; what a killed process left of a line is cut off first."""
        lines = self._lines()
        previous = hashlib.sha256(lines[-1]).hexdigest() if lines else ""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Promotion(len(lines) + 1, at, action, was, now, name, previous=previous, **told)
        text = json.dumps(asdict(entry), sort_keys=True).encode() + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            whole = sum(len(line) + 1 for line in lines)
            os.ftruncate(descriptor, whole)
            os.pwrite(descriptor, text, whole)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return entry

    def _lines(self) -> list[bytes]:
        """Lines that end in a newline, without it."""
        try:
            return self.path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []


def standing(lines: tuple[Promotion, ...]) -> list[str]:
    """SHA-256 of bundles, the one in use last: a promotion goes on top, a rollback takes the top away."""
    stack: list[str] = []
    for line in lines:
        if line.action == "rollback":
            stack.pop()
            continue
        if not stack and line.was is not None:
            stack.append(line.was)
        stack.append(line.now)
    return stack
