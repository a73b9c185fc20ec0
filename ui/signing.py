"""What a page shows of the sign-in: who is at work, the way out, and what to do when nobody is signed in."""

from __future__ import annotations

import streamlit as st

from medvl.errors import ConfigError
from medvl.records import RESEARCH_USE

from .access import LOCAL, Mode, User, access, current, handle, identity, sign_out
from .accounts import Role
from .gate import ACTIVE, SIGN_IN
from .reviews import note
from .station import station
from .transport import STATIC
from .wording import plain

_guard = st.components.v2.component("medvl_guard", html="<span></span>", js=(STATIC / "guard.js").read_text(encoding="utf-8"))


def admit() -> User:
    """The user of this page; a page for nobody ends here, with the way to sign in."""
    user = current()
    if user is None:
        _nobody()
        st.stop()
    _watch()
    return user


def _watch() -> None:
    """Have the browser tell when its user is at work, and leave the page when the session ends."""
    way = access()
    if way.mode == Mode.local:
        return
    every = max(1, min(20, int(way.sessions.idle_s // 6)))
    data = {"url": ACTIVE, "every": every, "signIn": f"{SIGN_IN}?ended" if way.mode == Mode.users else ""}
    _guard(key="guard", data=data | ({"handle": handle()} if way.mode == Mode.oidc else {}), height=1)


def _nobody() -> None:
    way = access()
    if way.mode == Mode.users:
        st.subheader("You are signed out")
        st.write("Reload this page to sign in again.")
        _guard(key="guard", data={"ended": True, "signIn": f"{SIGN_IN}?ended"}, height=1)
        return
    told, token = identity(), handle()
    st.markdown("### medvl :small[:gray[viewer]]")
    if told and token and way.sessions.was(token):
        st.write("You were signed out after a while without use.")
        st.button("Sign in again", type="primary", on_click=st.logout)
    elif told:
        st.warning("Whoever runs this viewer has given you no account, or the sign-in is too old.")
        st.button("Use another account", on_click=st.logout)
    else:
        st.button("Sign in", type="primary", on_click=st.login)
    st.caption(RESEARCH_USE)


def show_user(user: User) -> None:
    """Who is at work, with the way to the administration and out."""
    way = access()
    if way.mode == Mode.local:
        st.caption(f"{LOCAL}: {plain(user.name)}, {user.role}")
        return
    with st.popover(f"{plain(user.name)}, {user.role}", width="stretch"):
        if user.role.covers(Role.admin):
            label = "Studies" if administration_open() else "Administration"
            st.button(
                label, key="administration", on_click=_show_administration, args=(not administration_open(),), width="stretch"
            )
        st.button("Sign out", key="sign_out", on_click=_leave, args=(user,), width="stretch")


def administration_open() -> bool:
    """Whether the administration has the page; never for other roles, whatever the page's memory says."""
    user = current()
    return bool(st.session_state.get("administration_open")) and user is not None and user.role.covers(Role.admin)


def _show_administration(yes: bool) -> None:
    st.session_state["administration_open"] = yes


def _leave(user: User) -> None:
    mode = access().mode
    sign_out()
    try:
        note(station().root, user, "signed out")
    except ConfigError:  # somebody may always leave
        st.toast("The audit log could not be written.")
    if mode == Mode.oidc:
        st.logout()
