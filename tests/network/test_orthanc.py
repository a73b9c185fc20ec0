"""The tests of `orthanc_inner.py`, in a network namespace of their own, for Orthanc listens on every interface."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NAMESPACE = ("unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
PROGRAMS = ("Orthanc", "unshare", "ip", "dcmcrle", "storescu", "dcmsend")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.mark.slow
def test_against_a_real_orthanc(tmp_path: Path) -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or not PLUGIN.exists():
        pytest.skip(f"needs {', '.join(missing) or 'the DICOMweb plugin of Orthanc'}: apt install orthanc orthanc-dicomweb dcmtk")
    if subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a network namespace: unshare -rn fails")
    inner = Path(__file__).with_name("orthanc_inner.py")
    command = [
        *NAMESPACE,
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-olog_cli=true",
        "--log-cli-level=DEBUG",
        f"--basetemp={tmp_path / 'inner'}",
        str(inner),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    said = (done.stdout + done.stderr).lower()
    assert "planted" not in said
    assert "2.25." not in said, "a UID in a log"
