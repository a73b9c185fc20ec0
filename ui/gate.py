"""The gate before Streamlit: nobody who is not signed in reaches a page, a socket or a picture; and headers for all answers."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import streamlit
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medvl.errors import ConfigError

from .access import Mode, access

SIGN_IN, ACTIVE = "/medvl/sign-in", "/medvl/session"
OPEN = (SIGN_IN, ACTIVE, "/_stcore/health")
_log = logging.getLogger("medvl.viewer")


class Gate:
    """ASGI middleware around all of the viewer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        if not _known_host(asked):
            await _refuse(scope, receive, send, PlainTextResponse("This viewer does not answer under that name.", 421))
        elif access().mode == Mode.users and scope["path"] not in OPEN and not signed_in(asked):
            to_page = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/"
            answer = RedirectResponse(SIGN_IN, 303) if to_page else PlainTextResponse("Sign in first.", 401)
            await _refuse(scope, receive, send, answer)
        elif scope["type"] == "websocket":
            await self._app(scope, _while_signed_in(asked, receive, send), send)
        else:
            await self._app(scope, receive, _with_headers(send))


async def _refuse(scope: Scope, receive: Receive, send: Send, answer: Response) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    else:
        await answer(scope, receive, _with_headers(send))


def _known_host(asked: HTTPConnection) -> bool:
    """Whether the viewer was asked for by a name of its own; keeps out pages that give their own name our address."""
    hosts = access().hosts
    return not hosts or (urlsplit(f"//{asked.headers.get('host', '')}").hostname or "") in hosts


def signed_in(asked: HTTPConnection) -> bool:
    """Whether a request comes with the cookie of a session."""
    way = access()
    try:
        return way.account(way.sessions.find(asked.cookies.get(way.cookie))) is not None
    except ConfigError as error:
        _log.error("sign-in is closed: %s", error)
        return False


def _while_signed_in(asked: HTTPConnection, receive: Receive, send: Send) -> Receive:
    """What comes over a socket, until the session ends: nothing that is asked after that reaches a page."""

    async def guarded() -> Message:
        message = await receive()
        if access().mode == Mode.users and message["type"] == "websocket.receive" and not signed_in(asked):
            await send({"type": "websocket.close", "code": 1008})
            return {"type": "websocket.disconnect", "code": 1008}
        return message

    return guarded


# Headers


@cache
def _policy() -> str:
    """Scripts come from this server alone: none that is written into a page runs, but for Streamlit's own, by their hashes."""
    index = (Path(streamlit.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    inline = re.findall(r"<script>(.*?)</script>", index, re.DOTALL)
    own = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in inline)
    return (
        f"default-src 'self'; script-src 'self' blob: 'unsafe-eval' {own}; worker-src 'self' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    )


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in {
                "Content-Security-Policy": _policy(),
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                "Referrer-Policy": "same-origin",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
            }.items():
                headers.setdefault(name, value)
        await send(message)

    return guarded
