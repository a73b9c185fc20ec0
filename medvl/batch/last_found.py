"""Series that were just found, so that reading them next does not read their headers again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medvl.imaging.load import Entry

KEPT = 2  # headers of a study take some megabytes
Stamp = tuple[tuple[int, int, int, int, int], ...]


class LastFound:
    """The last few series found by this process, given back once, while their files are what they were."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, tuple[str, ...]], tuple[Entry, Stamp]] = {}

    def keep(self, path: str, entry: Entry) -> None:
        """Remember a series of the input `path`."""
        stamp = _stamp(entry)
        if stamp is None:
            return
        self._kept[path, entry.names] = entry, stamp
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def take(self, path: str, names: Iterable[str]) -> Entry | None:
        """The series of these files; None where it is not remembered, or one of them has changed since."""
        entry, stamp = self._kept.pop((path, tuple(names)), (None, None))
        return entry if entry is not None and _stamp(entry) == stamp else None


def _stamp(entry: Entry) -> Stamp | None:
    """What tells whether the files of a DICOM series are the same still; None for other series, and where one is gone."""
    if entry.series is None or not entry.series.frames:
        return None
    paths: dict[Path, None] = dict.fromkeys(frame.item.path for frame in entry.series.frames)
    try:
        found = [path.stat() for path in paths]
    except OSError:
        return None
    return tuple((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found)
