"""A real Orthanc for tests, and the network namespace that it needs, for it listens on every interface."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import requests

from medvl.network.access import Access

LOGIN = Access(user="night", password="planted-secret")
NAMESPACE = ("unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def in_namespace(inner: Path, folder: Path, *words: str, programs: Sequence[str] = (), timeout_s: float = 300.0) -> str:
    """Run the tests of a file in a network namespace of their own; what they said. Skips where a program is missing."""
    needed = ("Orthanc", "unshare", "ip", "storescu", *programs)
    missing = [name for name in needed if shutil.which(name) is None]
    if missing or not PLUGIN.exists():
        told = ", ".join(missing) or "the DICOMweb plugin of Orthanc"
        pytest.skip(f"needs {told}: apt install orthanc orthanc-dicomweb dcmtk dicom3tools poppler-utils")
    if subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a network namespace: unshare -rn fails")
    command = [*NAMESPACE, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words, f"--basetemp={folder / 'inner'}"]
    done = subprocess.run([*command, str(inner)], check=False, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Pacs:
    """An Orthanc with a folder and ports of its own, and a login; it can be stopped and started again.

    Args:
        folder: of its database and log.
        http, dicom: ports.
    """

    folder: Path
    http: int
    dicom: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def web(self) -> str:
        """Its address for DICOMweb."""
        return f"dicomweb+http://127.0.0.1:{self.http}/dicom-web"

    @property
    def peer(self) -> str:
        """Its address for C-STORE."""
        return f"dicom://ORTHANC@127.0.0.1:{self.dicom}"

    def start(self) -> Pacs:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = {
            "Name": "TEST",
            "StorageDirectory": str(self.folder / "db"),
            "IndexDirectory": str(self.folder / "db"),
            "HttpPort": self.http,
            "DicomPort": self.dicom,
            "DicomAet": "ORTHANC",
            "Plugins": [str(PLUGIN)],
            "RemoteAccessAllowed": True,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {LOGIN.user: LOGIN.password},
        }
        (self.folder / "orthanc.json").write_text(json.dumps(config))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(["Orthanc", str(self.folder / "orthanc.json")], stdout=log, stderr=log)
        end = time.monotonic() + 30
        while not _answers(f"http://127.0.0.1:{self.http}/"):
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        """End it; what it holds stays in its folder."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def rest(self, path: str) -> Any:
        """What its own REST interface says."""
        answer = requests.get(f"http://127.0.0.1:{self.http}{path}", auth=(LOGIN.user, LOGIN.password), timeout=30)
        answer.raise_for_status()
        return answer.json()

    def last_change(self) -> int:
        """Number of its last change so far, for `new_since`."""
        return int(self.rest("/changes?last")["Last"])

    def new_since(self, number: int) -> list[str]:
        """What was stored anew after a change: kinds of changes, without notes such as that a study seems complete."""
        changes = self.rest(f"/changes?since={number}&limit=10000")["Changes"]
        return [change["ChangeType"] for change in changes if change["ChangeType"].startswith("New")]


def new_pacs(folder: Path) -> Pacs:
    """One that does not run yet."""
    return Pacs(folder, free_port(), free_port())


def _answers(url: str) -> bool:
    """True once an HTTP server answers anything."""
    try:
        urlopen(url, timeout=5).close()
    except HTTPError as error:
        error.close()
    except OSError:
        return False
    return True
