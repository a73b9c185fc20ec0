"""The PACS: does it answer, and is our own port free?"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from medvl.doctor.check import Check
from medvl.errors import ConfigError, InputError

if TYPE_CHECKING:
    from medvl.network.address import PeerAddress, WebAddress

TIMEOUT_S = 10.0


def check_pacs(address: str | None) -> Iterator[Check]:
    """Greet a PACS: C-ECHO, or a DICOMweb query for one study. The answer is dropped.

    Args:
        address: ``dicom://AE@host:port`` or ``dicomweb+https://host/path``; credentials come from the environment. None greets
            nobody.
    """
    if address is None:
        return
    from medvl.network.address import parse

    try:
        seconds = _greet(parse(address))
    except ConfigError as error:
        yield Check("network", "PACS", "problem", f"{_sentence(str(error))}", "Correct the address or the credentials.")
    except InputError as error:
        yield Check("network", "PACS", "problem", "It does not answer as it should.", _sentence(error.message))
    else:
        yield Check("network", "PACS", "ok", f"It answers in {1000 * seconds:.0f} ms.", facts={"seconds": round(seconds, 4)})


def _greet(address: WebAddress | PeerAddress) -> float:
    """Seconds until the answer."""
    from medvl.network.access import access_from
    from medvl.network.address import WebAddress

    access = access_from(os.environ)
    if isinstance(address, WebAddress):
        from medvl.network.dicomweb import DicomWeb

        with DicomWeb(address, access, timeout_s=TIMEOUT_S) as service:
            return service.echo()
    from medvl.network.store_scu import echo

    return echo(address, access, timeout_s=TIMEOUT_S)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def check_listen(port: int | None) -> Iterator[Check]:
    """Whether `medvl listen` could take `port`: it is bound for a moment, without listening."""
    if port is None:
        return
    name, facts = f"port {port}", {"port": port}
    if not 0 < port < 65536:
        yield Check("network", name, "problem", "There is no such port.", "Name a port from 1 to 65535, such as 11112.", facts)
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind(("", port))
        except OSError as error:
            yield _not_free(name, error, facts)
            return
    yield Check("network", name, "ok", "Free for medvl listen.", facts=facts)


def _not_free(name: str, error: OSError, facts: dict[str, int]) -> Check:
    if error.errno == errno.EACCES:
        fix = "Name a port from 1024 on, such as 11112; lower ones are for the superuser."
        return Check("network", name, "problem", "This user may not take it.", fix, facts)
    fix = "Stop the program that has it (ss -ltnp shows which), or name another port."
    return Check("network", name, "problem", "It is taken by another program.", fix, facts)
