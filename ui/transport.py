"""HTTP routes beside Streamlit's: picture bytes behind a signed token with Range, and the viewer's own scripts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from medvl.errors import InputError

from . import access
from .station import station

PREFIX = "/medvl"
STATIC = Path(__file__).parent / "static"
_CHUNK = 1 << 20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_HEADERS = {
    "Cache-Control": "private, no-store",
    "Content-Encoding": "identity",  # Streamlit would gzip hundreds of megabytes on the fly
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


def picture_url(case_id: str, name: str) -> str:
    """Path and token under which the browser can fetch one picture for some minutes, until its user signs out."""
    return f"{PREFIX}/picture/{quote(station().sign(case_id, name, access.holder()), safe='')}"


@cache
def script_url() -> str:
    """Path of the viewer's main module; it changes with the content of any script, so browsers may keep them."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.glob("*.js")):
        digest.update(path.read_bytes())
    return f"{PREFIX}/script/{digest.hexdigest()[:16]}/viewer.js"


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte that a Range header asks of `size` bytes; None for the whole.

    Raises:
        ValueError: the range is malformed, has several parts or lies outside.
    """
    if header is None:
        return None
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        raise ValueError(header)
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last), size - 1) if first and last else size - 1
    if start > stop:
        raise ValueError(header)
    return start, stop


async def picture(request: Request) -> Response:
    """Raw voxels in C order: int16 little-endian for an image, uint8 for a heat map."""
    target = station().opens(request.path_params["token"], access.holds)
    if target is None:
        return PlainTextResponse("This link has expired.", 403, headers=_HEADERS)
    try:
        held = await run_in_threadpool(station().picture, *target)
    except InputError as error:
        return PlainTextResponse(error.message, 404, headers=_HEADERS)
    headers, size = {**_HEADERS, "Accept-Ranges": "bytes"}, held.n_bytes
    try:
        part = byte_range(request.headers.get("range"), size)
    except ValueError:
        return Response(None, 416, headers={**headers, "Content-Range": f"bytes */{size}"})
    first, last = part or (0, size - 1)
    try:
        body = await run_in_threadpool(held.part, first, last)
    except InputError as error:
        return PlainTextResponse(error.message, 404, headers=_HEADERS)
    headers["Content-Length"] = str(len(body))
    if part:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return StreamingResponse(_chunks(body), 206 if part else 200, headers, "application/octet-stream")


async def _chunks(body: memoryview) -> AsyncIterator[memoryview]:
    for offset in range(0, len(body), _CHUNK):
        yield body[offset : offset + _CHUNK]


async def script(request: Request) -> Response:
    """One of the viewer's own modules; never a path of the caller's choice."""
    known = {path.name: path for path in STATIC.glob("*.js")}
    path = known.get(request.path_params["name"])
    if path is None:
        return PlainTextResponse("No such script.", 404)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(path.read_bytes(), headers=headers, media_type="text/javascript")


def routes() -> list[Route]:
    """All routes of the viewer."""
    return [
        Route(f"{PREFIX}/picture/{{token}}", picture, methods=["GET"]),
        Route(f"{PREFIX}/script/{{version}}/{{name}}", script, methods=["GET"]),
    ]
