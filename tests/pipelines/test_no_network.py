"""A run and a check of the machine open no connection: neither do they try, nor do they need one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# Read by Python at every start, so that child processes are watched too. Sockets of this machine's own have a path as address.
SITE = """
import os, sys
LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
def hook(event, args):
    if event in LOOKUPS or (event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(args[1], tuple)):
        with open(os.environ["TRIED"], "a") as file:
            file.write(event + "\\n")
        raise OSError("no connection may be opened here")
with open(os.environ["TRIED"] + ".started", "a") as file:
    file.write("started\\n")
sys.addaudithook(hook)
"""
CONNECT = """
import socket
for what in (lambda: socket.create_connection(("127.0.0.1", 9)), lambda: socket.getaddrinfo("localhost", 9)):
    try:
        what()
    except OSError:
        pass
"""
DOCTOR = """
import sys
from pathlib import Path
from medvl_pipelines import doctor
sys.exit(doctor.run(bundle="phantom-demo", folder=Path(sys.argv[1]), as_json=True))
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One phantom study as DICOM."""
    from medvl_pipelines import phantom

    out = tmp_path_factory.mktemp("phantom")
    phantom.run(out, n=1, seed=3, formats=("dicom",), start=0, masks=False)
    return next(out.rglob("*.dcm")).parent


def watched(folder: Path, *command: object) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A command under a hook that refuses connections and look-ups of names, in its children as well; and what it tried."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    tried = folder / "tried"
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "TRIED": str(tried)}
    shown = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert Path(f"{tried}.started").is_file(), "the hook was never set"
    return shown, tried.read_text().splitlines() if tried.exists() else []


def namespaces() -> list[str]:
    """How a network namespace with nothing in it, not even loopback, can be made here; empty where it cannot."""
    for how in ("-n", "-rn"):
        if shutil.which("unshare") and subprocess.run(["unshare", how, "true"], capture_output=True, check=False).returncode == 0:
            return ["unshare", how]
    return []


needs_namespace = pytest.mark.skipif(not namespaces(), reason="no right to make a network namespace")


def without_network(*command: object) -> subprocess.CompletedProcess[str]:
    words = [*namespaces(), *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def infer(study: Path, out: Path) -> list[object]:
    return [Path(sys.executable).with_name("medvl"), "infer", study, "--bundle", "phantom-demo", "--out", out, "--json"]


def test_the_hook_sees_a_connection_and_a_look_up(tmp_path: Path) -> None:
    shown, tried = watched(tmp_path, sys.executable, "-c", CONNECT)
    assert shown.returncode == 0, shown.stderr
    assert set(tried) == {"socket.getaddrinfo"} and len(tried) == 2  # create_connection looks its host up first
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CONNECT!r}])"
    (tmp_path / "child").mkdir()
    assert len(watched(tmp_path / "child", sys.executable, "-c", child)[1]) == 2


def test_a_run_tries_no_connection(study: Path, tmp_path: Path) -> None:
    shown, tried = watched(tmp_path, *infer(study, tmp_path / "results"))
    assert shown.returncode == 0, shown.stderr
    assert tried == []
    assert len(list(tmp_path.glob("results/studies/*/findings.json"))) == 1


def test_the_doctor_tries_no_connection(tmp_path: Path) -> None:
    shown, tried = watched(tmp_path, sys.executable, "-c", DOCTOR, tmp_path)
    assert shown.returncode in (0, 3), shown.stderr
    assert tried == []


@needs_namespace
def test_a_run_needs_no_network(study: Path, tmp_path: Path) -> None:
    shown = without_network(*infer(study, tmp_path / "results"))
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["done"] == 1


@needs_namespace
def test_the_doctor_needs_no_network(tmp_path: Path) -> None:
    shown = without_network(sys.executable, "-c", DOCTOR, tmp_path)
    assert shown.returncode in (0, 3), shown.stderr
    assert {check["area"] for check in json.loads(shown.stdout)["checks"]} >= {"packages", "decoders", "storage", "bundle"}
