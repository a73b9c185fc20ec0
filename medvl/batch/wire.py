"""Messages between the run and its child processes: JSON and raw arrays, nothing that could execute.

A child parses files that nobody vouches for. Were it taken over, what it sends would still be only data.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_HEAD = struct.Struct("<Q")
MAX_TEXT, MAX_ARRAYS = 256 << 20, 1 << 30
_TYPES = ("int16", "float32")


class Broken(Exception):  # noqa: N818 - a signal, not an error
    """The other side is gone, or does not speak this language."""


def send(stream: IO[bytes], text: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Write one message.

    Raises:
        Broken: nobody reads.
    """
    shapes = [[str(a.dtype), list(a.shape)] for a in arrays]
    body = json.dumps({"text": text, "arrays": shapes}).encode()
    try:
        stream.write(_HEAD.pack(len(body)) + body)
        for array in arrays:
            stream.write(array.tobytes())
        stream.flush()
    except (OSError, ValueError) as error:
        raise Broken("the other process is gone") from error


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Read one message.

    Raises:
        Broken: the stream ends, or what it holds is no message of sensible size.
    """
    (length,) = _HEAD.unpack(_exactly(stream, _HEAD.size))
    if length > MAX_TEXT:
        raise Broken("a message longer than any that is sent")
    try:
        body = json.loads(_exactly(stream, length))
        shapes = [(str(kind), tuple(int(n) for n in shape)) for kind, shape in body["arrays"]]
        text = dict(body["text"])
    except (ValueError, KeyError, TypeError) as error:
        raise Broken("a message that is none") from error
    if any(kind not in _TYPES or min(shape, default=0) < 0 for kind, shape in shapes):
        raise Broken("an array of an unknown kind")
    sizes = [int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize for kind, shape in shapes]
    if sum(sizes) > MAX_ARRAYS:
        raise Broken("arrays larger than any that are sent")
    pairs = zip(shapes, sizes, strict=True)
    return text, [np.frombuffer(bytearray(_exactly(stream, size)), kind).reshape(shape) for (kind, shape), size in pairs]


def _exactly(stream: IO[bytes], size: int) -> bytes:
    try:
        data = stream.read(size)
    except (OSError, ValueError) as error:
        raise Broken("the other process is gone") from error
    if data is None or len(data) < size:
        raise Broken("the other process is gone")
    return data
