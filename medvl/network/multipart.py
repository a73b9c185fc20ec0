"""The two bodies of DICOMweb: parts that arrive, taken apart while they stream, and files that leave, never all in memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from email.message import Message
from pathlib import Path
from typing import Literal

from medvl.network.errors import refused, unreachable

CHUNK = 1 << 20
MAX_PART_HEADER = 16 << 10
Event = tuple[Literal["start", "data", "end"], bytes]


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a `multipart/related` answer, None when it is not one."""
    header = Message()
    header["content-type"] = content_type
    found = header.get_boundary()
    return found.encode("latin-1", "replace") if found and header.get_content_type() == "multipart/related" else None


def media_type(content_type: str) -> str:
    """The type without its parameters, in small letters."""
    return content_type.partition(";")[0].strip().lower()


def parts(chunks: Iterable[bytes], boundary: bytes) -> Iterator[Event]:
    """The parts of a multipart body (RFC 2046) as `start`, `data`..., `end`, holding no more than a chunk at a time.

    Raises:
        InputError: ``pacs_unreachable`` when the body ends before its last boundary, ``pacs_refused`` when it is no multipart.
    """
    delimiter = b"\r\n--" + boundary
    buffer, state = b"\r\n", "before"
    for chunk in chunks:
        buffer += chunk
        while True:
            if state == "header":
                if len(buffer) < 2:
                    break
                if buffer.startswith(b"--"):
                    return
                end = buffer.find(b"\r\n\r\n")
                if end < 0:
                    if len(buffer) > MAX_PART_HEADER:
                        raise refused("the PACS sent a part whose header does not end; the server is at fault")
                    break
                buffer, state = buffer[end + 4 :], "body"
                yield "start", b""
            found = buffer.find(delimiter)
            keep = found if found >= 0 else max(0, len(buffer) - len(delimiter) + 1)
            if state == "body" and keep:
                yield "data", buffer[:keep]
            buffer = buffer[keep:]
            if found < 0:
                break
            buffer = buffer[len(delimiter) :]
            if state == "body":
                yield "end", b""
            state = "header"
    raise unreachable("the PACS stopped in the middle of its answer; it is tried again")


class Upload:
    """Files as one `multipart/related` body of known length, read while it is sent."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.boundary = uuid.uuid4().hex
        self._files = [(path, path.stat().st_size) for path in files]
        self._head = f"\r\n--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._tail = f"\r\n--{self.boundary}--\r\n".encode()

    @property
    def content_type(self) -> str:
        """For the request's header."""
        return f'multipart/related; type="application/dicom"; boundary={self.boundary}'

    def __len__(self) -> int:
        return sum(len(self._head) + size for _, size in self._files) + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        for path, size in self._files:
            yield self._head
            left = size
            with path.open("rb") as file:
                while left and (block := file.read(min(CHUNK, left))):
                    left -= len(block)
                    yield block
            if left:
                raise OSError("a file became shorter while it was sent")
        yield self._tail
