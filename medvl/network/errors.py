"""What the network can do wrong, in two codes: `pacs_unreachable` (try again later) and `pacs_refused` (a person must act).

No message names a patient, a UID, an address's filters or a secret, so every one of them may be logged.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import requests

from medvl.errors import InputError

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_TALKATIVE = ("dicomweb_client", "pynetdicom", "retrying", "urllib3.connectionpool")
_LATER = frozenset((408, 425, 429, 500, 502, 503, 504, 507))
DUPLICATE, NO_ROOM = 0x0111, range(0xA700, 0xA800)


@dataclass(frozen=True)
class Stored:
    """What a PACS answered for one object.

    Args:
        sop_uid: of the object, as it was sent; not shown.
        stored: the PACS has it now.
        already: it had it before.
        failure: the DICOM status or failure reason; 0 without one.
    """

    sop_uid: str = field(repr=False)
    stored: bool
    already: bool = False
    failure: int = 0

    @property
    def retryable(self) -> bool:
        """True when the PACS was only out of room."""
        return not self.stored and self.failure in NO_ROOM


def unreachable(message: str) -> InputError:
    """The PACS gave no answer, or asks to come back later."""
    return InputError("pacs_unreachable", message)


def refused(message: str) -> InputError:
    """The PACS answered no, or something that is no answer: asking again changes nothing."""
    return InputError("pacs_refused", message)


def retryable(error: BaseException) -> bool:
    """True when the same request may succeed later without anybody changing anything."""
    return isinstance(error, InputError) and error.code == "pacs_unreachable"


def is_uid(text: str) -> bool:
    """True for at most 64 digits and dots, each dot between digits: safe in an address, never a path with `..`."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def hush() -> None:
    """Silence the loggers of the network libraries, which print addresses and data sets with identifiers."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn what `requests` raises in the block into one of the two codes; the original, which shows the address, is dropped."""
    try:
        yield
    except requests.exceptions.RequestException as error:
        told_error = _explain(error, doing)
    else:
        return
    raise told_error from None


def _explain(error: requests.exceptions.RequestException, doing: str) -> InputError:
    """The error for a failed HTTP request."""
    kinds = requests.exceptions
    if isinstance(error, kinds.HTTPError) and error.response is not None:
        return of_status(error.response.status_code, doing)
    if isinstance(error, kinds.SSLError):
        return _explain_tls(error, doing)
    if isinstance(error, kinds.Timeout):
        return unreachable(f"the PACS gave no answer in time while {doing}; it is tried again, or allow more time")
    if isinstance(error, (kinds.ConnectionError, kinds.ChunkedEncodingError, kinds.ContentDecodingError)):
        return unreachable(f"no connection to the PACS, or it broke, while {doing}; check host, port and network")
    why = f"the request is not possible ({type(error).__name__}) while {doing}; check the address"
    if isinstance(error, kinds.TooManyRedirects):
        why = f"the PACS redirected while {doing}; give the address it redirects to, so that no credentials travel"
    elif isinstance(error, kinds.JSONDecodeError):
        why = f"the PACS did not answer in DICOM JSON while {doing}; check the path of the address"
    return refused(why)


def _explain_tls(error: Exception, doing: str) -> InputError:
    """A certificate is a matter for a person; a handshake cut short may be a server that is starting."""
    reasons = list(_causes(error))
    if any(isinstance(reason, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) for reason in reasons):
        return unreachable(f"the PACS closed the connection during the TLS handshake while {doing}; it is tried again")
    if any(isinstance(reason, ssl.SSLCertVerificationError) for reason in reasons):
        return refused(f"the certificate of the PACS is not trusted while {doing}; give the authority's file as CA bundle")
    return refused(f"TLS with the PACS failed while {doing}; check the port, the protocol and the client certificate")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that it wraps."""
    seen: list[BaseException] = []
    todo = [error]
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.append(one)
            yield one
            wrapped = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
            todo += [other for other in wrapped if isinstance(other, BaseException)]


def of_status(status: int, doing: str) -> InputError:
    """The error for an HTTP status that is no success."""
    said = f"the PACS answered HTTP {status} while {doing}"
    if status in _LATER:
        return unreachable(f"{said}; it is tried again later")
    if status in (401, 403):
        return refused(f"{said}; check user and password, or the token, and their rights")
    if status == 413:
        return refused(f"{said}: too much at once; narrow the filters of the address, or raise the server's limit")
    return refused(f"{said}; check the path of the address and what the server allows")
