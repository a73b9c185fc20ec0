"""The sign-in page of `users` mode: plain HTML without script, before anything of Streamlit.

The session it begins is kept in an HttpOnly cookie that other sites' pages cannot send (SameSite=Strict).
"""

from __future__ import annotations

import html
import logging
from pathlib import Path
from string import Template
from urllib.parse import parse_qs, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from medvl.errors import ConfigError
from medvl.records import RESEARCH_USE

from . import reviews
from .access import Mode, User, access, proof
from .accounts import LONGEST_NAME, LONGEST_PASSWORD, Role, opens
from .gate import ACTIVE, SIGN_IN, signed_in
from .station import station

HANDLE = "x-medvl-session"
_LARGEST_FORM = 8 * (LONGEST_NAME + LONGEST_PASSWORD)
_log = logging.getLogger("medvl.viewer")


async def sign_in(request: Request) -> Response:
    """The page that asks who it is, and the answer to what it sends."""
    if access().mode != Mode.users:
        return RedirectResponse("/", 303)
    if request.method == "GET":
        ended = "You were signed out after a while without use, or by yourself." if "ended" in request.query_params else ""
        return RedirectResponse("/", 303) if signed_in(request) else _page(ended)
    if not _own_page(request) or int(request.headers.get("content-length") or _LARGEST_FORM + 1) > _LARGEST_FORM:
        return _page("That did not come from this page. Try again.", 403)
    form = parse_qs((await request.body())[:_LARGEST_FORM].decode("utf-8", "replace"))
    name, password = (form.get(key, [""])[0] for key in ("name", "password"))
    return await _tried(name.strip()[:LONGEST_NAME], password)


async def _tried(name: str, password: str) -> Response:
    way = access()
    wait = way.attempts.begin(name)
    if wait > 0:
        _noted(name, "sign-in refused", "too many tries")
        return _page(f"Too many tries. Try again in {int(wait // 60) + 1} minutes.", 429, {"Retry-After": str(int(wait) + 1)})
    try:
        account = way.accounts.get(name) if way.accounts else None
        good = await run_in_threadpool(opens, account, password)
        if not good or account is None:
            _noted(name, "sign-in failed", "wrong name or password")
            return _page("Name or password is wrong.", 401)
        reviews.note(station().root, User(account.name, account.role), "signed in")
    except ConfigError as error:
        _log.error("sign-in is closed: %s", error)
        return _page("Nobody can sign in now; whoever runs this viewer finds the reason in its log.", 503)
    way.attempts.succeeded(name)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        way.cookie,
        way.sessions.begin(account.name, proof(account)),
        httponly=True,
        samesite="strict",
        secure=way.secure,
        path="/",
    )
    return answer


def _noted(name: str, what: str, why: str) -> None:
    """Log a failure; a name that is no user's is not kept, since people type passwords there."""
    way = access()
    try:
        known = way.accounts.get(name) if way.accounts else None
        who = User(name, known.role) if known else User("unknown", Role.reader)
        reviews.note(station().root, who, what, reason=why)
    except ConfigError as error:
        _log.error("%s, which the audit log could not take: %s", what, error)


def _own_page(request: Request) -> bool:
    origin = request.headers.get("origin")
    same = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    return same and request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


async def session(request: Request) -> Response:
    """GET: how many seconds the session has left. POST: its user just did something."""
    way = access()
    token = request.cookies.get(way.cookie) if way.mode == Mode.users else request.headers.get(HANDLE)
    if request.method == "POST" and _own_page(request):
        way.sessions.active(token)
    found = way.sessions.find(token)
    try:
        alive = way.account(found) is not None and found is not None
    except ConfigError:
        alive = False
    left = way.sessions.left(found) if alive and found else 0.0
    return JSONResponse({"seconds": int(left)}, 200 if alive else 401, {"Cache-Control": "no-store"})


def routes() -> list[Route]:
    """The gate's own routes."""
    return [Route(SIGN_IN, sign_in, methods=["GET", "POST"]), Route(ACTIVE, session, methods=["GET", "POST"])]


def _page(message: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    style = (Path(__file__).parent / "static" / "sign_in.css").read_text(encoding="utf-8")
    said = f'<p class="said" role="alert">{html.escape(message)}</p>' if message else ""
    body = _HTML.substitute(style=style, said=said, use=html.escape(RESEARCH_USE), action=SIGN_IN, longest=LONGEST_NAME)
    return HTMLResponse(body, status, {"Cache-Control": "no-store", **(headers or {})})


_HTML = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,"><title>Sign in - medvl viewer</title>
<style>$style</style></head>
<body><main><h1>medvl <small>viewer</small></h1>$said
<form method="post" action="$action">
<label>Name<input name="name" autocomplete="username" autocapitalize="none" maxlength="$longest" required autofocus></label>
<label>Password<input name="password" type="password" autocomplete="current-password" required></label>
<button>Sign in</button></form>
<p class="use">$use</p></main></body></html>
"""
)
