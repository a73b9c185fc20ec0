"""The page for administrators: users, who is signed in, the audit log and its check, and how the results folder stands."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st
from sqlalchemy.exc import DatabaseError

from medvl.errors import ConfigError

from . import reviews, worklist
from .access import NotAllowedError, User, access, require
from .accounts import Role
from .station import station
from .wording import STATUS, plain

LINES = 2000
_WORDS = {"ok": ":green-badge[ok]", "warning": ":orange-badge[warning]", "problem": ":red-badge[problem]"}


def show() -> None:
    """Draw the page.

    Raises:
        NotAllowedError: the user of this page is no administrator.
    """
    who = require(Role.admin)
    st.markdown("#### Administration")
    people, log, folder = st.tabs(["Users", "Audit log", "Results and machine"])
    with people:
        _people()
    with log:
        _log(who)
    with folder:
        _folder()


def _people() -> None:
    way = access()
    if way.accounts is None:
        return
    try:
        known = way.accounts.everybody()
    except ConfigError as error:
        st.error(plain(str(error)))
        return
    left, right = st.columns(2)
    left.markdown("**Accounts**")
    rows = [{"Name": u.name, "Role": str(u.role), "Signs in by": "password" if u.password else "OIDC"} for u in known]
    left.dataframe(pd.DataFrame(rows), hide_index=True, key="accounts")
    left.caption(
        plain("Change them where the viewer runs: medvl view --add-user NAME --role ROLE --users FILE. Roles count at once.")
    )
    right.markdown("**Signed in now**")
    now = time.time()
    open_ = [
        {"Name": s.name, "Since (UTC)": _moment(s.begun), "Idle min": int((now - s.seen) // 60)} for s in way.sessions.everybody()
    ]
    right.dataframe(pd.DataFrame(open_), hide_index=True, key="signed_in")
    idle, longest = way.sessions.idle_s / 60, way.sessions.longest_s / 3600
    right.caption(f"A session ends after {idle:g} minutes without use and after {longest:g} hours.")


def _log(who: User) -> None:
    try:
        events = reviews.events(station().root)
    except (ConfigError, DatabaseError):
        st.error("The audit log cannot be read. Look at the disk and the rights of the results folder.")
        return
    left, middle, right = st.columns([3, 1, 1], vertical_alignment="bottom")
    wanted = str(left.text_input("Search the log", key="log_search", placeholder="Name, event or case")).lower().split()
    middle.button("Check the log", key="verify", on_click=_verify, width="stretch")
    right.download_button(
        "Export", lambda: export(who), file_name="medvl-audit.jsonl", mime="application/jsonl", key="export_log", width="stretch"
    )
    _checked()
    lines = [
        line for line in map(_line, reversed(events)) if all(word in " ".join(map(str, line.values())).lower() for word in wanted)
    ]
    st.dataframe(pd.DataFrame(lines[:LINES]), hide_index=True, height=430, row_height=28, key="log", placeholder="")
    more = f" The last {LINES} are shown; the export holds all." if len(lines) > LINES else ""
    st.caption(f"{len(lines)} of {len(events)} events, the newest first.{more}")


def _line(event: dict[str, Any]) -> dict[str, Any]:
    detail = event.get("detail") or {}
    told = ", ".join(f"{name} {value}" for name, value in detail.items() if name not in ("history", "sha256"))
    return {
        "No": event.get("number"),
        "Time (UTC)": _moment(float(event.get("at") or 0.0)),
        "Who": event.get("who"),
        "Role": event.get("role"),
        "What": event.get("what"),
        "Case": event.get("case_id"),
        "Details": told[:300],
    }


def _verify() -> None:
    require(Role.admin)
    try:
        st.session_state["verified"] = reviews.verify(station().root)
    except (ConfigError, DatabaseError):
        st.session_state["verified"] = None


def _checked() -> None:
    if "verified" not in st.session_state:
        return
    found = st.session_state["verified"]
    if found is None:
        st.error("The log could not be checked.")
    elif found.problems:
        st.error("Somebody tampered with the log, or it is damaged:")
        for line in found.problems[:20]:
            st.text(line)
    else:
        st.success(f"The log is whole: {found.n_rows} events. Note its head elsewhere, to notice if its end is cut off one day:")
        st.code(found.head, language=None)


def export(who: User) -> str:
    """The audit log, one JSON object a line; that it was exported is noted in it.

    Raises:
        NotAllowedError: `who` is no administrator.
        ConfigError: the log cannot be read or written.
    """
    if not who.role.covers(Role.admin):
        raise NotAllowedError(f"the log is exported by administrators; you are signed in as {who.role}")
    reviews.note(station().root, who, "log exported")
    return "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in reviews.events(station().root))


def _folder() -> None:
    root = station().root
    rows = worklist.rows()
    counts = Counter(row.status for row in rows)
    free = shutil.disk_usage(root).free
    facts = {"Studies": f"{len(rows)}"} | {STATUS[status].capitalize(): f"{n}" for status, n in sorted(counts.items())}
    st.dataframe(pd.DataFrame([facts | {"Disk free": f"{free / 2**30:.1f} GiB"}]), hide_index=True, key="facts")
    st.caption(
        "How the last run ended: summary.html in the results folder. Reasons are explained in docs/reference/reason\\-codes.md."
    )
    if st.button("Check this machine", key="doctor", help="What `medvl doctor` finds; nothing leaves the machine."):
        require(Role.admin)
        with st.spinner("Looking at this machine"):
            _doctor()


def _doctor() -> None:
    from medvl.doctor.examine import examine

    for check in sorted(examine(out=station().root), key=lambda check: ("problem", "warning", "ok").index(check.status)):
        fix = f" {plain(check.fix)}" if check.fix else ""
        st.markdown(f"{_WORDS[check.status]} **{plain(check.name)}** {plain(check.found)}{fix}")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
