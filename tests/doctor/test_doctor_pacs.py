"""Greeting a PACS: one that answers, one that does not, and addresses that cannot be used."""

import socket
from collections.abc import Iterator

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from medvl.doctor.pacs import check_pacs


@pytest.fixture
def pacs_port() -> Iterator[int]:
    """A PACS of this process that knows only C-ECHO."""
    entity = AE(ae_title="PACS")
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_pacs_that_answers(pacs_port: int) -> None:
    (told,) = check_pacs(f"dicom://PACS@127.0.0.1:{pacs_port}")
    assert told.status == "ok" and told.facts["seconds"] < 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom leaves the socket open
@pytest.mark.parametrize("scheme", ["dicom://PACS@127.0.0.1:{}", "dicomweb+http://127.0.0.1:{}/dicom-web"])
def test_nobody_there(scheme: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (told,) = check_pacs(scheme.format(port))
    assert told.status == "problem" and "check host" in told.fix


def test_an_address_that_cannot_be_used_is_not_repeated() -> None:
    (told,) = check_pacs("ftp://secret.example/x")
    assert told.status == "problem" and "secret" not in told.found + told.fix
    assert list(check_pacs(None)) == []
