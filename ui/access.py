"""Who uses the viewer and what they may do. Three ways of knowing: `local` (no sign-in), `users` (passwords), `oidc`.

Sessions of `users` are opened by the gate (`gate.py`) before a browser reaches any page of Streamlit, and live in an HttpOnly
cookie; those of `oidc` begin when Streamlit's own sign-in has told who it is. Both end in the same table: after some minutes
in which the user did nothing, at a certain age, by signing out, or when the account changes.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import streamlit as st

from medvl.errors import ConfigError, MedvlError

from .accounts import Account, Accounts, Role
from .sessions import Attempts, Session, Sessions

COOKIE = "medvl_session"
LOCAL = "Local mode, no sign-in"
_SALT = secrets.token_hex()


class Mode(StrEnum):
    """How the viewer knows its users."""

    local = "local"
    users = "users"
    oidc = "oidc"


@dataclass(frozen=True)
class User:
    """Somebody who may use the viewer."""

    name: str
    role: Role


class NotAllowedError(MedvlError):
    """Nobody is signed in, or what was asked is not for this role."""


@dataclass(frozen=True, eq=False)
class Access:
    """How one viewer process knows its users.

    Args:
        mode: local, users or oidc.
        user: name of the one user of local mode.
        accounts: of the other modes.
        sessions: who is signed in.
        attempts: who failed to.
        secure: cookies only travel over https.
        hosts: names under which this viewer may be asked for; all when empty.
    """

    mode: Mode = Mode.local
    user: str = "local user"
    accounts: Accounts | None = None
    sessions: Sessions = field(default_factory=lambda: Sessions(15 * 60, 12 * 3600), repr=False)
    attempts: Attempts = field(default_factory=Attempts, repr=False)
    secure: bool = False
    hosts: tuple[str, ...] = ()

    @property
    def cookie(self) -> str:
        """Name of the cookie; its prefix has browsers refuse it from elsewhere and over http."""
        return f"__Host-{COOKIE}" if self.secure else COOKIE

    def account(self, session: Session | None) -> Account | None:
        """The account of a session, if it is still as it was at the sign-in; role changes count at once.

        Raises:
            ConfigError: the file of users is no longer as it must be.
        """
        if session is None or self.accounts is None:
            return None
        found = self.accounts.get(session.name)
        return found if found is not None and proof(found) == session.proof else None


def proof(account: Account) -> str:
    """What a session keeps of an account to notice a new password."""
    return hashlib.sha256(f"{account.name}\n{account.password}".encode()).hexdigest()


_open: list[Access] = []


def open_access(given: Access) -> Access:
    """Make this the way in of this process."""
    _open[:] = [given]
    return given


def access() -> Access:
    """The way in of this process; local mode when nothing was said."""
    return _open[0] if _open else open_access(Access())


def current() -> User | None:
    """The user of this page; None when nobody is signed in (any more)."""
    way = access()
    if way.mode == Mode.local:
        return User(way.user, Role.reviewer)
    token = handle()
    try:
        account = way.account(way.sessions.find(token))
    except ConfigError:
        return None
    if account is None or token is None:
        return None
    _belong(token)
    return User(account.name, account.role)


def _belong(token: str) -> None:
    """Tie this page's memory to the sign-in; that of an earlier one is forgotten."""
    mark = hashlib.sha256(token.encode()).hexdigest()
    if st.session_state.get("belongs_to", mark) != mark:
        st.session_state.clear()
    st.session_state["belongs_to"] = mark


def handle() -> str | None:
    """The token of this page's session."""
    way = access()
    if way.mode == Mode.users:
        return cookies().get(way.cookie)
    if way.mode == Mode.oidc:
        return _oidc_handle(identity())
    return None


def holder() -> str:
    """A mark of this page's sign-in for links of pictures; empty in local mode."""
    token = handle()
    return hashlib.sha256(token.encode()).hexdigest() if token else ""


def holds(mark: str) -> bool:
    """Whether the sign-in of that mark still stands; links of local mode have none."""
    way = access()
    if way.mode == Mode.local:
        return True
    try:
        return way.account(way.sessions.marked(mark)) is not None
    except ConfigError:
        return False


def cookies() -> Mapping[str, str]:
    """Cookies that came with this page's connection."""
    return st.context.cookies.to_dict()


def identity() -> Mapping[str, Any]:
    """What Streamlit's own sign-in tells of the user; nothing when nobody is signed in."""
    return st.user.to_dict() if st.user.get("is_logged_in") else {}


def _oidc_handle(told: Mapping[str, Any]) -> str | None:
    """A token that only this sign-in at the provider yields, so that an ended session is not opened again by reloading."""
    way = access()
    parts = [str(told.get(name) or "") for name in ("iss", "sub", "iat")]
    name = str(told.get(way.accounts.claim if way.accounts else "email") or "")
    if not all(parts) or not name or (told.get("email_verified") is False):
        return None
    token = hashlib.sha256("\n".join([*parts, _SALT]).encode()).hexdigest()
    if way.sessions.find(token) is None and not way.sessions.was(token):
        account = way.accounts.get(name) if way.accounts else None
        if account is None or not way.sessions.fresh(float(parts[2])):
            return None
        way.sessions.begin(account.name, proof(account), token)
    return token


def require(role: Role) -> User:
    """The user of this page, who must have this role or a higher one.

    Raises:
        NotAllowedError: nobody is signed in, or the role is too low.
    """
    user = current()
    if user is None:
        raise NotAllowedError("nobody is signed in; reload the page and sign in")
    if not user.role.covers(role):
        raise NotAllowedError(f"this is for the role {role}; you are signed in as {user.role}")
    return user


def may(role: Role) -> bool:
    """Whether the user of this page has this role or a higher one."""
    user = current()
    return user is not None and user.role.covers(role)


def sign_out() -> None:
    """End this page's session, on every tab of the browser."""
    token = handle()
    if token:
        access().sessions.end(token)
    st.session_state.clear()


def parsed(arguments: Sequence[str]) -> Access:
    """The way in that `medvl_ui.launch.Door.options` describes; other arguments are left to their owners.

    Raises:
        ConfigError: the file of users is not as it must be.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--auth", type=Mode, default=Mode.local)
    parser.add_argument("--users", type=Path)
    parser.add_argument("--user", default="")
    parser.add_argument("--name", action="append", default=[])
    parser.add_argument("--idle-minutes", type=float, default=15.0)
    parser.add_argument("--longest-hours", type=float, default=12.0)
    parser.add_argument("--secure", action="store_true")
    known, _ = parser.parse_known_args(arguments)
    sessions = Sessions(60 * known.idle_minutes, 3600 * known.longest_hours)
    accounts = Accounts(known.users) if known.auth != Mode.local else None
    name = known.user or getpass.getuser()
    return Access(known.auth, name, accounts, sessions, secure=known.secure, hosts=tuple(known.name))
