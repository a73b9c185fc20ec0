"""Fixtures of the network tests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

EXTENSIONS = "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"


def openssl(*words: str, folder: Path) -> None:
    """One openssl command."""
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def own_ca() -> Callable[[Path], tuple[Path, Path]]:
    """Make a certificate authority and a server certificate for 127.0.0.1: the CA file, and certificate with key in one file."""

    def make(folder: Path) -> tuple[Path, Path]:
        folder.mkdir(parents=True)
        (folder / "ext").write_text(EXTENSIONS)
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl(
            "req",
            "-x509",
            *new,
            *usage,
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "30",
            "-subj",
            "/CN=Test CA",
            folder=folder,
        )
        openssl("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost", folder=folder)
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "ext")
        openssl("x509", "-req", "-in", "server.csr", *signed, "-out", "server.crt", folder=folder)
        (folder / "server.pem").write_bytes((folder / "server.key").read_bytes() + (folder / "server.crt").read_bytes())
        return folder / "ca.pem", folder / "server.pem"

    return make
