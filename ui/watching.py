"""What is noted while somebody reads: that a study was opened, which findings were looked at, and the time it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from sqlalchemy.exc import DatabaseError

from medvl.errors import ConfigError, MedvlError
from medvl.review.record import MAY_DECIDE, Who

from .reviews import note, reviews
from .station import station
from .study import FindingRecord, Study
from .transport import STATIC
from .wording import plain

EVERY_S = 10  # between reports of reading time
_SLACK_S = 2.0

_clock = st.components.v2.component(
    "medvl_reading_clock",
    html="<span></span>",
    js=(STATIC / "reading_clock.js").read_text(encoding="utf-8"),
)


def once(case_id: str, who: Who, what: str, **detail: str) -> None:
    """Note in the audit log that somebody looked at something, once a session.

    Raises:
        ConfigError: there is no log to write to.
    """
    seen: set[tuple[str, ...]] = st.session_state.setdefault("watched", set())
    mark = (case_id, what, *(f"{name}={value}" for name, value in sorted(detail.items())))
    if mark not in seen:
        note(station().root, who, what, case_id, **detail)
        seen.add(mark)


def looked(case_id: str, who: Who, what: str, **detail: str) -> None:
    """The same; a folder that takes no log is read all the same, and said so."""
    with _said():
        once(case_id, who, what, **detail)


def did(case_id: str, who: Who, what: str, **detail: str) -> None:
    """As `looked`, noted every time."""
    with _said():
        note(station().root, who, what, case_id, **detail)


@contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        st.caption(plain(f"What is looked at cannot be logged here: {error}"))


def watch(study: Study, finding: FindingRecord | None, who: Who) -> None:
    """Note in the audit log what is on the page, each once a session, and start the clock of those who may decide.

    Raises:
        ConfigError: there is no log to write to.
    """
    desk = reviews(station().root)
    seen: set[tuple[str, ...]] = st.session_state.setdefault("watched", set())
    if (study.case_id, "") not in seen:
        try:
            desk.opened(study.case_id, who)
        except MedvlError:  # a record that cannot be read was looked at all the same
            desk.log(who, "view opened", study.case_id)
        seen.add((study.case_id, ""))
    if finding is not None:
        once(study.case_id, who, "finding viewed", item=finding.key)
    if study.status == "done" and who.role in MAY_DECIDE:
        _count(study.case_id, who)


@st.fragment
def _count(case_id: str, who: Who) -> None:
    """The clock; its reports draw nothing else anew."""
    now = time.monotonic()
    begun = st.session_state.setdefault("reading_since", {}).setdefault(case_id, now)
    told = _clock(key=f"reading_{case_id}", data={"every": EVERY_S}, height=1, on_seconds_change=_ignore)
    seconds = told.get("seconds")
    if not isinstance(seconds, int | float) or not seconds > 0:
        return
    st.session_state["reading_since"][case_id] = now
    desk = reviews(station().root)
    try:
        results = desk.review(case_id).answers.sha256
        desk.add_time(case_id, results, who, min(float(seconds), now - begun + _SLACK_S))  # never more than went by
    except (MedvlError, DatabaseError):
        return  # time is not worth a word to the reader; what they decide is, and says so itself


def _ignore() -> None:
    """Reports are read when the fragment runs."""
