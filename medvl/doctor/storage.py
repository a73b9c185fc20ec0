"""Disks: room, and whether a folder keeps the promises that results and the ledger rest on. Network shares often do not."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from medvl.doctor.check import Check, size

LEAST_ROOM, GOOD_ROOM = 1 << 30, 10 << 30
SHARES = ("nfs", "cifs", "smb", "9p", "ceph", "lustre", "gfs", "fuse.", "afs", "glusterfs", "beegfs")


def check_storage(out: Path | None) -> Iterator[Check]:
    """The folder for results, if one is named, and the one for temporary files."""
    folders = {"temporary folder": Path(tempfile.gettempdir())}
    if out is not None:
        folders = {"results folder": out, **folders}
    for name, folder in folders.items():
        yield from check_folder(name, folder)


def check_folder(name: str, folder: Path) -> Iterator[Check]:
    """Room and writing in `folder`, or where it would be made; what is written for the test goes away again."""
    place = next((p for p in (folder, *folder.absolute().parents) if p.exists()), None)
    if place is None or not place.is_dir():
        yield Check("storage", name, "problem", "It is a file, or its disk is not there.", "Name a folder on a mounted disk.")
        return
    yield check_room(name, shutil.disk_usage(place).free)
    try:
        with tempfile.TemporaryDirectory(prefix=".medvl-doctor-", dir=place) as trial:
            yield check_writing(name, Path(trial))
            yield check_ledger(name, Path(trial), share(place))
    except OSError as error:
        fix = "Give this user the right to write there, or name another folder with --out."
        yield Check("storage", name, "problem", f"It cannot be written to ({error.strerror or type(error).__name__}).", fix)


def check_room(name: str, free: int) -> Check:
    """Free bytes; a study's results are a few MB, its temporary files up to its own size."""
    if free < LEAST_ROOM:
        return Check(
            "storage", name, "problem", f"{size(free)} free.", "Free some space, or use another disk.", {"free_bytes": free}
        )
    if free < GOOD_ROOM:
        fix = f"Have {size(GOOD_ROOM)} free before a long run."
        return Check("storage", name, "warning", f"{size(free)} free.", fix, {"free_bytes": free})
    return Check("storage", name, "ok", f"{size(free)} free.", facts={"free_bytes": free})


def check_writing(name: str, trial: Path) -> Check:
    """Write, force to disk, replace in one move, refuse to make a file twice."""
    what, fix = f"{name}, writing", "Put results on a local disk and copy them when the run has ended."
    try:
        for text in ("old", "new"):
            part = trial / "part"
            with part.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(trial / "whole")
        _sync_folder(trial)
        whole = (trial / "whole").read_text(encoding="utf-8") == "new" and not (trial / "part").exists()
        os.close(os.open(trial / "lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        return Check("storage", what, "problem", f"Whole files are not kept ({error.strerror or type(error).__name__}).", fix)
    try:
        os.close(os.open(trial / "lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if whole:
            return Check("storage", what, "ok", "Writes, forces to disk, and replaces files in one move.")
    return Check("storage", what, "problem", "Files can be made twice, or are not replaced in one move.", fix)


def _sync_folder(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def check_ledger(name: str, trial: Path, kind: str) -> Check:
    """An SQLite database with a write-ahead log: a second connection reads while the first writes, and sees it once committed."""
    what, facts = f"{name}, ledger", {"file_system": kind}
    fix = "Put the ledger on a local disk; network shares do not keep it safe."
    try:
        seen = _reads_while_writing(trial / "ledger.sqlite")
    except sqlite3.Error as error:
        return Check("storage", what, "problem", f"SQLite with a write-ahead log does not work here ({error}).", fix, facts)
    if seen != (0, 1):
        said = "SQLite with a write-ahead log does not work here (a reader waits, or sees what is not committed)."
        return Check("storage", what, "problem", said, fix, facts)
    if kind.startswith(SHARES):
        said = f"SQLite works, but the folder is a network share ({kind}), where two machines can damage the database."
        return Check("storage", what, "warning", said, fix, facts)
    return Check("storage", what, "ok", "SQLite with a write-ahead log works.", facts=facts)


def _reads_while_writing(path: Path) -> tuple[int, int]:
    """Rows that a reader sees before and after the commit of one row; (-1, -1) where the log cannot be turned on."""
    with (
        closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as writer,
        closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as reader,
    ):
        if writer.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
            return -1, -1
        writer.execute("PRAGMA synchronous=FULL")
        writer.execute("CREATE TABLE t (x INTEGER)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (1)")
        before = reader.execute("SELECT count(*) FROM t").fetchone()[0]
        writer.execute("COMMIT")
        return before, reader.execute("SELECT count(*) FROM t").fetchone()[0]


def share(folder: Path, table: Path = Path("/proc/self/mountinfo")) -> str:
    """Kind of the file system that `folder` lies on, such as ext4 or nfs4; empty where the system does not say."""
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    here, best, kind = folder.resolve(), -1, ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4].replace("\\040", " "))
        if here.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), right.split()[0]
    return kind
