"""Reads the images a reader will probably want next, in the background, one study at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from medvl.errors import InputError

WAIT_SECONDS = 1.5  # the study just opened is sent to the browser first


class ReadAhead:
    """One thread for a whole viewer process; the latest wish replaces those not begun.

    Args:
        read: reads the image of a case and keeps it; what it raises as `InputError` is left for the page to show.
        prepare: run once at the first wish, such as imports that the first study opened would wait for.
        wait_s: rest before reading, in seconds.
    """

    def __init__(
        self, read: Callable[[str], object], prepare: Callable[[], object] = lambda: None, wait_s: float = WAIT_SECONDS
    ) -> None:
        self._read = read
        self._prepare = prepare
        self._wait_s = wait_s
        self._wished: list[str] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def wish(self, case_ids: Sequence[str]) -> None:
        """Read these cases soon; returns at once."""
        with self._changed:
            self._wished[:] = case_ids
            self._changed.notify()
            if self._thread is None and case_ids:
                self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        self._prepare()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._wished))
                while self._changed.wait(self._wait_s):
                    pass  # a newer wish: rest anew
                if not self._wished:
                    continue
                case_id = self._wished.pop(0)
            try:
                self._read(case_id)
            except InputError:
                continue
