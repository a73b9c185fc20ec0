"""Decoding on all cores with codecs that hold Python's lock: small worker processes that send planes through pipes.

A worker runs `main()` of this module: it reads its frames as JSON from standard input and writes, per frame, an 8-byte header
and the stored values. No pickles, no shared state, no need for a main guard in the caller's script.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.dicom.frames import Encoding, Frame
from medvl.dicom.pixels import JPEG_LS, RLE, decode, frame_data
from medvl.dicom.source import Item, Opener
from medvl.errors import InputError

MIN_PIXELS = 24 << 18  # below about 24 slices of 512 x 512 the processes cost more than they save
_HEAD = struct.Struct("<B3xL")
_COMMAND = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); from medvl.dicom.workers import main; main()",
]


def n_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worth_workers(frames: Sequence[Frame]) -> bool:
    """True for many frames of a codec that blocks the other threads, on more than one core."""
    first = frames[0].encoding
    light = first.native or first.transfer_syntax in (RLE, *JPEG_LS)
    return not light and n_cores() > 1 and bool(sys.executable) and len(frames) * first.rows * first.columns >= MIN_PIXELS


def decode_all(frames: Sequence[Frame]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (index, stored values) of every frame, in the order in which workers finish.

    Raises:
        InputError: of the first frame that fails.
    """
    results: queue.SimpleQueue[tuple[int, NDArray[Any]] | InputError | None] = queue.SimpleQueue()
    n_workers = min(n_cores(), len(frames))
    processes = [subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(n_workers)]
    threads = [
        threading.Thread(target=_drain, args=(process, frames, range(k, len(frames), n_workers), results), daemon=True)
        for k, process in enumerate(processes)
    ]
    for thread in threads:
        thread.start()
    try:
        ended = 0
        while ended < n_workers:
            result = results.get()
            if isinstance(result, InputError):
                raise result
            if result is None:
                ended += 1
            else:
                yield result
    finally:
        for process in processes:
            process.kill()
        for thread in threads:
            thread.join()
        for process in processes:
            process.wait()


def _drain(
    process: subprocess.Popen[bytes],
    frames: Sequence[Frame],
    indices: range,
    results: queue.SimpleQueue[tuple[int, NDArray[Any]] | InputError | None],
) -> None:
    """Feed one worker and pass on what it decodes."""
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 - pipes were asked for
    try:
        process.stdin.write(json.dumps([_to_json(frames[k]) for k in indices]).encode())
        process.stdin.close()
        for k in indices:
            head = process.stdout.read(_HEAD.size)
            if len(head) < _HEAD.size:
                raise InputError(
                    "undecodable", "a decoder process ended before its frame was done; convert the series to uncompressed"
                )
            width, length = _HEAD.unpack(head)
            body = process.stdout.read(length)
            if width == 0:
                code, message = json.loads(body)
                raise InputError(code, message)
            encoding = frames[k].encoding
            kind = "i" if encoding.signed else "u"
            results.put((k, np.frombuffer(body, f"{kind}{width}").reshape(encoding.rows, encoding.columns)))
    except InputError as error:
        results.put(error)
    except OSError as error:
        results.put(InputError("undecodable", f"a decoder process failed ({type(error).__name__})"))
    finally:
        process.stdout.close()
        results.put(None)


def _to_json(frame: Frame) -> dict[str, Any]:
    item = asdict(frame.item) | {"path": str(frame.item.path)}
    return {"item": item, "chunks": frame.chunks, "encoding": asdict(frame.encoding)}


def _from_json(data: dict[str, Any]) -> Frame:
    item = Item(**(data["item"] | {"path": Path(data["item"]["path"])}))
    chunks = tuple((at, length) for at, length in data["chunks"])
    return Frame(item, chunks, Encoding(**data["encoding"]), None, None, None, 1.0, 0.0, {}, {})


def main() -> None:
    """Decode the frames named on standard input."""
    jobs = json.load(sys.stdin)
    out = sys.stdout.buffer
    with Opener() as opener:
        for job in jobs:
            frame = _from_json(job)
            try:
                values = np.ascontiguousarray(decode(frame_data(frame, opener), frame.encoding))
                out.write(_HEAD.pack(values.dtype.itemsize, values.nbytes))
                out.write(values.data)
            except InputError as error:
                body = json.dumps([error.code, error.message]).encode()
                out.write(_HEAD.pack(0, len(body)) + body)
            out.flush()
