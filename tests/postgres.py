"""A PostgreSQL server of a test's own, on a socket in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgres() -> Iterator[str]:
    """Its address. Skips where there is no PostgreSQL, or nobody allowed to start one as its own user."""
    pytest.importorskip("psycopg", reason="the server extra is not installed")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").is_dir() else []
    if not programs or os.geteuid() != 0 or shutil.which("runuser") is None:
        pytest.skip("no PostgreSQL, or not root to start one as its own user")
    folder = Path(tempfile.mkdtemp(prefix="medvl-pg-"))  # not below pytest's own folder, which only its owner may enter
    folder.chmod(0o755)
    data, socket = folder / "data", folder / "socket"
    for path in (data, socket):
        path.mkdir()
        shutil.chown(path, "postgres")

    def as_postgres(*command: str) -> None:
        done = subprocess.run(
            ["runuser", "-u", "postgres", "--", *command], check=False, capture_output=True, cwd=folder, text=True
        )
        log = data / "log"
        assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")

    as_postgres(str(programs[-1] / "initdb"), "-D", str(data), "-A", "trust")
    options = f"-c listen_addresses='' -c unix_socket_directories={socket}"
    as_postgres(str(programs[-1] / "pg_ctl"), "-D", str(data), "-l", str(data / "log"), "-w", "-o", options, "start")
    try:
        yield f"postgresql://postgres@/postgres?host={socket}"
    finally:
        as_postgres(str(programs[-1] / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder)
