"""The folder that a study is fetched into: numbered whole files, and a note of which series are complete."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Literal

from medvl.errors import InputError
from medvl.files import private, replace_text
from medvl.network.errors import refused, unreachable

NOTE = ".fetched.json"
_NAME = re.compile(r"\d{6}\.dcm")
_MAGIC = 132


class Fetched:
    """What is in the folder, and the file that is arriving.

    Args:
        folder: made when absent; it and its files are for their owner alone. Files of series that an earlier call did
            not complete are removed.
        wanted: series UID to the number of images the PACS lists, None where it does not say.
        max_bytes: for all files together.
    """

    def __init__(self, folder: Path, wanted: Mapping[str, int | None], max_bytes: int) -> None:
        private(folder)
        self._folder, self._max_bytes = folder, max_bytes
        self._series, self.n_files, self._n_bytes = self._resume({_key(uid): n for uid, n in wanted.items()})
        self._arrived = self.n_files
        self._file: IO[bytes] | None = None
        self._first = b""

    def _resume(self, wanted: Mapping[str, int | None]) -> tuple[dict[str, int | None], int, int]:
        """The complete series, their files and bytes; nothing when the study has changed since or the files do not fit."""
        try:
            note = json.loads((self._folder / NOTE).read_text(encoding="utf-8"))
            series, n_files, n_bytes = dict(note["series"]), int(note["files"]), int(note["bytes"])
        except (OSError, ValueError, TypeError, KeyError):
            series, n_files, n_bytes = {}, 0, 0
        keep = [self._path(number) for number in range(1, n_files + 1)]
        same = all(key in wanted and wanted[key] == n for key, n in series.items())
        if not same or not all(path.is_file() for path in keep) or sum(path.stat().st_size for path in keep) != n_bytes:
            series, n_files, n_bytes, keep = {}, 0, 0, []
            (self._folder / NOTE).unlink(missing_ok=True)
        for path in self._folder.iterdir():
            if (_NAME.fullmatch(path.name) and path not in keep) or path.name.endswith(".part"):
                path.unlink()
        return series, n_files, n_bytes

    def has(self, series_uid: str) -> bool:
        """True when the series is complete."""
        return _key(series_uid) in self._series

    def take(self, kind: Literal["start", "data", "end"], data: bytes) -> None:
        """One piece of a file.

        Raises:
            InputError: ``too_large``, or ``pacs_refused`` when it is no DICOM file.
        """
        if kind == "start":
            self._first = b""
            self._part.unlink(missing_ok=True)
            self._file = os.fdopen(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        elif kind == "data" and self._file is not None:
            self._n_bytes += len(data)
            if self._n_bytes > self._max_bytes:
                self.close()
                raise InputError(
                    "too_large", f"the images take more than {self._max_bytes} bytes; allow more, or leave this study out"
                )
            self._first = (self._first + data)[:_MAGIC] if len(self._first) < _MAGIC else self._first
            self._file.write(data)
        elif kind == "end":
            self.close()
            if self._first[128:] != b"DICM":
                raise refused("the PACS sent something that is no DICOM file; check the path of the address")
            self._arrived += 1
            self._part.replace(self._path(self._arrived))

    def finish(self, series_uid: str, expected: int | None) -> None:
        """Note that the series is complete.

        Raises:
            InputError: ``pacs_unreachable`` when fewer images came than the PACS lists.
        """
        came = self._arrived - self.n_files
        if expected is not None and came < expected:
            raise unreachable(f"the PACS lists {expected} images of a series and sent {came}; it is tried again")
        self._series[_key(series_uid)] = expected
        self.n_files = self._arrived
        note = {"series": self._series, "files": self.n_files, "bytes": self._n_bytes}
        replace_text(self._folder / NOTE, json.dumps(note), mode=0o600)

    @property
    def _part(self) -> Path:
        return self._folder / ".arriving.part"

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.dcm"

    def close(self) -> None:
        """Close the file that is arriving; the next call begins its series again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _key(series_uid: str) -> str:
    """A short name of the series for the note."""
    return hashlib.sha256(series_uid.encode()).hexdigest()[:16]
