"""Why a whole run stops: what is nobody's study's fault, such as a full disk."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from medvl.errors import MedvlError
from medvl.inference.failure import failure

_FULL = (errno.ENOSPC, errno.EDQUOT)


class StoppedError(MedvlError):
    """The run cannot go on.

    Args:
        code: such as ``disk_full``.
        message: one sentence with the next step.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Stop:
    """Whether a run is to stop, and the first reason for it."""

    def __init__(self) -> None:
        self._event, self._lock = threading.Event(), threading.Lock()
        self.code, self.message = "", ""

    @property
    def set(self) -> bool:
        """Whether to stop."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until a reason to stop comes; whether it came."""
        return self._event.wait(seconds)

    def now(self, code: str, message: str) -> None:
        """Stop; the first reason given stands."""
        with self._lock:
            if not self._event.is_set():
                self.code, self.message = code, message
                self._event.set()

    def because(self, error: Exception) -> None:
        """Stop for an error that reached the top of a part of the run."""
        if isinstance(error, StoppedError):
            self.now(error.code, error.message)
        elif is_full(error):
            self.now("disk_full", "the disk of the results folder is full; make room and run the same command again")
        elif isinstance(error, OSError | DBAPIError):
            self.now(
                "results_unwritable", f"results or ledger cannot be written ({type(error).__name__}); check the folder's disk"
            )
        else:
            told = failure(error)
            self.now(told.code, told.message)


def is_full(error: BaseException) -> bool:
    """Whether an error says that there is no room left."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    if os.strerror(errno.ENOSPC) in str(error):  # a library of another language wrote, and told it in its own kind of error
        return True
    return isinstance(error, DBAPIError) and "disk is full" in str(error.orig)


def disk_guard(folder: Path, least: int) -> None:
    """Stop before the disk is full.

    Raises:
        StoppedError: less than `least` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < least:
        message = f"{free >> 20} MiB are free under the results folder, {least >> 20} are needed; make room and run on"
        raise StoppedError("disk_full", message)
