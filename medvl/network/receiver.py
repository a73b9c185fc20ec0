"""Receive studies: C-ECHO and C-STORE, each file on the disk before it is acknowledged, each study handed on once it is quiet."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from medvl.dicom.header import read_header, text
from medvl.errors import ConfigError, InputError
from medvl.network.address import is_ae_title
from medvl.network.errors import hush, is_uid
from medvl.network.spool import Spool

OK, NO_ROOM, BAD_UID, BAD_HEADER, OTHER_UID = 0x0000, 0xA700, 0xC001, 0xC002, 0xC003
STUDY_UID, SOP_UID = 0x0020000D, 0x00080018
NETWORK_S, GREETING_S, STOP_S = 60.0, 10.0, 5.0
COMMAND_BYTES, MAX_OTHER_PDU = 4096, 1 << 20
_LOG = logging.getLogger(__name__)


@dataclass
class _Peer:
    """An association: the study it is sending, when it last sent, bytes that came and are not yet stored, its socket."""

    study: str = ""
    last: float = 0.0
    pending: int = 0
    raw: socket.socket | None = None


@dataclass
class Counts:
    """What a receiver did since it started."""

    stored: int = 0
    refused: int = 0
    studies: int = 0


class Receiver:
    """A storage SCP; a context manager, or `start` and `stop`.

    Args:
        folder: for the received studies; layout and late images as `medvl.network.spool` says.
        port: to listen on; 0 takes a free one, see `port`.
        on_study: called with the folder of each complete study, from one thread; must return soon. Called again after a restart
            for each study that was not `done`, and a minute later when it fails.
        ae_title: ours; callers that call another one are refused.
        host: address to listen on; ``""`` is every interface.
        allowed: AE titles that may send. Empty refuses everybody, unless `allow_any`.
        quiet_s: a study is complete when nothing came for so long and no association is in the middle of it.
        min_free_bytes: below this much room on the disk, senders are told to come back later (status A700).
        max_pdu: longest message part to take, in bytes.
        max_instance_bytes: an association that sends a longer object, held in memory while it arrives, is aborted.
        max_associations: more at once are refused for the moment.
        late_s: how long a done study is kept so that late images make a new version that is whole.

    Raises:
        ConfigError: an AE title or limit makes no sense, another receiver uses the folder, or (`start`) the port is taken.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        on_study: Callable[[Path], None],
        ae_title: str = "MEDVL",
        host: str = "127.0.0.1",
        allowed: Sequence[str] = (),
        allow_any: bool = False,
        quiet_s: float = 30.0,
        min_free_bytes: int = 5 << 30,
        max_pdu: int = 1 << 17,
        max_instance_bytes: int = 2 << 30,
        max_associations: int = 10,
        late_s: float = 3600.0,
    ) -> None:
        if not all(is_ae_title(title) for title in (ae_title, *allowed)):
            raise ConfigError("an AE title has 1 to 16 plain characters and no backslash; correct ours or an allowed one")
        if allowed and allow_any:
            raise ConfigError("either some callers are allowed or any; give one of the two")
        hush()
        self.counts = Counts()
        self._folder, self._host, self._port, self._on_study = folder, host, port, on_study
        self._quiet_s, self._late_s, self._min_free_bytes = quiet_s, late_s, min_free_bytes
        self._max_instance_bytes = max_instance_bytes
        self._peers: dict[Association, _Peer] = {}
        self._stop = threading.Event()
        self._offers: list[tuple[float, Path]] = []
        self._entity = AE(ae_title=ae_title)
        self._entity.require_called_aet = True
        # pynetdicom reads an empty list as "anybody": a title that nobody has refuses all.
        self._entity.require_calling_aet = [] if allow_any else list(allowed) or [uuid.uuid4().hex[:16]]
        self._entity.maximum_associations, self._entity.maximum_pdu_size = max_associations, max_pdu
        self._entity.network_timeout = self._entity.dimse_timeout = NETWORK_S
        self._entity.acse_timeout = GREETING_S
        self._entity.supported_contexts = []
        self._entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(context.abstract_syntax or "", ALL_TRANSFER_SYNTAXES)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    def start(self) -> Receiver:
        """Listen, and hand on what an earlier run left."""
        self._stop.clear()
        self._spool = Spool(self._folder, self._quiet_s, self._late_s)
        self._offers = [(0.0, path) for path in self._spool.waiting()]
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_PDU_RECV, self._received),
            (evt.EVT_C_ECHO, lambda _event: OK),
            (evt.EVT_C_STORE, self._stored),
        ]
        try:
            server = self._entity.start_server((self._host, self._port), block=False, evt_handlers=handlers)
        except (OSError, OverflowError) as error:
            self._spool.close()
            raise ConfigError(
                f"cannot listen on port {self._port} ({type(error).__name__}); choose a free one above 1023"
            ) from None
        if server is not None:
            self._port = int(server.server_address[1])
        self._keeper = threading.Thread(target=self._keep, name="medvl-receiver", daemon=True)
        self._keeper.start()
        return self

    def stop(self) -> None:
        """End the associations and stop listening. Studies that are not complete go on at the next start."""
        self._stop.set()
        self._hang_up()
        self._entity.shutdown()
        self._keeper.join()
        for association in list(self._peers):
            association.join(STOP_S)
        self._forget()
        self._spool.close()

    def _hang_up(self) -> None:
        """Close connections that hold no association: refused, over, or not begun. pynetdicom cannot abort what is none."""
        for association, peer in list(self._peers.items()):
            if association.is_established or peer.raw is None:
                continue
            with suppress(OSError):  # it is closed already
                peer.raw.shutdown(socket.SHUT_RDWR)
            association.dul.to_user_queue.put(None)  # type: ignore[arg-type]  # what its thread finds when no greeting comes
            association.join(STOP_S)

    def __enter__(self) -> Receiver:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def done(self, path: Path) -> None:
        """The study in this folder is processed; the folder goes."""
        self._spool.done(path)

    def _opened(self, event: evt.Event) -> None:
        """A caller connected: bound what it may make us read at once, before we know who it is."""
        wrapped = event.assoc.dul.socket
        self._peers[event.assoc] = _Peer(last=time.monotonic(), raw=None if wrapped is None else wrapped.socket)
        if wrapped is None:
            return
        recv, longest = wrapped.recv, max(self._entity.maximum_pdu_size + 6, MAX_OTHER_PDU)

        def bounded(nr_bytes: int) -> bytearray:
            if nr_bytes > longest:
                raise ConnectionAbortedError("a PDU longer than we allow")
            return recv(nr_bytes)

        wrapped.recv = bounded  # type: ignore[method-assign]

    def _received(self, event: evt.Event) -> None:
        """A part of a message came."""
        if not isinstance(event.pdu, P_DATA_TF):
            return
        peer = self._peers[event.assoc]
        peer.last = time.monotonic()
        peer.pending += event.pdu.pdu_length
        if peer.pending > self._max_instance_bytes + COMMAND_BYTES:
            _LOG.warning(
                "an object of more than %d bytes was refused; raise the limit if it is genuine", self._max_instance_bytes
            )
            self.counts.refused += 1
            event.assoc.abort()

    def _stored(self, event: evt.Event) -> int:
        """Keep one object; its status."""
        data = cast(C_STORE, event.request).DataSet
        size = 0 if data is None else len(data.getbuffer())
        try:
            status = self._take(event, size)
        except InputError as error:
            status = BAD_UID if error.code == "invalid_uid" else BAD_HEADER
        except OSError as error:
            _LOG.warning("an object could not be written (%s); its sender is told to come back", type(error).__name__)
            status = NO_ROOM
        peer = self._peers[event.assoc]
        peer.pending = max(0, peer.pending - size - COMMAND_BYTES)
        if status == OK:
            self.counts.stored += 1
        else:
            self.counts.refused += 1
            _LOG.warning("an object was refused with status %04X", status)
        return status

    def _take(self, event: evt.Event, size: int) -> int:
        """Write the object, look at it, and move it to its study."""
        request = cast(C_STORE, event.request)
        sop_uid = str(request.AffectedSOPInstanceUID or "")
        if not is_uid(sop_uid):
            return BAD_UID
        if self._spool.free_bytes() < self._min_free_bytes + size:
            return NO_ROOM
        with self._spool.part() as part:
            with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b") as file:
                file.write(b"\0" * 128 + b"DICM" + encode_file_meta(event.file_meta))
                if request.DataSet is not None:
                    file.write(request.DataSet.getbuffer())
                file.flush()
                os.fsync(file.fileno())

                def read(start: int, length: int) -> bytes:
                    file.seek(start)
                    return file.read(length)

                values = read_header(read, file.seek(0, os.SEEK_END)).values
            study_uid = text(values, STUDY_UID)
            if not is_uid(study_uid):
                return BAD_UID
            if text(values, SOP_UID) != sop_uid:
                return OTHER_UID
            study = self._spool.name(study_uid)
            self._peers[event.assoc].study = study
            self._spool.keep(part, study, sop_uid)
        return OK

    def _keep(self) -> None:
        """Until stopped: hand on complete studies, forget closed associations, make room."""
        tick = min(1.0, max(0.02, self._quiet_s / 4))
        while not self._stop.wait(tick):
            try:
                self._forget()
                self._offers += [(0.0, path) for path in self._spool.complete(self._held)]
                self._spool.tidy(2 * self._min_free_bytes)
            except OSError as error:
                _LOG.warning("the folder of the receiver cannot be used (%s); it is tried again", type(error).__name__)
            self._offer()

    def _forget(self) -> None:
        """Let go of associations that ended; pynetdicom leaves their sockets open when the other side was faster."""
        for gone in [one for one in list(self._peers) if one.ident and not one.is_alive()]:
            raw = self._peers.pop(gone).raw
            if raw is not None:
                raw.close()

    def _held(self, study: str) -> bool:
        """True while an association that still moves is in the middle of the study."""
        limit = time.monotonic() - NETWORK_S - self._quiet_s
        return any(peer.study == study and peer.last > limit for peer in self._peers.values())

    def _offer(self) -> None:
        """Tell of complete studies."""
        now = time.monotonic()
        due = [path for when, path in self._offers if when <= now]
        self._offers = [(when, path) for when, path in self._offers if when > now]
        for path in due:
            try:
                self._on_study(path)
                self.counts.studies += 1
            except Exception as error:  # a study that nobody takes must not stop the next
                _LOG.warning("a complete study could not be handed on (%s); again in a minute", type(error).__name__)
                self._offers.append((now + NETWORK_S, path))
