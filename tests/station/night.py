"""What a hospital's night shift does: calls the command, sends studies, asks the PACS what it holds, cuts its network."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orthanc import LOGIN, Pacs
from pydicom import Dataset, dcmread

from medvl.network.address import WebAddress, parse
from medvl.network.dicomweb import DicomWeb

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
MODALITY_OF = {"sr": "SR", "seg": "SEG", "page": "OT", "pdf": "DOC"}


def medvl(*words: object) -> list[str]:
    """The command line."""
    return [sys.executable, "-c", "from medvl_pipelines.cli import main; main()", *map(str, words)]


def call(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(medvl(*words), check=False, capture_output=True, text=True, env=ENVIRONMENT, timeout=600)


def until(true: Callable[[], bool], what: str, limit_s: float = 300.0) -> None:
    """Wait for something."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, f"{what}: it did not happen"
        time.sleep(0.1)


def web(text: str) -> WebAddress:
    """The address of a DICOMweb service."""
    address = parse(text)
    assert isinstance(address, WebAddress)
    return address


def upload(pacs: Pacs, *folders: Path) -> None:
    """Store studies in the PACS, as a scanner would have done."""
    with DicomWeb(web(pacs.web), LOGIN) as client:
        for folder in folders:
            assert all(one.stored for one in client.store(sorted(p for p in folder.rglob("*") if p.is_file())))


def storescu(port: int, folder: Path) -> None:
    """Send a study by C-STORE with dcmtk."""
    command = ["storescu", "-aet", "CT1", "-aec", "MEDVL", "+sd", "+r", "127.0.0.1", str(port), str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def first(folder: Path) -> Dataset:
    """The header of one file of a folder."""
    return dcmread(next(p for p in sorted(folder.rglob("*")) if p.is_file()), stop_before_pixels=True)


def results_in(pacs: Pacs, study_uid: str, back: Path) -> dict[str, list[Path]]:
    """What the PACS gives back of a study by modality, without its images."""
    found = {}
    with DicomWeb(web(pacs.web), LOGIN) as client:
        for kind, modality in MODALITY_OF.items():
            folder = back / kind
            client.fetch(study_uid, folder, max_bytes=1 << 28, modality=modality)
            found[kind] = sorted(folder.glob("*.dcm"))
    return found


def held(pacs: Pacs) -> Counter[str]:
    """Number of instances by modality, the images left out."""
    counted: Counter[str] = Counter()
    for series in pacs.rest("/series?expand"):
        counted[series["MainDicomTags"]["Modality"]] += len(series["Instances"])
    del counted["CT"]
    return counted


def sent_from(results: Path) -> dict[str, Path]:
    """The objects that a results folder holds, by SOP instance UID."""
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in results.glob("studies/*/dicom/*.dcm")}


def errors_of(path: Path) -> list[str]:
    """What dciodvfy holds against a file."""
    shown = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, errors="replace", check=False)
    return [line for line in (shown.stdout + shown.stderr).splitlines() if line.startswith("Error")]


class Cutter:
    """A network that drops a connection in the middle of a long answer, `cuts` times; then it is whole."""

    def __init__(self, to: int, cuts: int, after: int = 300_000) -> None:
        self._to, self.cuts, self._after = to, cuts, after
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])

    def serve(self) -> None:
        """Until closed: pass on."""
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            for one, other, counted in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pass, args=(one, other, counted), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, counted: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := one.recv(65536):
                passed += len(data)
                if counted and passed > self._after and self._cut():
                    break
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            if counted:
                end.close()

    def _cut(self) -> bool:
        with self._lock:
            cut, self.cuts = self.cuts > 0, max(0, self.cuts - 1)
        return cut

    def close(self) -> None:
        """Take no more connections."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@contextmanager
def cutting(to: int, cuts: int) -> Iterator[Cutter]:
    """A `Cutter` at work."""
    cutter = Cutter(to, cuts)
    thread = threading.Thread(target=cutter.serve, daemon=True)
    thread.start()
    try:
        yield cutter
    finally:
        cutter.close()
        thread.join()
