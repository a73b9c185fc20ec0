"""Studies that lie in a PACS, fetched by DICOMweb one at a time and removed when they are converted."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from medvl.errors import ConfigError, InputError
from medvl.network.access import Access
from medvl.network.address import WebAddress, parse
from medvl.network.dicomweb import DicomWeb
from medvl.network.errors import is_uid, retryable

MAX_BYTES = 8 << 30
TRIES = 3
_WAIT_S = 2.0


@dataclass(frozen=True)
class Web:
    """Can be sent to worker processes.

    Args:
        address: `dicomweb+https://host/path`, without filters.
        access: login and certificates; allow_plain: let it be plain http to another machine.

    Raises:
        ConfigError: the address cannot be used.
    """

    address: str
    access: Access = field(default_factory=Access)
    allow_plain: bool = False

    def __post_init__(self) -> None:
        self.parsed()

    def parsed(self) -> WebAddress:
        """The address as the network package takes it."""
        text = self.address if self.address.startswith("dicomweb+") else f"dicomweb+{self.address}"
        found = parse(text, allow_plain=self.allow_plain)
        if not isinstance(found, WebAddress) or found.filters:
            raise ConfigError("--dicomweb takes the address of a service, dicomweb+https://host/path, without filters")
        return found

    def name(self, place: str) -> str:
        """What tells a study of this service from all others."""
        return hashlib.sha256(f"{self.parsed().url}|{self._uid(place)}".encode()).hexdigest()

    def _uid(self, place: str) -> str:
        """The Study Instance UID of a UID or of an address of this service; empty where it is neither."""
        url, _, rest = place.removeprefix("dicomweb+").partition("/studies/")
        uid = place if not rest else rest.split("/")[0] if url == self.parsed().url else ""
        return uid if is_uid(uid) else ""

    @contextmanager
    def fetched(self, place: str, folder: Path) -> Iterator[Path]:
        """The study's CT images in `folder`, which goes at the end.

        Raises:
            InputError: ``bad_row``, ``no_images``, ``pacs_unreachable``, ``pacs_refused`` or ``too_large``.
        """
        uid = self._uid(place)
        if not uid:
            raise InputError("bad_row", "the study is no Study Instance UID and no address of the --dicomweb service")
        try:
            with DicomWeb(self.parsed(), self.access) as web:
                if not self._fetch(web, uid, folder):
                    raise InputError("no_images", "the PACS has no CT series in the study, or no such study")
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _fetch(self, web: DicomWeb, uid: str, folder: Path) -> int:
        for left in range(TRIES - 1, -1, -1):
            try:
                return web.fetch(uid, folder, max_bytes=MAX_BYTES)
            except InputError as error:
                if not left or not retryable(error):
                    raise
                time.sleep(_WAIT_S)
        return 0
