"""`medvl listen`: studies that a PACS or a scanner sends, or that appear in a folder, go through the model as they come."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import ConfigError

from .console import emit_json, say, warn
from .station import EXIT_STOPPED, Station, open_run, work

if TYPE_CHECKING:
    from medvl.batch.run import Run
    from medvl.network.receiver import Receiver

_LOOKS_S = 2.0


@dataclass(frozen=True)
class Door:
    """Where studies come in; see the options of `medvl listen`."""

    port: int | None = None
    ae_title: str = "MEDVL"
    host: str = "127.0.0.1"
    allow: tuple[str, ...] = ()
    allow_any: bool = False
    watch: Path | None = None
    quiet_s: float = 30.0
    keep_hours: float = 24.0
    min_free_gb: float = 5.0


def run(door: Door, station: Station, *, as_json: bool = False) -> int:
    """Exit code 0 after Ctrl-C or SIGTERM, 4 when the run had to stop.

    Raises:
        BundleError, ConfigError: as `medvl infer`, and for a port that is taken, a folder to watch that is not there, no way in,
            or nobody allowed.
    """
    if door.port is None and door.watch is None:
        raise ConfigError("nothing to listen to: give --port for C-STORE, --watch for a folder, or both")
    if door.port is not None and not door.allow and not door.allow_any:
        raise ConfigError("nobody may send: give --allow AE_TITLE for each sender (or --allow-any on a closed network)")
    if door.watch is not None and not door.watch.is_dir():
        raise ConfigError("--watch: there is no such folder; make it, or mount its disk")
    opened = open_run(station)
    if station.retry_refused:  # what was received before does not come again by itself
        told = {row["case_id"] for row in opened.dues.rows() if row["state"] == "refused" and row["target"] in station.send}
        opened.dues.owe(sorted(told), station.send, refused=True)
    with ExitStack() as stack:
        keeper = _receive(door, opened, stack) if door.port is not None else None
        if door.watch is not None:
            _watch(door.watch, door.quiet_s, opened, stack)
        stack.enter_context(_settling(opened, keeper))
        summary = work(opened, until=lambda: False)
    if as_json:
        emit_json(summary.as_dict())
    else:
        counts = {name: n for name, n in summary.statuses.items() if n}
        say(
            f"{len(summary.cases)} studies since the start: " + (", ".join(f"{n} {name}" for name, n in counts.items()) or "none")
        )
    return EXIT_STOPPED if summary.stopped not in ("", "interrupted") else 0


def _receive(door: Door, opened: Run, stack: ExitStack) -> Receiver:
    from medvl.network.receiver import Receiver

    receiver = Receiver(
        opened.folder.out / "received",
        port=door.port or 0,
        on_study=opened.finder.put,
        ae_title=door.ae_title,
        host=door.host,
        allowed=door.allow,
        allow_any=door.allow_any,
        quiet_s=door.quiet_s,
        min_free_bytes=int(door.min_free_gb * (1 << 30)),
        late_s=door.keep_hours * 3600,
    )
    stack.enter_context(receiver)
    warn(f"listening on {door.host or 'every interface'}, port {receiver.port}, as {door.ae_title}; Ctrl-C ends it")
    return receiver


def _watch(folder: Path, quiet_s: float, opened: Run, stack: ExitStack) -> None:
    from medvl.network.watch import FolderWatch

    stack.enter_context(FolderWatch(folder, quiet_s, opened.finder.put))
    warn("watching the folder; what lies in it is taken once nothing about it changes")


@contextmanager
def _settling(opened: Run, receiver: Receiver | None) -> Iterator[None]:
    """Meanwhile, tell the receiver of studies that are through, so that they are not offered again."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOKS_S):
            for path in opened.finder.through():
                if receiver is not None and path.is_relative_to(opened.folder.out / "received"):
                    receiver.done(path)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def allowed(titles: Sequence[str] | None) -> tuple[str, ...]:
    """AE titles, given one by one or joined by commas."""
    return tuple(title.strip() for given in titles or () for title in given.split(",") if title.strip())
