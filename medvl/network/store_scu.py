"""Send objects to a PACS over a DICOM association (C-STORE), and ask whether it is there (C-ECHO)."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from medvl.errors import InputError
from medvl.network.access import Access
from medvl.network.address import PeerAddress
from medvl.network.errors import DUPLICATE, Stored, hush, refused, unreachable

MAX_CONTEXTS = 128
_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_TRANSIENT, _NO_CONTEXT = 2, 0x0122
_WARNINGS = (0xB000, 0xB006, 0xB007)


def echo(address: PeerAddress, access: Access | None = None, timeout_s: float = 30.0) -> float:
    """Open an association and send C-ECHO; gives the seconds until the answer.

    Raises:
        InputError: ``pacs_unreachable`` or ``pacs_refused``.
    """
    start = time.perf_counter()
    with _associated(address, access, [build_context(Verification)], timeout_s) as association:
        status = association.send_c_echo()
    if "Status" not in status:
        raise unreachable("the PACS took the association and did not answer C-ECHO; it is tried again")
    if status.Status != 0:
        raise refused(f"the PACS answered C-ECHO with status {status.Status:04X}; ask its administrator to allow it")
    return time.perf_counter() - start


def send(address: PeerAddress, files: Sequence[Path], access: Access | None = None, timeout_s: float = 30.0) -> list[Stored]:
    """Send files in one association; one answer per file, in order. What the PACS has already counts as stored.

    Raises:
        InputError: ``pacs_unreachable`` when the association fails or breaks, after which all may be sent again;
            ``pacs_refused`` when the PACS does not take it; ``not_dicom`` for a file that is none.
    """
    heads = [_head(path) for path in files]
    contexts = _contexts(heads)
    if not contexts:
        return []
    with _associated(address, access, contexts, timeout_s) as association:
        return [_sent(association, path, head) for path, head in zip(files, heads, strict=True)]


def _head(path: Path) -> Dataset:
    """What the file says of itself, without its content."""
    try:
        head = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        needed: tuple[UID, ...] = (head.SOPClassUID, head.SOPInstanceUID, head.file_meta.TransferSyntaxUID)
    except (InvalidDicomError, AttributeError, OSError, ValueError):
        needed = ()
    if not needed or not all(needed):
        raise InputError("not_dicom", "a file to send is no DICOM file with class, UID and transfer syntax; make it again")
    return head


def _contexts(heads: Sequence[Dataset]) -> list[PresentationContext]:
    """One context per class and transfer syntax that is sent; uncompressed ones leave the choice to the PACS.

    Raises:
        InputError: more than an association can hold.
    """
    kinds: dict[tuple[UID, tuple[UID, ...]], None] = {}
    for head in heads:
        syntax = UID(head.file_meta.TransferSyntaxUID)
        kinds[head.SOPClassUID, _PLAIN if syntax in _PLAIN else (syntax,)] = None
    if len(kinds) > MAX_CONTEXTS:
        raise refused(f"{len(kinds)} kinds of objects in one send, an association holds {MAX_CONTEXTS}; send fewer files at once")
    return [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in kinds]


def _sent(association: Association, path: Path, head: Dataset) -> Stored:
    """Send one file and read the answer."""
    uid = str(head.SOPInstanceUID)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = association.send_c_store(dcmread(path))
    except ValueError:
        return Stored(uid, False, failure=_NO_CONTEXT)
    except RuntimeError:
        raise unreachable("the PACS ended the association before all files were sent; it is tried again") from None
    if "Status" not in status:
        raise unreachable("the PACS did not answer a C-STORE in time, or broke off; it is tried again")
    code = int(status.Status)
    if code in (0, DUPLICATE, *_WARNINGS):
        return Stored(uid, True, already=code == DUPLICATE, failure=0)
    return Stored(uid, False, failure=code)


@contextmanager
def _associated(
    address: PeerAddress, access: Access | None, contexts: list[PresentationContext], timeout_s: float
) -> Iterator[Association]:
    """An open association, released afterwards and aborted when the block fails."""
    hush()
    entity = AE(ae_title=address.calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    tls = ((access or Access()).context(), address.host) if address.tls else None
    raw: list[socket.socket | None] = []
    opened = (evt.EVT_CONN_OPEN, lambda event: raw.append(event.assoc.dul.socket.socket))
    where = (address.host, address.port)
    association = entity.associate(*where, contexts=contexts, ae_title=address.called, tls_args=tls, evt_handlers=[opened])
    done = False
    try:
        if not association.is_established:
            raise _why(association)
        yield association
        done = True
    finally:
        if association.is_established:
            association.release() if done else association.abort()
        # pynetdicom leaves the socket open when the other side closed it first, or never answered.
        left = association.dul.socket
        for one in (*raw, None if left is None else left.socket):
            if one is not None:
                one.close()


def _why(association: Association) -> InputError:
    """Why there is no association."""
    if association.is_rejected:
        answer = association.acceptor.primitive
        if answer is not None and answer.result == _TRANSIENT:
            return unreachable("the PACS takes no association just now; it is tried again")
        return refused("the PACS does not take the association; ask its administrator to enter our AE title, host and port")
    if association.acceptor.primitive is not None and not association.accepted_contexts:
        return refused("the PACS takes none of the kinds of objects sent; ask its administrator which it takes")
    return unreachable("no association with the PACS; check host, port, TLS and network")
